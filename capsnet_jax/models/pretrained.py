"""Weights from elsewhere: torchvision's state dictionaries as our parameters."""

import argparse
import itertools
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from capsnet_jax import models
from capsnet_jax.config import ConfigError
from capsnet_jax.models.convnets.densenet import DenseNet
from capsnet_jax.models.convnets.resnet import ResNet
from capsnet_jax.models.convnets.vgg import VGG

Rules = list[tuple[str, str | Callable[[re.Match], str]]]  # (pattern in our name, what stands for it there)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue, as torchvision has them
# Channels of the activations that a layer flattens, which are ordered otherwise there.
FLATTENED = {"classifier.1.weight": 256, "classifier.0.weight": 512, "aux1.fc1.weight": 128, "aux2.fc1.weight": 128}

CHECKPOINT_NAMES = ("model", "state_dict", "model_state_dict")  # where the checkpoint of a training has its net
COUNTERS = ("num_batches_tracked", "n_averaged")  # whole numbers of batch norms and of averaged models, of no use here
SAFETENSORS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}  # name of a type there, and here; others are no weights


class PretrainedError(ConfigError):
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

    Its names and shapes say which of them it is, and of how many classes. Images of 224×224 pixels in [0, 1]
    have to go through `imagenet_normalized` before these weights see them. A GoogLeNet saved without its auxiliary
    classifiers has no parameters for ours either: it can be evaluated, and trained with `auxiliary=False`.

    Arrays of less than float32 become float32. Of a training's checkpoint the model is read, not its running mean
    (`model_ema`). Prefixes of what wraps a net, as `module.`, make no difference.

    Args:
        path: a `.safetensors` file, or, where PyTorch is installed, a `.pth` file, which its safe loader reads.

    Raises:
        PretrainedError: there is no such file, it is damaged, or it holds other arrays than such a net's, or numbers
            that are not finite.
    """
    path = Path(path)
    state = {_modern(name): leaf for name, leaf in _read(path).items()}
    name = _recognize(state)
    if name is None:
        raise PretrainedError(f"{path} is of no net known here; load_torchvision reads {', '.join(_families())}")
    output = _output_layer(state)
    if not (state[output].ndim == 2 and state[output].size):
        raise PretrainedError(f"{path}: its {output} is {list(state[output].shape)}, not [classes, features]")
    classes = len(state[output])
    entry = models.MODELS[name]
    model = entry(classes=classes)
    params, stats = jax.eval_shape(lambda: models.init(model, jax.random.key(0), entry.image_shape))
    if "aux1.fc2.weight" not in state:
        params, stats = ({k: v for k, v in tree.items() if not k.startswith("aux")} for tree in (params, stats))
    rules = _rules(name, state)
    used: set[str] = set()

    def convert(leaf: tuple[str, ...], like: jax.ShapeDtypeStruct) -> Array:
        key = _torch_name(leaf, rules)
        used.add(key)
        if key not in state:
            raise PretrainedError(
                f"{path} looks like torchvision's {name}, but has no {key}; save the whole state_dict()"
            )
        array = _transpose(state[key], FLATTENED.get(key))
        if array.shape != like.shape:
            raise PretrainedError(
                f"{path} looks like torchvision's {name}, but its {key} is {list(state[key].shape)}, which does not"
                f" make our {list(like.shape)}; only torchvision's own widths are known"
            )
        wide = jnp.promote_types(like.dtype, array.dtype)
        return jnp.asarray(array, jax.dtypes.canonicalize_dtype(wide))

    trees = [
        unflatten_dict({leaf: convert(leaf, like) for leaf, like in flatten_dict(tree).items()})
        for tree in (params, stats)
    ]
    if unused := sorted(set(state) - used):
        raise PretrainedError(
            f"{path} looks like torchvision's {name}, but also has {unused[0]}; only its own are known"
        )
    return Weights(name, classes, *trees)


def imagenet_normalized(images: Float[Array, "*batch height width 3"]) -> Float[Array, "*batch height width 3"]:
    """Normalize pixels in [0, 1] for torchvision's weights: each colour less its mean, over its standard deviation."""
    mean, std = (jnp.array(values, images.dtype).reshape((1,) * (images.ndim - 1) + (3,)) for values in (MEAN, STD))
    return (images - mean) / std


def _read(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a state dictionary by their names in the net, without the prefix of what wraps it."""
    if not path.is_file():
        raise PretrainedError(f"there is no file {path}; name a state dictionary, as .safetensors or .pth")
    read = _read_safetensors if path.suffix.lower() == ".safetensors" else _read_pickled
    state = {name: leaf for name, leaf in read(path).items() if name.rpartition(".")[2] not in COUNTERS}
    # As `module.` of DataParallel and `_orig_mod.` of torch.compile. Nets here have several layers.
    while len(first := {name.partition(".")[0] for name in state}) == 1 and all("." in name for name in state):
        state = {name.removeprefix(f"{next(iter(first))}."): leaf for name, leaf in state.items()}
    return {name: _as_floats(path, name, leaf) for name, leaf in state.items()}


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        views = safetensors.deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise PretrainedError(f"{path} is no whole safetensors file ({error}); download or save it again") from error
    state: dict[str, Any] = {}
    for name, view in views:
        dtype = SAFETENSORS.get(view["dtype"])
        state[name] = np.frombuffer(view["data"], dtype).reshape(view["shape"]) if dtype else view["dtype"]
    return state


def _read_pickled(path: Path) -> dict[str, Any]:
    """Return what a file of PyTorch's holds, read by its safe loader, which runs no code that a file brings."""
    try:
        import torch
    except ImportError as error:
        raise PretrainedError(
            f"{path} can be read where PyTorch is installed; install it, or save the weights as .safetensors"
        ) from error
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # the arguments in torchvision's checkpoints
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever unpickling something else may raise
        reason = (str(error).strip() or repr(error)).splitlines()[0].split(". ")[0]
        if "weights_only" in str(error):  # then the rest is PyTorch's advice to switch its safe loader off
            other = re.search(r"GLOBAL (\S+)", str(error))
            reason = f"it holds a {other[1]}" if other else "it is damaged, or holds other things than tensors"
        raise PretrainedError(f"{path} is no state dictionary ({reason}); save a module's state_dict()") from error
    return {name: _to_numpy(leaf) for name, leaf in _state_of(path, loaded).items()}


def _state_of(path: Path, loaded: Any) -> Mapping[str, Any]:
    """Return the state dictionary that was loaded, or the one of the model in a checkpoint of a training."""

    def is_state(value: Any) -> bool:
        named = isinstance(value, Mapping) and all(isinstance(name, str) for name in value)
        return named and any(hasattr(leaf, "detach") for leaf in value.values())

    found = {name: value for name, value in loaded.items() if is_state(value)} if isinstance(loaded, Mapping) else {}
    if not found and is_state(loaded):
        return loaded
    for name in (*CHECKPOINT_NAMES, *(found if len(found) == 1 else ())):
        if name in found:
            return found[name]
    several = f"there are {', '.join(map(str, found))}" if found else f"it is a {type(loaded).__name__}"
    raise PretrainedError(f"{path} is no state dictionary ({several}); save a module's state_dict()")


def _to_numpy(leaf: Any) -> Any:
    """Return a tensor as an array, or what it is, in a word, if it cannot be one."""
    import torch

    if not isinstance(leaf, torch.Tensor):
        return type(leaf).__name__
    try:
        small = leaf.is_floating_point() and leaf.dtype.itemsize < 4  # NumPy does not know all of these types
        return (leaf.to(torch.float32) if small else leaf).numpy(force=True)
    except (TypeError, RuntimeError):  # sparse, quantized, packed or without data
        return f"{leaf.layout} of {leaf.dtype} on {leaf.device}"


def _as_floats(path: Path, name: str, leaf: Any) -> np.ndarray:
    """Return an array of finite float32 or float64."""
    if not (isinstance(leaf, np.ndarray) and jnp.issubdtype(leaf.dtype, jnp.floating)):
        kind = f"array of {leaf.dtype}" if isinstance(leaf, np.ndarray) else leaf
        raise PretrainedError(
            f"{path}: its {name} is no array of floating-point numbers ({kind}); save a float32 module's state_dict()"
        )
    wide = leaf if leaf.dtype.itemsize >= 4 else leaf.astype(np.float32)
    if bad := int(np.count_nonzero(~np.isfinite(wide))):
        raise PretrainedError(
            f"{path}: its {name} has {bad} of {wide.size} numbers that are NaN or infinite; take an earlier checkpoint"
        )
    return wide


def _modern(name: str) -> str:
    """Return DenseNet's names as they are now: torchvision's first weights have `norm.1` for `norm1`."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", name)


def _output_layer(state: Mapping[str, np.ndarray]) -> str:
    """Return the name of the weight of the layer that tells the classes."""
    return next(key for key in ("fc.weight", "classifier.6.weight", "classifier.weight") if key in state)


def _recognize(state: Mapping[str, np.ndarray]) -> str | None:
    """Return our name of the net that has such names and shapes; None: it is no net known here."""
    try:
        _output_layer(state)
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


def _families() -> list[str]:
    """Return the names of the nets that are recognised."""
    known = ("alexnet_single", "googlenet_bn", "vgg_a", "vgg_b", "vgg_d", "vgg_e", "resnet", "densenet")
    imagenet = [name for name, entry in models.MODELS.items() if entry.image_shape == (224, 224, 3)]
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


def _rules(name: str, state: Mapping[str, np.ndarray]) -> Rules:
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
    if name == "alexnet_single":
        layers: Rules = [(rf"^conv{n}", f"features.{i}") for n, i in enumerate((0, 3, 6, 8, 10), 1)]
        return [*layers, (r"fc1", "classifier.1"), (r"fc2", "classifier.4"), (r"classes", "classifier.6")]
    layers = []
    for stage, positions in enumerate(_vgg_stages(state), 1):
        for index, position in enumerate(positions, 1):
            layers += [(rf"^stage{stage}\.conv{index}$", f"features.{position}")]
            layers += [(rf"^stage{stage}\.norm{index}$", f"features.{position + 1}")]
    return [*layers, (r"fc1", "classifier.0"), (r"fc2", "classifier.3"), (r"classes", "classifier.6")]


def _torch_name(leaf: tuple[str, ...], rules: Rules) -> str:
    """Return the name there of one of our arrays, given by its path."""
    *layer, kind = leaf
    name = ".".join(layer)
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    kinds = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    return f"{name}.{kinds[kind]}"


def _transpose(array: np.ndarray, channels: int | None) -> np.ndarray:
    """Return an array from there in our layout: pixels, then channels, then filters or units.

    Args:
        array: as it is there.
        channels: how many are flattened together with their pixels, if it is a layer that flattens.
    """
    if channels and array.ndim == 2 and array.shape[1] % channels == 0:
        pixels_last = array.reshape(len(array), channels, -1)
        return pixels_last.transpose(2, 1, 0).reshape(-1, len(array))
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
