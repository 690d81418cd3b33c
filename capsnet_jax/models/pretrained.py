"""Weights from elsewhere: torchvision's state dictionaries as our parameters."""

import itertools
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from capsnet_jax import models
from capsnet_jax.models.convnets.densenet import DenseNet
from capsnet_jax.models.convnets.resnet import ResNet
from capsnet_jax.models.convnets.vgg import VGG

Rules = list[tuple[str, str | Callable[[re.Match], str]]]

IMAGENET_SHAPE = (224, 224, 3)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue, as torchvision has them
# Channels of the activations that a layer flattens, which are ordered otherwise there.
FLATTENED = {"classifier.1.weight": 256, "classifier.0.weight": 512, "aux1.fc1.weight": 128, "aux2.fc1.weight": 128}


class TransferError(Exception):
    """A file that holds no weights for our nets; the message is one line with the mistake and the remedy."""


class Weights(NamedTuple):
    """A network's parameters from elsewhere.

    Attributes:
        model: its name in `capsnet_jax.models.MODELS`.
        classes: how many it tells apart.
        params: its parameters, for `models.apply`.
        stats: its batch norms' running statistics; {} if it has none.
    """

    model: str
    classes: int
    params: dict[str, Any]
    stats: dict[str, Any]


def load_torchvision(path: str | Path) -> Weights:
    """Read a state dictionary of torchvision's AlexNet, VGG, GoogLeNet, ResNet or DenseNet.

    Which of them it is, and of how many classes, is told by its names and shapes. Images of 224×224 pixels in [0, 1]
    have to go through `imagenet_normalized` before these weights see them. A GoogLeNet saved without its auxiliary
    classifiers has no parameters for ours either: it can be evaluated, and trained with `auxiliary=False`.

    Arrays of less than float32 become float32.

    Args:
        path: a `.safetensors` file, or, where PyTorch is installed, a `.pth` file, which its safe loader reads.

    Raises:
        TransferError: there is no such file, it is damaged, or it holds other arrays than such a net's.
    """
    path = Path(path)
    found = {_modern(name): leaf for name, leaf in _read(path).items() if not name.endswith("num_batches_tracked")}
    name = _recognize(found)
    if name is None:
        raise TransferError(f"{path} is of no net known here; load_torchvision reads {', '.join(_families())}")
    classes = len(found[_output(found)])
    model = models.MODELS[name](classes=classes)
    params, stats = jax.eval_shape(lambda: models.init(model, jax.random.key(0), IMAGENET_SHAPE))
    if "aux1.fc2.weight" not in found:
        params, stats = ({k: v for k, v in tree.items() if not k.startswith("aux")} for tree in (params, stats))
    rules = _rules(name, found)
    used: set[str] = set()

    def take(leaf: tuple[str, ...], like: jax.ShapeDtypeStruct) -> Array:
        key = _torch_name(leaf, rules)
        used.add(key)
        if key not in found:
            raise TransferError(
                f"{path} looks like torchvision's {name}, but has no {key}; save the whole state_dict()"
            )
        array = _convert(found[key], FLATTENED.get(key))
        if array.shape != like.shape:
            raise TransferError(
                f"{path} looks like torchvision's {name}, but its {key} is {list(found[key].shape)}, which does not"
                f" make our {list(like.shape)}; only torchvision's own widths are known"
            )
        wide = jnp.promote_types(like.dtype, array.dtype)
        return jnp.asarray(array, jax.dtypes.canonicalize_dtype(wide))

    trees = [
        unflatten_dict({leaf: take(leaf, like) for leaf, like in flatten_dict(tree).items()})
        for tree in (params, stats)
    ]
    if left := sorted(set(found) - used):
        raise TransferError(f"{path} looks like torchvision's {name}, but also has {left[0]}; only its own are known")
    return Weights(name, classes, *trees)


def imagenet_normalized(images: Float[Array, "*batch height width 3"]) -> Float[Array, "*batch height width 3"]:
    """Pixels in [0, 1] as torchvision's weights want them: each colour less its mean, over its standard deviation."""
    mean, std = (jnp.array(values, images.dtype).reshape((1,) * (images.ndim - 1) + (3,)) for values in (MEAN, STD))
    return (images - mean) / std


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise TransferError(f"there is no file {path}; name a state dictionary, as .safetensors or .pth")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(path)
        except (SafetensorError, KeyError) as error:
            raise TransferError(f"{path} is no whole safetensors file ({error}); download or save it again") from error
    try:
        import torch
    except ImportError as error:
        raise TransferError(
            f"{path} can be read where PyTorch is installed; install it, or save the weights as .safetensors"
        ) from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {name: leaf.numpy() for name, leaf in state.items()}
    except Exception as error:  # whatever unpickling something else may raise
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise TransferError(f"{path} is no state dictionary ({reason}); save a module's state_dict()") from error


def _modern(name: str) -> str:
    """DenseNet's names as they are now: torchvision's first weights have `norm.1` for `norm1`."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", name)


def _output(found: Mapping[str, np.ndarray]) -> str:
    """The weight of the layer that tells the classes."""
    return next(key for key in ("fc.weight", "classifier.6.weight", "classifier.weight") if key in found)


def _recognize(found: Mapping[str, np.ndarray]) -> str | None:
    """Our name of the net that has such names and shapes."""
    try:
        _output(found)
    except StopIteration:
        return None
    if "inception3a.branch1.conv.weight" in found:
        return "googlenet_bn"
    if "layer1.0.conv1.weight" in found:
        depths = _depths(found, r"layer(\d+)\.(\d+)\.conv1")
        return _named(ResNet, {"depths": depths} | ({} if "layer1.0.conv3.weight" in found else {"bottleneck": False}))
    if "features.denseblock1.denselayer1.conv1.weight" in found:
        return _named(DenseNet, {"depths": _depths(found, r"features\.denseblock(\d+)\.denselayer(\d+)\.conv1")})
    if "features.0.weight" in found and found["features.0.weight"].ndim == 4:
        if found["features.0.weight"].shape[-1] == 11:
            return "alexnet_single"
        depths = tuple(map(len, _vgg_stages(found)))
        return _named(VGG, {"depths": depths} | ({"norm": True} if "features.1.running_mean" in found else {}))
    return None


def _depths(found: Mapping[str, np.ndarray], pattern: str) -> tuple[int, ...]:
    """How many blocks each stage has, by the names of their first convolutions."""
    stages = [match[1] for key in found if (match := re.fullmatch(pattern + r"\.weight", key))]
    return tuple(stages.count(stage) for stage in sorted(set(stages)))


def _named(module: type, sizes: dict[str, Any]) -> str | None:
    """Return the name of the net of such a module with such sizes."""
    known = {name: entry.module for name, entry in models.MODELS.items() if entry.image_shape == IMAGENET_SHAPE}
    parts = ((name, part) for name, part in known.items() if isinstance(part, partial) and part.func is module)
    return next((name for name, part in parts if part.keywords == sizes), None)


def _families() -> list[str]:
    """Return the nets that are recognised."""
    known = ("alexnet_single", "googlenet_bn", "vgg_a", "vgg_b", "vgg_d", "vgg_e", "resnet", "densenet")
    nets = [name for name, entry in models.MODELS.items() if entry.image_shape == IMAGENET_SHAPE]
    return [name for name in nets if name.startswith(known) and "lrn" not in name and name != "densenet264"]


def _vgg_stages(found: Mapping[str, np.ndarray]) -> list[list[int]]:
    """Places of VGG's convolutions among its features; between two stages there is a pooling more."""
    places = sorted(int(k.split(".")[1]) for k, v in found.items() if k.startswith("features.") and v.ndim == 4)
    step = 3 if "features.1.running_mean" in found else 2
    stages = [[places[0]]]
    for before, place in itertools.pairwise(places):
        if place - before > step:
            stages.append([])
        stages[-1].append(place)
    return stages


def _rules(name: str, found: Mapping[str, np.ndarray]) -> Rules:
    """What to replace in a layer's path here, joined by dots, to have its name there."""
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
    if name == "alexnet_single":
        layers: Rules = [(rf"^conv{n}", f"features.{place}") for n, place in enumerate((0, 3, 6, 8, 10), 1)]
        return [*layers, (r"fc1", "classifier.1"), (r"fc2", "classifier.4"), (r"classes", "classifier.6")]
    layers = []
    for stage, places in enumerate(_vgg_stages(found), 1):
        for number, place in enumerate(places, 1):
            layers += [(rf"^stage{stage}\.conv{number}$", f"features.{place}")]
            layers += [(rf"^stage{stage}\.norm{number}$", f"features.{place + 1}")]
    return [*layers, (r"fc1", "classifier.0"), (r"fc2", "classifier.3"), (r"classes", "classifier.6")]


def _torch_name(leaf: tuple[str, ...], rules: Rules) -> str:
    """The name there of one of our arrays, given by its path."""
    *layer, kind = leaf
    name = ".".join(layer)
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    kinds = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    return f"{name}.{kinds[kind]}"


def _convert(array: np.ndarray, channels: int | None) -> np.ndarray:
    """An array from there in our layout: pixels, then channels, then filters or units.

    Args:
        array: as it is there.
        channels: how many are flattened together with their pixels, if it is a layer that flattens.
    """
    if channels and array.ndim == 2 and array.shape[1] % channels == 0:
        pixels_last = array.reshape(len(array), channels, -1)
        return pixels_last.transpose(2, 1, 0).reshape(-1, len(array))
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
