"""When is it better to start from a network that has learned something else, and how much of it should stay?

Claim of the slides: size of the data and likeness to the source decide. Much data and alike: fine-tune everything at a
low rate. Little and alike: keep the features, train the output layer alone. Little and unlike: freeze the first layers,
which know basic patterns, and train the rest. Much and unlike: train from scratch. Here networks that learned MNIST
(all of it, by the preset's recipe) move to its digits turned by 90°, to its digits inverted, and to Fashion-MNIST, each
with 100, 1,000 and 10,000 images, in each of the four ways.

    python launch.py --experiment=transfer_cases --seeds=5

Epochs are chosen so that steps suffice where images are few (200, 400 and 1,000 steps). There is no augmentation: what
moves in at the border would be dark, which inverted images are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from capsnet_jax.sweeps.records import Record

CONFIG: dict[str, object] = {
    "model.name": "cnn_small",
    "data.shift": 0,
    "data.validation_fraction": 0.02,  # 1,200 images: after each of many short epochs they are all looked at
    "train.batch_size": 50,
}

STRATEGIES: dict[str, dict[str, object]] = {
    "from scratch": {"transfer.source": "none", "transfer.rate": 1.0, "train.frozen": "none"},
    "fine-tune all": {"transfer.source": "mnist", "transfer.rate": 0.1, "train.frozen": "none"},
    "freeze the first two": {"transfer.source": "mnist", "transfer.rate": 1.0, "train.frozen": "conv1+conv2"},
    "output layer alone": {
        "transfer.source": "mnist",
        "transfer.rate": 1.0,
        "train.frozen": "conv1+conv2+conv3+hidden",
    },
}
TARGETS = [("mnist", "rotated"), ("mnist", "inverted"), ("fashion_mnist", "none")]
EPOCHS = {100: 100, 1000: 20, 10000: 5}  # by the number of training images

SWEEP: list[dict[str, object]] = [
    {"data.dataset": dataset, "data.variant": variant, "data.train_size": size, "train.epochs": epochs} | strategy
    for dataset, variant in TARGETS
    for size, epochs in EPOCHS.items()
    for strategy in STRATEGIES.values()
]

# (alike, much) → what the slides advise
ADVICE = {
    (True, True): "fine-tune all",
    (True, False): "output layer alone",
    (False, False): "freeze the first two",
    (False, True): "from scratch",
}


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Every way of moving for each target and size, the slides' advice marked at the least and the greatest size."""
    from capsnet_jax import figures as draw

    sizes = {int(record.settings["data.train_size"]) for record in records}
    advice = {
        (dataset, variant, size): ADVICE[dataset == "mnist", size == max(sizes)]
        for dataset, variant in TARGETS
        for size in (min(sizes), max(sizes))
    }
    return {"quadrants": draw.transfer_quadrants(records, STRATEGIES, advice)}
