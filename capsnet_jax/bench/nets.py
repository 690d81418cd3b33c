"""What is measured of a network that torchvision has too: a training step and inference, at ImageNet's sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from capsnet_jax import config
from capsnet_jax.bench.plan import Effort, Group
from capsnet_jax.bench.workload import NETS, Workload
from capsnet_jax.config import Config, ConfigError
from capsnet_jax.overrides import spell

EXPERIMENT = "throughput_nets"
PEERS = ("torchvision", "torchvision_channels_last")
PACKAGES = {"torch": "pytorch", "torchvision": "torchvision"}  # that peers need, and what the environment calls them
LIBRARY = "torchvision"
EFFORT = Effort(rounds=4, seconds=2.0)
STARTS = 3
LONGER = 5  # that much a block of training takes: several steps of the slowest nets, as `train.fit` goes
SIDE, CLASSES = 224, 1000
IMAGES = 256  # 32 steps, so that an epoch's end, which ends a call too, seldom falls into a block

_SIZES = [path for path, field in config.paths().items() if path.startswith("model.") and field.default is None]
_ALIKE: dict[str, object] = dict.fromkeys(_SIZES) | {"train.frozen": "none", "transfer.source": "none"}


def groups(setting: Config, peers: Sequence[str], effort: Effort) -> list[Group]:
    """The two comparisons of one setting.

    Inference comes first: it is compiled in less memory, and a training for which there is too little ends the setting.
    """
    settings = config.flatten(setting)
    ours = Workload("capsnet_jax", "training", settings, classes=CLASSES, side=SIDE, channels=3, count=IMAGES)
    training = tuple(dataclasses.replace(ours, subject=subject) for subject in ("capsnet_jax", *peers))
    inference = tuple(dataclasses.replace(workload, phase="inference") for workload in training)
    return [
        Group("inference", "blocks", inference, effort.rounds, effort.seconds, STARTS),
        Group("training", "blocks", training, effort.rounds, LONGER * effort.seconds, STARTS),
    ]


def check(setting: Config) -> None:
    """Raise a ConfigError for a setting that torchvision's networks do not share."""
    if setting.model.name.startswith("capsnet"):
        raise ConfigError(f"{EXPERIMENT} is measured with networks that torchvision has; CapsNet has throughput")
    config.check_word(f"{EXPERIMENT}: model.name", setting.model.name, NETS)
    flat = config.flatten(setting)
    if flat["data.dataset"] != "mnist_5k":
        raise ConfigError(f"{EXPERIMENT} is measured with data.dataset=mnist_5k; images are synthetic")
    for path, value in _ALIKE.items():
        if flat[path] != value:
            raise ConfigError(
                f"{EXPERIMENT} is measured with {path}={spell(value)}; torchvision's networks know no other"
            )
    if setting.train.batch_size > IMAGES:
        raise ConfigError(f"{EXPERIMENT} is measured on {IMAGES} images; lower train.batch_size")
