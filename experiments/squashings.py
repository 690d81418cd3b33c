"""Does it matter how capsules are squashed, and does it depend on the router?

Every squash but the last keeps a capsule's direction and says how long it becomes: Sabour's |s|² / (1 + |s|²), which is
short for short capsules; half, |s|² / (0.5 + |s|²); exponential, 1 − e^(−|s|), whose gradient does not vanish at 0
(Mazzia et al. 2021); decoupled, where a learned direction says it; and layer norm, where nothing is squashed and a
learned direction tells how present a capsule is (Tsai et al. 2020). Primary and class capsules have the same one. Each
router has the learning rate that it has in `routers`.

    python launch.py --experiment=squashings --dataset=fashion_mnist --seeds=5 --set data.train_size=5000 \
        --set data.validation_fraction=0.05
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from capsnet_jax.figures.arms import compare_arms
from capsnet_jax.figures.grouping import Record
from capsnet_jax.figures.images import network_paths
from capsnet_jax.ops.squash import SQUASHES
from experiments.routers import RATE, RATES

CONFIG: dict[str, object] = {
    "train.epochs": 6,
    "train.batch_size": 32,
    "eval.couplings": True,
    "eval.test_each_epoch": True,
}

ROUTER, PRIMARY, PARENTS = "routing.name", "model.squash", "routing.squash"
ROUTERS = ("dynamic", "uniform", "max_min", "self_attention")

BASELINE: dict[str, object] = {PRIMARY: "sabour", PARENTS: "sabour"}

SWEEP: list[dict[str, object]] = [
    {ROUTER: router, RATE: RATES[router], PRIMARY: squash, PARENTS: squash} for router in ROUTERS for squash in SQUASHES
]

CAPTIONS = {
    "test_error": "test error after the last epoch, a row for each router and squash",
    "differences": "test error less that of routing by agreement by Sabour; the table compares within a router",
    "entropy": "entropy of the couplings over its greatest value, on the test set: 1 is uniform",
    "learning_curves": "each metric by epoch",
}


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Draw each squash's error with each router, differences, the couplings' entropy, and learning curves."""
    by = network_paths(records, [ROUTER, PARENTS])
    if all(record.settings.get(PRIMARY) == record.settings.get(PARENTS) for record in records):
        by = [path for path in by if path != PRIMARY]
    return compare_arms(records, by, declared=SWEEP, baseline=BASELINE, quantities={"entropy": "test_coupling_entropy"})
