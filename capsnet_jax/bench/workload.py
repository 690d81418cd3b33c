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
}
IMAGES = 8192  # in the synthetic training set


@dataclasses.dataclass(frozen=True)
class Workload:
    """One subject at one setting.

    Attributes:
        subject: a key of `SUBJECTS`.
        phase: "training" or "inference"; a process does only one, so that its peak memory is of that one.
        settings: a config as `config.flatten` gives it.
        classes: of the synthetic images.
        side: of the square, grey images, pixels.
        runs: side by side in one program; peers have 1.
        across: "map", "vmap", or "auto", what the platform does best.
        weights: the file of initial weights; peers start from it.
    """

    subject: str
    phase: str
    settings: Mapping[str, Any]
    classes: int = 10
    side: int = 28
    runs: int = 1
    across: str = "auto"
    weights: str = ""

    @property
    def preset(self) -> str:
        """The preset that the settings started from."""
        return self.settings["preset"]

    @property
    def batch(self) -> int:
        """Images a step and run."""
        return self.settings["train.batch_size"]

    @property
    def iterations(self) -> int:
        """Routing iterations."""
        return self.settings["routing.iterations"]

    def images(self, count: int = IMAGES) -> tuple[np.ndarray, np.ndarray]:
        """Synthetic uint8[count, side, side, 1] and their labels int32[count]: noise costs what digits cost."""
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (count, self.side, self.side, 1), np.uint8)
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
