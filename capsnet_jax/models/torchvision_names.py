"""Whose net a state dictionary is, and where our arrays are in it: torchvision's names and shapes."""

import itertools
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from capsnet_jax import models
from capsnet_jax.models.convnets.densenet import DenseNet
from capsnet_jax.models.convnets.resnet import ResNet
from capsnet_jax.models.convnets.squeezenet import FIRES
from capsnet_jax.models.convnets.vgg import VGG

Rules = list[tuple[str, str | Callable[[re.Match], str]]]  # (pattern in our name, what stands for it there)

# Channels of the activations that a layer flattens, which are ordered otherwise there.
FLATTENED = {"classifier.1.weight": 256, "classifier.0.weight": 512, "aux1.fc1.weight": 128, "aux2.fc1.weight": 128}
# Weights of the layer that tells the classes; some nets have a layer in the middle with the name of another's last.
OUTPUT_LAYERS = ("fc.weight", "classifier.6.weight", "classifier.weight", "classifier.1.weight")


def modern(name: str) -> str:
    """Return DenseNet's names as they are now: torchvision's first weights have `norm.1` for `norm1`."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", name)


def output_layer(state: Mapping[str, np.ndarray]) -> str:
    """Return the name of the weight of the layer that tells the classes."""
    return next(key for key in OUTPUT_LAYERS if key in state)


def recognize(state: Mapping[str, np.ndarray]) -> str | None:
    """Return our name of the net that has such names and shapes; None: it is no net known here."""
    try:
        output_layer(state)
    except StopIteration:
        return None
    if "inception3a.branch1.conv.weight" in state:
        return "googlenet_bn"
    if "layer1.0.conv1.weight" in state:
        depths = _depths(state, r"layer(\d+)\.(\d+)\.conv1")
        return _entry_name(
            ResNet, {"depths": depths} | ({} if "layer1.0.conv3.weight" in state else {"bottleneck": False})
        )
    if "features.denseblock1.denselayer1.conv1.weight" in state:
        return _entry_name(DenseNet, {"depths": _depths(state, r"features\.denseblock(\d+)\.denselayer(\d+)\.conv1")})
    if "features.6.squeeze.weight" in state:  # a pooling in SqueezeNet 1.0
        return "squeezenet"
    if "features.0.weight" in state and state["features.0.weight"].ndim == 4:
        if state["features.0.weight"].shape[-1] == 11:
            return "alexnet_single"
        depths = tuple(map(len, _vgg_stages(state)))
        return _entry_name(VGG, {"depths": depths} | ({"norm": True} if "features.1.running_mean" in state else {}))
    return None


def _depths(state: Mapping[str, np.ndarray], pattern: str) -> tuple[int, ...]:
    """Count the blocks of each stage, by the names of their first convolutions."""
    stages = [match[1] for key in state if (match := re.fullmatch(pattern + r"\.weight", key))]
    return tuple(stages.count(stage) for stage in sorted(set(stages)))


def _entry_name(module: type, sizes: dict[str, Any]) -> str | None:
    """Return the name of the entry of MODELS that makes this module with these sizes."""
    for name, entry in models.MODELS.items():
        made_by = entry.module
        if isinstance(made_by, partial) and made_by.func is module and made_by.keywords == sizes:
            return name
    return None


def families() -> list[str]:
    """Return the names of the nets that are recognised."""
    known = ("alexnet_single", "googlenet_bn", "vgg_a", "vgg_b", "vgg_d", "vgg_e", "squeezenet", "resnet", "densenet")
    imagenet = [name for name, entry in models.MODELS.items() if entry.classes == 1000]
    return [name for name in imagenet if name.startswith(known) and "lrn" not in name and name != "densenet264"]


def _vgg_stages(state: Mapping[str, np.ndarray]) -> list[list[int]]:
    """Return positions of VGG's convolutions among its features; between two stages there is a pooling more."""
    named = {re.fullmatch(r"features\.(\d+)\.weight", key): leaf for key, leaf in state.items()}
    positions = sorted(int(match[1]) for match, leaf in named.items() if match and leaf.ndim == 4)
    step = 3 if "features.1.running_mean" in state else 2
    stages = [[positions[0]]]
    for before, position in itertools.pairwise(positions):
        if position - before > step:
            stages.append([])
        stages[-1].append(position)
    return stages


def rules(name: str, state: Mapping[str, np.ndarray]) -> Rules:
    """Return what to replace in a layer's path here, joined by dots, to have its name there."""
    if name.startswith("resnet"):
        return [
            (r"stage(\d)\.block(\d+)", lambda match: f"layer{match[1]}.{int(match[2]) - 1}"),
            (r"shortcut\.conv", "downsample.0"),
            (r"shortcut\.norm", "downsample.1"),
            (r"norm", "bn"),
            (r"classes", "fc"),
        ]
    if name.startswith("densenet"):
        return [
            (r"^conv1", "features.conv0"),
            (r"^norm1", "features.norm0"),
            (r"^norm2", "features.norm5"),
            (r"^block(\d)\.layer", r"features.denseblock\1.denselayer"),
            (r"^transition", "features.transition"),
            (r"classes", "classifier"),
        ]
    if name == "googlenet_bn":
        branches: Rules = [("conv1x1", "branch1"), ("reduce3x3", "branch2.0"), ("conv3x3", "branch2.1")]
        branches += [("reduce5x5", "branch3.0"), ("conv5x5", "branch3.1"), ("project", "branch4.1")]
        return [*branches, (r"norm", "bn"), (r"\.fc$", ".fc1"), (r"\.classes", ".fc2"), (r"^classes", "fc")]
    if name == "squeezenet":
        places = zip(FIRES, (3, 4, 6, 7, 9, 10, 11, 12), strict=True)
        fires: Rules = [(fire, f"features.{place}") for fire, place in places]
        return [(r"^conv10$", "classifier.1"), (r"^conv1$", "features.0"), *fires]
    if name == "alexnet_single":
        layers: Rules = [(rf"^conv{n}", f"features.{i}") for n, i in enumerate((0, 3, 6, 8, 10), 1)]
        return [*layers, (r"fc1", "classifier.1"), (r"fc2", "classifier.4"), (r"classes", "classifier.6")]
    layers = []
    for stage, positions in enumerate(_vgg_stages(state), 1):
        for index, position in enumerate(positions, 1):
            layers += [(rf"^stage{stage}\.conv{index}$", f"features.{position}")]
            layers += [(rf"^stage{stage}\.norm{index}$", f"features.{position + 1}")]
    return [*layers, (r"fc1", "classifier.0"), (r"fc2", "classifier.3"), (r"classes", "classifier.6")]


def torch_name(leaf: tuple[str, ...], rules: Rules) -> str:
    """Return the name there of one of our arrays, given by its path."""
    *layer, kind = leaf
    name = ".".join(layer)
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    kinds = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    return f"{name}.{kinds[kind]}"


def transpose(array: np.ndarray, channels: int | None) -> np.ndarray:
    """Return an array from there in our layout: pixels, then channels, then filters or units.

    Args:
        array: as it is there.
        channels: how many are flattened together with their pixels, if it is a layer that flattens.
    """
    if channels and array.ndim == 2 and array.shape[1] % channels == 0:
        pixels_last = array.reshape(len(array), channels, -1)
        return pixels_last.transpose(2, 1, 0).reshape(-1, len(array))
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
