"""What do capsules buy against conv nets of equal parameters, and of equal computing?

Claim of the paper: 0.25 % test error on MNIST with 8.2 M parameters, where its CNN has 0.39 % with 35.4 M. Here
the small CapsNet (1.1 M with the decoder, 16 MFLOP for one image) stands beside conv nets of two kinds:

    about equal in both            cnn_small (0.9 M, 17 MFLOP), resnet8_w56 (0.9 M, 18), densenet22_k44 (0.9 M, 15)
    equal computing, few weights   resnet8 (0.08 M, 18), densenet_bc22_k7 (0.02 M, 16)

A 3×3 filter is used at every position of the image, so residual and dense nets as their papers have them for small
images take many times CapsNet's computing for its weights (resnet56: 0.9 M, 192 MFLOP), or have few weights for its
computing, as the last two. resnet8_w56 and densenet22_k44 have both by beginning as the nets for ImageNet do, with
7×7 filters and a pooling that leave 7×7 positions of the image.

    python launch.py --experiment=conv_baselines --dataset=mnist --seeds=5
    python launch.py --experiment=conv_baselines --dataset=fashion_mnist --seeds=5 \
        --set data.max_shift=1 --set train.epochs=12

All are trained alike (Adam, the preset's epochs, schedule and shifts), but for the learning rate. CapsNet's was chosen
by validation error on MNIST. The conv nets' are the best of 1e-3, 3e-3 and 1e-2 by validation error on the embedded
digits, 400 images and one seed: 4.50, 3.00, 3.50 % for cnn_small, 3.25, 3.00, 3.25 for resnet8_w56, 4.75, 4.25, 3.25
for densenet22_k44, 6.50, 3.25, 3.75 for resnet8, 18.25, 5.25, 3.00 for densenet_bc22_k7. An image is 0.25 %, so it is a
coarse choice:

    python launch.py --experiment=conv_baselines --seeds=1 --set train.epochs=3 --set train.batch_size=32 \
        --sweep train.learning_rate=0.001,0.003,0.01 --workdir=runs/rates \
        --sweep model.name=cnn_small,resnet8_w56,densenet22_k44,resnet8,densenet_bc22_k7

In the workdir of `routing_iterations` its CapsNets are found and not trained again. The paper's CNN (35.4 M, 3.9 GFLOP)
trains at 13 images/s on 2 cores, 11 hours for 10 epochs of MNIST, so it is left to who has an accelerator:

    python launch.py --experiment=conv_baselines --dataset=mnist --seeds=5 --set model.name=sabour_cnn \
        --set train.learning_rate=0.001

Its rate is untested. Parameters and FLOPs include CapsNet's decoder, which classifying would not need (0.6 M and 1
MFLOP); FLOPs are of matrix products and convolutions, routing's among them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from matplotlib.figure import Figure

from capsnet_jax import data
from capsnet_jax.config import Config, ConfigError
from capsnet_jax.figures.arms import name_missing
from capsnet_jax.figures.cost import error_by_cost
from capsnet_jax.figures.curves import learning_curves
from capsnet_jax.figures.grouping import Arms, Record, compared_paths
from capsnet_jax.figures.labels import ITERATIONS, MODEL
from capsnet_jax.models.summary import work
from capsnet_jax.overrides import build

CONFIG: dict[str, object] = {}

BASELINE: dict[str, object] = {"model.name": "capsnet_small", "routing.iterations": 3}

SWEEP: list[dict[str, object]] = [
    {"model.name": "capsnet_small", "routing.iterations": 3, "train.learning_rate": 3e-3},
    {"model.name": "capsnet_small", "routing.iterations": 1, "train.learning_rate": 3e-3},
    {"model.name": "cnn_small", "train.learning_rate": 3e-3},
    {"model.name": "resnet8_w56", "train.learning_rate": 3e-3},
    {"model.name": "densenet22_k44", "train.learning_rate": 1e-2},
    {"model.name": "resnet8", "train.learning_rate": 3e-3},
    {"model.name": "densenet_bc22_k7", "train.learning_rate": 1e-2},
]


def count(record: Record) -> dict[str, float]:
    """Count the FLOPs of a run's network for one image.

    There are none where its data set does not say how large images are, or this version cannot build its network.
    """
    try:
        config = build(record.settings)
        settings = config.data
        size = settings.image_size
        shape, classes = data.dimensions(settings.dataset, label_key=settings.label or None, image_size=size)
    except (data.DataError, ConfigError):
        return {}
    # Runs of the same network share a count.
    network = {name: getattr(config, name) for name in ("model", "routing", "reconstruction")}
    return {"flops": _work(Config(**network), shape, classes)}


_work = functools.cache(work)

CAPTIONS = {
    "error_against_cost": "test error against parameters, and against computing",
    "learning_curves": "each metric by epoch, a line for each net",
}


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Draw test error against parameters and FLOPs, and learning curves."""
    by, arms = _paths(records), Arms(records, SWEEP)
    drawn = {
        "error_against_cost": error_by_cost(records, by, arms=arms),
        "learning_curves": learning_curves(records, by, arms=arms),
    }
    return name_missing(drawn, records, SWEEP)


def _paths(records: Sequence[Record]) -> list[str]:
    """Return the model, and whatever was varied with one model. That each has its own learning rate says nothing."""
    models: dict[str, list[Record]] = {}
    for record in records:
        models.setdefault(record.settings[MODEL], []).append(record)
    varied = [path for members in models.values() for path in compared_paths(members)]
    return list(dict.fromkeys([MODEL, ITERATIONS, *varied]))
