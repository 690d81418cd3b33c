"""Does the released code's loss, or a softmax over the wrong axis, make a better CapsNet?

Two questions that ports of CapsNet raise and none has answered. (1) The released code's margin loss is a twentieth of
the paper's, so its reconstruction weighs twenty times more; `paper` with a reconstruction weight of 0.01 has the same
balance at the paper's scale, which Adam hardly notices. (2) Two of the best reported ports (99.7 % on MNIST) take the
softmax over the inputs of a parent instead of the parents of an input. Each parent's first sum is then 10 / 144 (in
the paper's net 10 / 1152) of what it should be, so the scale that W starts from may decide what the mistake costs.

    python launch.py --experiment=loss_scale --dataset=mnist --seeds=5
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from capsnet_jax.figures.arms import name_missing
from capsnet_jax.figures.error_against import error_against
from capsnet_jax.figures.forest import error_by_setting
from capsnet_jax.figures.grouping import Arms, Record, compared_paths, is_arm

CONFIG: dict[str, object] = {"routing.iterations": 3}

LOSS = ["loss.form", "loss.reconstruction_weight"]
SOFTMAX, SCALE = "routing.softmax_over", "model.weight_scale"


def _arm(form: str = "paper", weight: float = 0.0005, over: str = "parents", scale: float = 0.1) -> dict[str, object]:
    return {
        "loss.form": form,
        "loss.reconstruction_weight": weight,
        "routing.softmax_over": over,
        "model.weight_scale": scale,
    }


SWEEP = [
    _arm(),
    _arm("official"),
    _arm(weight=0.01),
    _arm(scale=0.01),
    _arm(scale=1.0),
    *(_arm(over="inputs", scale=scale) for scale in (0.01, 0.1, 1.0)),
]

CAPTIONS = {
    "loss_forms": "the paper's loss, the released code's, and the paper's with its balance",
    "softmax_and_scale": "each softmax against the scale that W starts from",
}


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Draw test error of the forms of the loss, and of each softmax against the scale of W; then what is left."""
    arms = Arms(records, SWEEP)
    default = next((record for record in records if is_arm(record, SWEEP[0])), records[0])
    drawn, shown = {}, []
    forms = _like(default, records, [SOFTMAX, SCALE])
    if len({tuple(record.settings.get(path) for path in LOSS) for record in forms}) > 1:
        drawn["loss_forms"] = error_by_setting(forms, by=compared_paths(forms, LOSS), arms=arms)
        shown += forms
    scales = [record for record in _like(default, records, LOSS) if SCALE in record.settings]
    if len({record.settings[SCALE] for record in scales}) > 1:
        others = [path for path in compared_paths(scales) if path != SCALE]
        drawn["softmax_and_scale"] = error_against(scales, SCALE, by=others, arms=arms)
        shown += scales
    if rest := [record for record in records if not any(record is other for other in shown)]:
        drawn["other_arms"] = error_by_setting(rest, by=compared_paths(records), arms=arms)
    return name_missing(drawn, records, SWEEP)


def _like(default: Record, records: Sequence[Record], paths: Sequence[str]) -> list[Record]:
    """Return the records that have at the paths what the default has."""
    return [r for r in records if all(r.settings.get(path) == default.settings.get(path) for path in paths)]
