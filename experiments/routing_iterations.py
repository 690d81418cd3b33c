"""Do more routing iterations make a better CapsNet?

Claim: with reconstruction, MNIST test error falls from 0.29 ± 0.011 % with 1 iteration to 0.25 ± 0.005 % with 3
(Sabour, Frosst and Hinton 2017, Table 1); without, 0.34 ± 0.032 % and 0.35 ± 0.036 %, no difference. The logits change
less with every iteration and with training (figure A.1), and three iterations train to a lower loss than one (A.2).

    python launch.py --experiment=routing_iterations
    python launch.py --experiment=routing_iterations --dataset=mnist --seeds=5
    python launch.py --experiment=routing_iterations --dataset=mnist --seeds=5 \
        --set loss.reconstruction=false --sweep routing.iterations=1,3

Takes 5 minutes on 2 cores on the embedded digits (the first command), and about 18 minutes a seed on MNIST.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from capsnet_jax.overrides import grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from capsnet_jax.sweeps.records import Record

CONFIG: dict[str, object] = {"routing.probe": 7}

SWEEP = grid({"routing.iterations": (1, 2, 3, 5, 7)})


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Learning curves, and test error against iterations."""
    from capsnet_jax import figures as draw
    from capsnet_jax.sweeps.records import by_dataset, compared

    path = "routing.iterations"
    others = [other for other in compared(records) if other != path]
    drawn = {
        "learning_curves": draw.learning_curves(records, by=[path, *others]),
        "error_against_iterations": draw.error_against(records, path, by=others),
    }
    alike = [record for record in records if all(record.settings[p] == records[0].settings[p] for p in others)]
    one_and_three = [record for record in alike if record.settings[path] in (1, 3)]
    if len({record.settings[path] for record in one_and_three}) == 2:
        drawn["training_loss"] = draw.learning_curves(one_and_three, by=[path], metrics=("train_loss",))  # figure A.2
    for dataset, own in by_dataset(alike).items():  # figure A.1
        if any("validation_logit_change_at_2" in r.metrics and r.settings[path] > 1 for r in own):
            drawn[f"changes-{dataset.replace('/', '_')}"] = draw.changes_by_iteration(own)
    if any("test_error_at_1" in record.result for record in alike):
        drawn["train_test_grid"] = draw.train_test_grid(alike)
    return drawn
