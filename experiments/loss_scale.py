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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from capsnet_jax.sweeps.records import Record

CONFIG: dict[str, object] = {"routing.probe": 7, "routing.iterations": 3}


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


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Test error of the forms of the loss, and of each softmax against the scale of W."""
    from capsnet_jax import figures as draw
    from capsnet_jax.sweeps.records import compared

    loss, routing = ["loss.form", "loss.reconstruction_weight"], ["routing.softmax_over", "model.weight_scale"]
    usual = records[0].settings
    drawn = {}
    forms = [record for record in records if all(record.settings[path] == usual[path] for path in routing)]
    if len({tuple(record.settings[path] for path in loss) for record in forms}) > 1:
        drawn["loss_forms"] = draw.error_by_setting(forms, by=compared(forms, loss))
    scales = [record for record in records if all(record.settings[path] == usual[path] for path in loss)]
    if len({record.settings["model.weight_scale"] for record in scales}) > 1:
        others = [path for path in compared(scales) if path != "model.weight_scale"]
        drawn["softmax_and_scale"] = draw.error_against(scales, "model.weight_scale", by=others)
    return drawn
