"""What one process measures: a subject at a setting. Imports no framework, whose memory would count for a subject."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

OURS = "capsnet_jax"
# Modules by name: a process imports only its own subject.
SUBJECTS = {OURS: "capsnet_jax.bench.ours", "plain_jax": "capsnet_jax.bench.plain_jax"} | dict.fromkeys(
    ("pytorch", "pytorch_compiled", "torchvision", "torchvision_channels_last"), "capsnet_jax.bench.pytorch"
)
# The nets that torchvision has too: {name here: name there}.
NETS = {
    **{"alexnet_single": "alexnet", "vgg_a": "vgg11", "vgg_b": "vgg13", "vgg_d": "vgg16", "vgg_e": "vgg19"},
    **{"vgg_a_bn": "vgg11_bn", "vgg_b_bn": "vgg13_bn", "vgg_d_bn": "vgg16_bn", "vgg_e_bn": "vgg19_bn"},
    **{"googlenet_bn": "googlenet"} | {f"resnet{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101, 152)},
    **{f"densenet{depth}": f"densenet{depth}" for depth in (121, 169, 201)},
}


@dataclasses.dataclass(frozen=True)
class Workload:
    """One subject at one setting."""

    subject: str  # a key of SUBJECTS
    phase: str  # "training" or "inference": a process does only one, so that its peak memory is of that one
    settings: Mapping[str, Any]  # {path: value}, as a config is flattened
    classes: int = 10
    side: int = 28  # of the square images [pixels]
    channels: int = 1  # of the images
    num_images: int = 8192  # on the device
    runs: int = 1  # side by side in one program; peers have one
    parallel: str = "auto"  # how runs share a program: "map", "vmap" or "auto", what the platform does best
    devices: int = 1  # that share the runs and then their batches; peers have one

    def columns(self) -> dict[str, Any]:
        """Return what the record of a measurement says of the workload."""
        fields = ("subject", "batch", "iterations", "classes", "side", "runs", "parallel", "devices")
        setting = {"preset": self.settings["preset"], "model": self.settings["model.name"]}
        return setting | {name: getattr(self, name) for name in fields}

    @property
    def batch(self) -> int:
        """Images a step and run."""
        return self.settings["train.batch_size"]

    @property
    def iterations(self) -> int:
        """Routing iterations; 0 for a net without routing."""
        return self.settings.get("routing.iterations", 0)

    def images(self) -> tuple[Any, Any]:
        """Return noise, uint8[num_images, side, side, channels], and labels, int32[num_images]."""
        rng, shape = np.random.default_rng(0), (self.num_images, self.side, self.side, self.channels)
        return rng.integers(0, 256, shape, np.uint8), rng.integers(0, self.classes, self.num_images, np.int32)


def capsnet_loss(one_hot: Callable, net: Callable, images: Any, labels: Any, settings: Mapping[str, Any]) -> Any:
    """Return the margin loss and the weighted squared error of the reconstruction, for JAX's arrays or PyTorch's."""
    lengths, reconstruction = net(images, labels)
    target = one_hot(labels, lengths.shape[1])
    present = target * (settings["loss.m_plus"] - lengths).clip(0) ** 2
    absent = (1 - target) * (lengths - settings["loss.m_minus"]).clip(0) ** 2
    total = (present + settings["loss.down_weight"] * absent).sum(1)
    if reconstruction is not None:
        total = total + settings["loss.reconstruction_weight"] * ((reconstruction - images) ** 2).sum((1, 2, 3))
    return total.mean()
