"""What one worker process does, in plain words and numbers that travel as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

# Where each subject is implemented. Modules by name: a worker imports only its own, so that the memory of one
# subject does not count for another.
SUBJECTS = {
    "capsnet_jax": "capsnet_jax.bench.ours",
    "plain_jax": "capsnet_jax.bench.plain_jax",
    "pytorch": "capsnet_jax.bench.pytorch",
    "pytorch_compiled": "capsnet_jax.bench.pytorch",
    "torchvision": "capsnet_jax.bench.torchvision",
    "torchvision_channels_last": "capsnet_jax.bench.torchvision",
}
FRESH = ("capsnet_jax", "torchvision", "torchvision_channels_last")  # start from weights of their own
IMAGES = 8192  # in the synthetic training set
# The networks that torchvision has too, by their names here and there.
NETS = {
    "alexnet_single": "alexnet",
    "vgg_a": "vgg11",
    "vgg_b": "vgg13",
    "vgg_d": "vgg16",
    "vgg_e": "vgg19",
    "vgg_a_bn": "vgg11_bn",
    "vgg_b_bn": "vgg13_bn",
    "vgg_d_bn": "vgg16_bn",
    "vgg_e_bn": "vgg19_bn",
    "googlenet_bn": "googlenet",
    **{name: name for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")},
    **{name: name for name in ("densenet121", "densenet169", "densenet201")},
}


@dataclasses.dataclass(frozen=True)
class Workload:
    """One subject at one setting.

    Attributes:
        subject: a key of `SUBJECTS`.
        phase: "training" or "inference"; a process does only one, so that its peak memory is of that one.
        settings: a config as `config.flatten` gives it.
        classes: of the synthetic images.
        side: of the square images, pixels.
        channels: of the images.
        count: how many images there are.
        runs: side by side in one program; peers have 1.
        across: "map", "vmap", or "auto", what the platform does best.
        weights: the file of initial weights; peers start from it.
    """

    subject: str
    phase: str
    settings: Mapping[str, Any]
    classes: int = 10
    side: int = 28
    channels: int = 1
    count: int = IMAGES
    runs: int = 1
    across: str = "auto"
    weights: str = ""

    @property
    def preset(self) -> str:
        """The preset that the settings started from."""
        return self.settings["preset"]

    @property
    def model(self) -> str:
        """The network's name in `capsnet_jax.models.MODELS`."""
        return self.settings["model.name"]

    @property
    def batch(self) -> int:
        """Images a step and run."""
        return self.settings["train.batch_size"]

    @property
    def iterations(self) -> int:
        """Routing iterations."""
        return self.settings["routing.iterations"]

    def images(self, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Synthetic uint8[count, side, side, channels] and their labels int32[count]: noise costs what digits cost."""
        rng, count = np.random.default_rng(0), self.count if count is None else count
        images = rng.integers(0, 256, (count, self.side, self.side, self.channels), np.uint8)
        return images, rng.integers(0, self.classes, count, np.int32)


def load_weights(path: str) -> dict[str, Any]:
    """The parameter tree that `ours.save_weights` wrote, as NumPy arrays."""
    tree: dict[str, Any] = {}
    with np.load(path) as file:
        for name in file.files:
            *parents, leaf = name.split("/")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = file[name]
    return tree
