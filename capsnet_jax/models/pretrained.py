"""Weights from elsewhere: SqueezeNet's, which come with this package, torchvision's, and runs that were exported."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from capsnet_jax import models
from capsnet_jax.config import ConfigError
from capsnet_jax.models import exported
from capsnet_jax.models.state_dict import PretrainedError, read
from capsnet_jax.models.torchvision_names import (
    FLATTENED,
    families,
    modern,
    output_layer,
    recognize,
    rules,
    torch_name,
    transpose,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue, as torchvision has them

SHIPPED = Path(__file__).with_name("weights")  # its README.md says where the files are from
SQUEEZENET_SHA256 = "609b1670cd5a91e6922619c87450f1acd0dd67630b3c50ac622bc2a2a72f30bb"
SQUEEZENET_MEAN = (103.939, 116.779, 123.68)  # that its authors took off blue, green and red, 0 to 255
FILES = (".safetensors", ".pth", ".pt")


class Weights(NamedTuple):
    """A network's parameters from elsewhere.

    Attributes:
        model: its name in `capsnet_jax.models.MODELS`.
        classes: how many it tells apart.
        params: its parameters, for `models.apply`.
        stats: its batch norms' running statistics; {} if it has none.
        normalize: what pixels in [0, 1] have to go through before the network sees them; None: nothing.
        label_names: of its classes; of ImageNet's 1,000 what they show.
        about: of an exported run, what `exported.Exported` says; None of others.
    """

    model: str
    classes: int
    params: dict[str, Any]
    stats: dict[str, Any]
    normalize: Callable[[Array], Array] | None
    label_names: tuple[str, ...]
    about: Mapping[str, Any] | None = None


def load(name_or_path: str | Path) -> Weights:
    """Read the net that comes with this package, "squeezenet", a file of torchvision's, or a run that was exported.

    Raises:
        ConfigError: it is none of them.
        PretrainedError: as `load_squeezenet`, `load_torchvision` and `load_exported` say.
    """
    if str(name_or_path) == "squeezenet":
        return load_squeezenet()
    if Path(name_or_path).suffix.lower() in FILES:
        return load_torchvision(Path(name_or_path).expanduser())
    if exported.is_exported(folder := Path(name_or_path).expanduser()):
        return load_exported(folder)
    if (folder / "runs.jsonl").is_file():
        raise ConfigError(f"{name_or_path} is a workdir; name it by --workdir, or take its best run away by --export")
    raise ConfigError(
        f"there are no weights called {name_or_path}: give squeezenet, which comes with this package,"
        f" a folder that --export wrote, or a .safetensors or .pth file of torchvision's {', '.join(families())}"
    )


def load_exported(folder: Path) -> Weights:
    """Read a run that was exported: parameters and statistics as they were trained, to the bit.

    Raises:
        PretrainedError: a file is missing or damaged, or its model is not there any more.
    """
    about, params, stats = exported.read(folder)
    names, model = tuple(map(str, about["label_names"])), about["settings"].get("model.name")
    if model not in models.MODELS:
        raise PretrainedError(f"{folder} is of the model {model}, which this version of capsnet_jax does not have")
    return Weights(model, len(names), params, stats, None, names, about)


def load_squeezenet() -> Weights:
    """Read the weights of SqueezeNet 1.1 that its authors released, of ImageNet's 1,000 classes.

    They trained it on pixels of blue, green and red, 0 to 255 less a mean. Its first convolution has no padding, so
    that it can do this itself: here it takes images of red, green and blue in [0, 1], as every net does, and its
    filters are pictures. It was made for 227×227 pixels, and takes others.

    Raises:
        PretrainedError: the file is not as it was shipped.
    """
    path = SHIPPED / "squeezenet.safetensors"
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != SQUEEZENET_SHA256:
        raise PretrainedError(f"{path} is {'damaged' if data else 'missing'}; install capsnet_jax again")
    flat = {name: leaf.astype(np.float32) for name, leaf in safetensors.numpy.load(data).items()}
    kernel = flat["conv1.kernel"]
    flat["conv1.bias"] -= np.einsum("hwio,i->o", kernel, np.array(SQUEEZENET_MEAN, np.float32))
    flat["conv1.kernel"] = 255 * kernel[:, :, ::-1]
    params = unflatten_dict({name: jnp.asarray(leaf) for name, leaf in flat.items()}, sep=".")
    return Weights("squeezenet", 1000, params, {}, None, label_names(1000))


def load_torchvision(path: str | Path) -> Weights:
    """Read a state dictionary of torchvision's AlexNet, VGG, GoogLeNet, SqueezeNet 1.1, ResNet or DenseNet.

    Its names and shapes say which of them it is, and of how many classes. Images of 224×224 pixels in [0, 1]
    have to go through `imagenet_normalized` before these weights see them; for the GoogLeNet that torchvision released,
    whose `transform_input` undoes that, through `centered`. A GoogLeNet saved without its auxiliary classifiers has no
    parameters for ours either: it can be evaluated, and trained with `auxiliary=False`.

    Arrays of less than float32 become float32. Of a training's checkpoint the model is read, not its running mean
    (`model_ema`). Prefixes of what wraps a net, as `module.`, make no difference.

    Args:
        path: a `.safetensors` file, or, where PyTorch is installed, a `.pth` file, which its safe loader reads.

    Raises:
        PretrainedError: there is no such file, it is damaged, or it holds other arrays than such a net's, or numbers
            that are not finite.
    """
    path = Path(path)
    state = {modern(name): leaf for name, leaf in read(path).items()}
    name = recognize(state)
    if name is None:
        raise PretrainedError(f"{path} is of no net known here; load_torchvision reads {', '.join(families())}")
    output = output_layer(state)
    if not (state[output].ndim in (2, 4) and state[output].size):  # a convolution in SqueezeNet
        raise PretrainedError(f"{path}: its {output} is {list(state[output].shape)}, not [classes, features]")
    classes = len(state[output])
    entry = models.MODELS[name]
    model = entry(classes=classes)
    params, stats = jax.eval_shape(lambda: models.init(model, jax.random.key(0), entry.image_shape))
    if "aux1.fc2.weight" not in state:
        params, stats = ({k: v for k, v in tree.items() if not k.startswith("aux")} for tree in (params, stats))
    known = rules(name, state)
    used: set[str] = set()

    def convert(leaf: tuple[str, ...], like: jax.ShapeDtypeStruct) -> Array:
        key = torch_name(leaf, known)
        used.add(key)
        if key not in state:
            raise PretrainedError(
                f"{path} looks like torchvision's {name}, but has no {key}; save the whole state_dict()"
            )
        array = transpose(state[key], FLATTENED.get(key))
        if array.shape != like.shape:
            raise PretrainedError(
                f"{path} looks like torchvision's {name}, but its {key} is {list(state[key].shape)}, which does not"
                f" make our {list(like.shape)}; only torchvision's own widths are known"
            )
        wide = jnp.promote_types(like.dtype, array.dtype)
        return jnp.asarray(array, jax.dtypes.canonicalize_dtype(wide))

    params, stats = (
        unflatten_dict({leaf: convert(leaf, like) for leaf, like in flatten_dict(tree).items()})
        for tree in (params, stats)
    )
    if unused := sorted(set(state) - used):
        raise PretrainedError(
            f"{path} looks like torchvision's {name}, but also has {unused[0]}; only its own are known"
        )
    normalize = centered if name == "googlenet_bn" else imagenet_normalized
    return Weights(name, classes, params, stats, normalize, label_names(classes))


def imagenet_normalized(images: Float[Array, "*batch height width 3"]) -> Float[Array, "*batch height width 3"]:
    """Normalize pixels in [0, 1] for torchvision's weights: each colour less its mean, over its standard deviation."""
    mean, std = (jnp.array(values, images.dtype).reshape((1,) * (images.ndim - 1) + (3,)) for values in (MEAN, STD))
    return (images - mean) / std


def centered(images: Float[Array, "..."]) -> Float[Array, "..."]:
    """Scale pixels in [0, 1] to [−1, 1], as the GoogLeNet that torchvision released was trained on them."""
    return 2 * images - 1


def label_names(classes: int) -> tuple[str, ...]:
    """Return the names of ImageNet's classes if there are as many, 1,000; otherwise "class 0", "class 1", …."""
    if classes == 1000:
        return tuple((SHIPPED / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines())
    return tuple(f"class {index}" for index in range(classes))
