"""Models, one paper a file, and the only place that knows Flax.

A model is a Flax module called as `model(images)`. If its signature names them it also gets `train`, `targets` if it
decodes, and `progress`, how far training is. It returns a dictionary of everything worth looking at; `lengths` or
`logits` are its classes' scores. To add one, write its file and add its line to MODELS; README.md beside this file
shows both.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from capsnet_jax.config import Config, ConfigError, NoSettings
from capsnet_jax.data import shows_pairs
from capsnet_jax.models.capsnet import CapsNet, CapsNetSettings
from capsnet_jax.models.convnets.alexnet import AlexNet
from capsnet_jax.models.convnets.densenet import DenseNet
from capsnet_jax.models.convnets.googlenet import GoogLeNet
from capsnet_jax.models.convnets.resnet import ResNet
from capsnet_jax.models.convnets.squeezenet import SqueezeNet
from capsnet_jax.models.convnets.vgg import VGG
from capsnet_jax.models.efficient_capsnet import EfficientCapsNet, EfficientCapsNetSettings
from capsnet_jax.models.heads import HEAD_LAYERS, HeadSettings
from capsnet_jax.models.layers import CNNSettings, ConvNetSettings
from capsnet_jax.models.matrix_capsnet import MatrixCapsNet, MatrixCapsNetSettings
from capsnet_jax.models.memory_network import MemoryNetwork, MemoryNetworkSettings
from capsnet_jax.models.sabour_cnn import SabourCNN
from capsnet_jax.models.small_cnn import SmallCNN
from capsnet_jax.signatures import asked_for, takes


@dataclasses.dataclass(frozen=True)
class Model:
    """An entry of MODELS.

    Attributes:
        module: the Flax module's class, or a partial of it with the sizes that make this entry. It takes `classes`, its
          own settings by name, `routing` if it routes, `reconstruction` if it decodes, and then `shown` if it can
          decode several classes of an image, each alone.
        settings: an instance of its own settings dataclass, with this entry's defaults.
        head_layers: layers that tell the classes; they start anew in fine-tuning.
        image_shape: [height, width, channels] of the images that its paper is about.
        classes: how many its paper tells apart.
        loss: a key of LOSSES, by which it is trained if nothing else is asked for.
        router: a key of ROUTERS, by which it routes, where it does, if nothing else is asked for.
    """

    module: Callable[..., nn.Module]
    settings: Any = dataclasses.field(default_factory=NoSettings)
    head_layers: tuple[str, ...] = ("classes",)
    image_shape: tuple[int, int, int] = (28, 28, 1)
    classes: int = 10
    loss: str = "cross_entropy"
    router: str = "dynamic"

    def __call__(self, *, classes: int | None = None, **sizes: Any) -> nn.Module:
        """Make the module, with `sizes` in place of its own settings."""
        return self.module(classes=classes or self.classes, **(vars(self.settings) | sizes))

    @property
    def routes(self) -> bool:
        """Whether it has capsules to route."""
        return takes(self.module, "routing")

    @property
    def decodes(self) -> bool:
        """Whether it can reconstruct its input."""
        return takes(self.module, "reconstruction")


_capsnet = partial(Model, CapsNet, head_layers=("class_capsules",), loss="margin")
_matrix_capsnet = partial(Model, MatrixCapsNet, image_shape=(32, 32, 2), classes=5, loss="spread", router="em")


def _imagenet(
    module: Callable[..., nn.Module],
    heads: tuple[str, ...] = ("classes",),
    settings: type[ConvNetSettings] = ConvNetSettings,
    **sizes: Any,
) -> Model:
    """Make the entry of a net of the ImageNet challenge; images under 64 pixels get its small form."""
    return Model(partial(module, **sizes), settings(), heads, (224, 224, 3), 1000)


def _cifar(
    module: Callable[..., nn.Module],
    heads: tuple[str, ...] = ("classes",),
    settings: type[ConvNetSettings] = ConvNetSettings,
    stem: str = "small",
    **sizes: Any,
) -> Model:
    """Make the entry of a net for small images."""
    return Model(partial(module, **sizes), settings(stem=stem), heads, (32, 32, 3))


_resnet = partial(_imagenet, ResNet, HEAD_LAYERS, HeadSettings)
_cifar_resnet = partial(_cifar, ResNet, HEAD_LAYERS, HeadSettings, bottleneck=False)
_small_resnet = partial(_cifar_resnet, widths=(16, 32, 64), projections=False)
_small_densenet = partial(_cifar, DenseNet, first_norm=False)
_GOOGLENET_HEADS = ("classes", "aux1", "aux2")

MODELS: dict[str, Model] = {
    "capsnet": _capsnet(CapsNetSettings()),
    "capsnet_small": _capsnet(CapsNetSettings(channels=32, capsule_types=4, primary_dim=16, decoder=(256, 512))),
    "efficient_capsnet": Model(
        EfficientCapsNet,
        EfficientCapsNetSettings(),
        head_layers=("class_capsules",),
        loss="margin",
        router="self_attention",
    ),
    "matrix_capsnet": _matrix_capsnet(MatrixCapsNetSettings()),
    "matrix_capsnet_full": _matrix_capsnet(MatrixCapsNetSettings(channels=32, capsule_types=(32, 32, 32))),
    "memory_network": Model(MemoryNetwork, MemoryNetworkSettings(), ("words",), (51, 7, 1), 6),
    # What CapsNet is compared with, and the nets of ResNet's and DenseNet's papers for CIFAR.
    "sabour_cnn": Model(SabourCNN, CNNSettings()),
    "cnn_small": Model(SmallCNN, CNNSettings()),
    "cnn_small_strided": Model(partial(SmallCNN, pooling=False), CNNSettings()),
    "resnet8": _small_resnet(depths=(1, 1, 1)),
    "resnet8_w56": _cifar_resnet(stem="imagenet", depths=(1, 1, 1), widths=(56, 112, 224)),
    "resnet20": _small_resnet(depths=(3, 3, 3)),
    "resnet32": _small_resnet(depths=(5, 5, 5)),
    "resnet44": _small_resnet(depths=(7, 7, 7)),
    "resnet56": _small_resnet(depths=(9, 9, 9)),
    "resnet110": _small_resnet(depths=(18, 18, 18)),
    "densenet_bc22_k7": _small_densenet(depths=(3, 3, 3), growth=7),
    "densenet22_k44": _cifar(DenseNet, stem="imagenet", depths=(1, 2, 6), growth=44),
    "densenet_bc40": _small_densenet(depths=(6, 6, 6), growth=12),
    "densenet_bc100": _small_densenet(depths=(16, 16, 16), growth=12),
    # The nets of the ImageNet challenge.
    "alexnet": _imagenet(AlexNet),
    "alexnet_single": _imagenet(AlexNet, channels=(64, 192, 384, 256, 256), split=1, normalize=False, padding=2),
    "vgg_a": _imagenet(VGG, depths=(1, 1, 2, 2, 2)),
    "vgg_a_lrn": _imagenet(VGG, depths=(1, 1, 2, 2, 2), lrn=True),
    "vgg_b": _imagenet(VGG, depths=(2, 2, 2, 2, 2)),
    "vgg_c": _imagenet(VGG, depths=(2, 2, 3, 3, 3), pointwise=True),
    "vgg_d": _imagenet(VGG, depths=(2, 2, 3, 3, 3)),
    "vgg_e": _imagenet(VGG, depths=(2, 2, 4, 4, 4)),
    "vgg_a_bn": _imagenet(VGG, depths=(1, 1, 2, 2, 2), norm=True),
    "vgg_a_lrn_bn": _imagenet(VGG, depths=(1, 1, 2, 2, 2), lrn=True, norm=True),
    "vgg_b_bn": _imagenet(VGG, depths=(2, 2, 2, 2, 2), norm=True),
    "vgg_c_bn": _imagenet(VGG, depths=(2, 2, 3, 3, 3), pointwise=True, norm=True),
    "vgg_d_bn": _imagenet(VGG, depths=(2, 2, 3, 3, 3), norm=True),
    "vgg_e_bn": _imagenet(VGG, depths=(2, 2, 4, 4, 4), norm=True),
    "googlenet": _imagenet(GoogLeNet, _GOOGLENET_HEADS),
    "googlenet_bn": _imagenet(GoogLeNet, _GOOGLENET_HEADS, norm=True, dropout=0.2),
    "squeezenet": Model(SqueezeNet, ConvNetSettings(), ("conv10",), (227, 227, 3), 1000),
    "resnet18": _resnet(depths=(2, 2, 2, 2), bottleneck=False),
    "resnet34": _resnet(depths=(3, 4, 6, 3), bottleneck=False),
    "resnet50": _resnet(depths=(3, 4, 6, 3)),
    "resnet101": _resnet(depths=(3, 4, 23, 3)),
    "resnet152": _resnet(depths=(3, 8, 36, 3)),
    "densenet121": _imagenet(DenseNet, depths=(6, 12, 24, 16)),
    "densenet169": _imagenet(DenseNet, depths=(6, 12, 32, 32)),
    "densenet201": _imagenet(DenseNet, depths=(6, 12, 48, 32)),
    "densenet264": _imagenet(DenseNet, depths=(6, 12, 64, 48)),
}


def build(config: Config, classes: int) -> nn.Module:
    """Make the model that a config asks for."""
    entry = MODELS[config.model.name]
    parts: dict[str, Any] = {}
    if entry.routes:
        parts["routing"] = config.routing
    if entry.decodes and config.reconstruction is not None:
        parts["reconstruction"] = config.reconstruction.reconstruction
        if shows_pairs(config.data.dataset) and takes(entry.module, "shown"):
            parts["shown"] = 2
    return entry.module(classes=classes, **vars(config.model.settings), **parts)


def check_head(name: str, layers: Collection[str]) -> None:
    """Look whether a model has the layers that it says tell the classes.

    Raises:
        ConfigError: it has none of them.
    """
    heads = MODELS[name].head_layers
    if not set(heads) & set(layers):
        raise ConfigError(
            f"{name} says that {'+'.join(heads)} tells the classes, but has no such layer;"
            f" name its head_layers in MODELS from {', '.join(layers)}"
        )


def init(model: nn.Module, key: jax.Array, image_shape: tuple[int, ...]) -> tuple[dict, dict]:
    """Draw fresh parameters for images of that shape, and batch norm's running statistics: {} in a model without.

    Raises:
        ValueError: the images are too small for the model's kernels.
    """
    variables = model.init(key, jnp.zeros((1, *image_shape)))
    return variables["params"], variables.get("batch_stats", {})


def shapes(config: Config, image_shape: tuple[int, ...], classes: int, *, data: str = "") -> tuple[dict, dict]:
    """Return the shapes of what `init` draws for the model that a config asks for.

    Args:
        config: which model.
        image_shape: [height, width, channels].
        classes: how many it tells apart.
        data: the data set's name, for the message.

    Raises:
        ConfigError: the images are too small, or model and settings do not fit each other.
    """

    def attempt(**changes: Any) -> tuple[dict, dict]:
        settings = dataclasses.replace(config.model.settings, **changes)
        changed = dataclasses.replace(config, model=dataclasses.replace(config.model, settings=settings))
        return jax.eval_shape(partial(init, build(changed, classes), jax.random.key(0), image_shape))

    try:
        return attempt()
    except (ValueError, TypeError) as error:
        router = "" if config.routing is None else f" with routing.name={config.routing.name}"
        reason = " ".join(str(error).split("\n")[0].split())
        if "too small" in reason:
            reason += f", made from {'×'.join(map(str, image_shape))}; {_remedy(config, attempt)}"
        raise ConfigError(f"{config.model.name}{router}{data and f' on {data}'}: {reason}") from error


def _remedy(config: Config, attempt: Callable[..., Any]) -> str:
    """Say which setting lets a net take images that are too small for it as it is."""
    kernels = range(getattr(config.model.settings, "kernel", 1) - 1, 0, -1)
    stems = ("small",) if hasattr(config.model.settings, "stem") else ()
    for name, value in [*(("kernel", kernel) for kernel in kernels), *(("stem", stem) for stem in stems)]:
        with contextlib.suppress(ValueError):
            attempt(**{name: value})
            return f"set model.{name}={value}"
    return "take larger images, or a net for small ones, as model.name=resnet8"


def apply(
    model: nn.Module, params: dict, stats: dict, images: jax.Array, *, progress: jax.Array | float = 1.0
) -> dict[str, Any]:
    """Return a model's outputs as in evaluation, where batch norms go by their running statistics.

    Args:
        model: the network.
        params: its parameters.
        stats: its running statistics.
        images: pixels in [0, 1].
        progress: part of all steps that are done; handed to models that change as they learn.
    """
    keywords = asked_for(type(model).__call__, {"progress": progress})
    return model.apply({"params": params, "batch_stats": stats}, images, **keywords)


def apply_in_training(
    model: nn.Module,
    params: dict,
    stats: dict,
    images: jax.Array,
    targets: jax.Array,
    *,
    dropout: jax.Array,
    progress: jax.Array | float = 1.0,
    frozen: Collection[str] = (),
) -> tuple[dict[str, Any], dict]:
    """Return a model's outputs as in training, and batch norm's running statistics after it.

    Args:
        model: the network.
        params: its parameters.
        stats: its running statistics.
        images: pixels in [0, 1].
        targets: float[batch, classes], 1 for each class that is present; handed to models that decode.
        dropout: key of what is dropped.
        progress: part of all steps that are done; handed to models that change as they learn.
        frozen: layers whose batch norms go by their running statistics, which stand still.
    """
    keywords = asked_for(type(model).__call__, {"targets": targets, "train": True, "progress": progress})
    fixed_stats = {name: leaves for name, leaves in stats.items() if name in frozen}
    moving_stats = {name: leaves for name, leaves in stats.items() if name not in frozen}
    variables = {"params": params, "batch_stats": moving_stats, "frozen_stats": fixed_stats}
    rngs = {"dropout": dropout}
    out, moved = model.apply(variables, images, rngs=rngs, mutable=["batch_stats"], **keywords)
    return out, moved.get("batch_stats", {}) | fixed_stats


def count_parameters(params: dict) -> int:
    """Count the numbers in a tree of parameters, or of their shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
