"""Does routing pay where digits overlap?

Claim: on MultiMNIST, two digits on top of each other, three routing iterations err on 5.2 % of the images, one
iteration on 7.5 %, and a CNN of 24.6 M parameters on 8.1 % (Sabour, Frosst and Hinton 2017, section 6 and Table 1). It
is the largest effect of routing that was published. Beside it stand couplings that are the same for all images,
max-min couplings, and a CNN of the small CapsNet's size. An image counts as right if the two longest capsules are its
two digits.

    python launch.py --experiment=multi_mnist --seeds=5 --set data.train_size=20000 --set data.validation_fraction=0.05

One iteration of routing by agreement is uniform routing. Pairs are made anew in every epoch. Learning rates are those
of `routers`.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from capsnet_jax.figures.arms import compare_arms
from capsnet_jax.figures.grouping import Record
from capsnet_jax.figures.images import network_paths
from capsnet_jax.figures.labels import ITERATIONS, MODEL
from experiments.routers import CNN, routed_by

CONFIG: dict[str, object] = {
    "data.dataset": "multi_mnist",
    "train.epochs": 10,
    "train.batch_size": 32,
    "eval.couplings": True,
    "eval.test_each_epoch": True,
}

BASELINE: dict[str, object] = {"routing.name": "dynamic", ITERATIONS: 1}

SWEEP: list[dict[str, object]] = [
    *(routed_by("dynamic", iterations=r) for r in (1, 3, 5)),
    routed_by("learned"),
    routed_by("random"),
    routed_by("max_min", iterations=3),
    CNN,
]

CAPTIONS = {
    "test_error": "images whose two digits are not the two longest capsules",
    "differences": "test error less that of one iteration, which is uniform routing",
    "learning_curves": "each metric by epoch",
}


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Draw errors, their differences from one iteration, and learning curves."""
    by = network_paths(records, [MODEL, "routing.name", ITERATIONS])
    return compare_arms(records, by, declared=SWEEP, baseline=BASELINE)
