"""Models, one paper a file, and the only place that knows Flax.

A model is a Flax module called as `model(images, labels, train=...)`, labels being there for decoders that mask by
class. It returns a dictionary of everything worth looking at; `lengths` or `logits` are its classes' scores. To add
one, write its file and add its line here.
"""

import inspect
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from capsnet_jax import config
from capsnet_jax.models.capsnet import CapsNet
from capsnet_jax.models.convnets.alexnet import AlexNet
from capsnet_jax.models.convnets.densenet import DenseNet
from capsnet_jax.models.convnets.googlenet import GoogLeNet
from capsnet_jax.models.convnets.resnet import ResNet
from capsnet_jax.models.convnets.vgg import VGG
from capsnet_jax.models.layers import BatchNorm
from capsnet_jax.models.sabour_cnn import SabourCNN
from capsnet_jax.models.small_cnn import SmallCNN

# The nets of the ImageNet challenge; images under 64 pixels get their small forms.
IMAGENET: dict[str, Callable[..., nn.Module]] = {
    "alexnet": AlexNet,
    "alexnet_single": partial(AlexNet, channels=(64, 192, 384, 256, 256), split=1, normalize=False, padding=2),
    "vgg_a": partial(VGG, depths=(1, 1, 2, 2, 2)),
    "vgg_a_lrn": partial(VGG, depths=(1, 1, 2, 2, 2), lrn=True),
    "vgg_b": partial(VGG, depths=(2, 2, 2, 2, 2)),
    "vgg_c": partial(VGG, depths=(2, 2, 3, 3, 3), pointwise=True),
    "vgg_d": partial(VGG, depths=(2, 2, 3, 3, 3)),
    "vgg_e": partial(VGG, depths=(2, 2, 4, 4, 4)),
    "vgg_a_bn": partial(VGG, depths=(1, 1, 2, 2, 2), norm=True),
    "vgg_a_lrn_bn": partial(VGG, depths=(1, 1, 2, 2, 2), lrn=True, norm=True),
    "vgg_b_bn": partial(VGG, depths=(2, 2, 2, 2, 2), norm=True),
    "vgg_c_bn": partial(VGG, depths=(2, 2, 3, 3, 3), pointwise=True, norm=True),
    "vgg_d_bn": partial(VGG, depths=(2, 2, 3, 3, 3), norm=True),
    "vgg_e_bn": partial(VGG, depths=(2, 2, 4, 4, 4), norm=True),
    "googlenet": GoogLeNet,
    "googlenet_bn": partial(GoogLeNet, norm=True, dropout=0.2),
    "resnet18": partial(ResNet, depths=(2, 2, 2, 2), bottleneck=False),
    "resnet34": partial(ResNet, depths=(3, 4, 6, 3), bottleneck=False),
    "resnet50": partial(ResNet, depths=(3, 4, 6, 3)),
    "resnet101": partial(ResNet, depths=(3, 4, 23, 3)),
    "resnet152": partial(ResNet, depths=(3, 8, 36, 3)),
    "densenet121": partial(DenseNet, depths=(6, 12, 24, 16)),
    "densenet169": partial(DenseNet, depths=(6, 12, 32, 32)),
    "densenet201": partial(DenseNet, depths=(6, 12, 48, 32)),
    "densenet264": partial(DenseNet, depths=(6, 12, 64, 48)),
}

_small_resnet = partial(ResNet, widths=(16, 32, 64), projections=False, bottleneck=False, stem="small")
_small_densenet = partial(DenseNet, growth=12, first_norm=False, stem="small")

# Nets for small images: those of ResNet's and DenseNet's papers for CIFAR, and what CapsNet is compared with.
CIFAR: dict[str, Callable[..., nn.Module]] = {
    "resnet8": partial(_small_resnet, depths=(1, 1, 1)),
    "resnet8_w56": partial(ResNet, depths=(1, 1, 1), widths=(56, 112, 224), bottleneck=False, stem="imagenet"),
    "resnet20": partial(_small_resnet, depths=(3, 3, 3)),
    "resnet32": partial(_small_resnet, depths=(5, 5, 5)),
    "resnet44": partial(_small_resnet, depths=(7, 7, 7)),
    "resnet56": partial(_small_resnet, depths=(9, 9, 9)),
    "resnet110": partial(_small_resnet, depths=(18, 18, 18)),
    "densenet_bc22_k7": partial(_small_densenet, depths=(3, 3, 3), growth=7),
    "densenet22_k44": partial(DenseNet, depths=(1, 2, 6), growth=44, stem="imagenet"),
    "densenet_bc40": partial(_small_densenet, depths=(6, 6, 6)),
    "densenet_bc100": partial(_small_densenet, depths=(16, 16, 16)),
}

MODELS: dict[str, Callable[..., nn.Module]] = {
    "capsnet": CapsNet,
    "capsnet_small": partial(CapsNet, channels=32, types=4, primary_dim=16, decoder=(256, 512)),
    "sabour_cnn": SabourCNN,
    "cnn_small": SmallCNN,
    "cnn_small_strided": partial(SmallCNN, pooling=False),
    **CIFAR,
    **IMAGENET,
}


def build(settings: config.Config, classes: int) -> nn.Module:
    """The model that a config asks for.

    Raises:
        ConfigError: the model has no such size to set.
    """
    builder = MODELS[settings.model.name]
    takes = set(inspect.signature(builder).parameters)
    sizes = {n: v for n, v in vars(settings.model).items() if n not in ("name", "weight_scale") and v is not None}
    for size in sizes:
        if size not in takes:
            raise config.ConfigError(f"{settings.model.name} has no model.{size}; leave it at none")
    offered = sizes | {
        "weight_scale": settings.model.weight_scale,
        "routing": settings.routing,
        "reconstruction": settings.loss.reconstruction,
    }
    return builder(classes=classes, **{name: value for name, value in offered.items() if name in takes})


def paper_images(name: str) -> tuple[tuple[int, int, int], int]:
    """Shape [height, width, channels] and classes of the images that a model's paper is about."""
    if name in CIFAR:
        return (32, 32, 3), 10
    return ((224, 224, 3), 1000) if name in IMAGENET else ((28, 28, 1), 10)


def init(model: nn.Module, key: jax.Array, image_shape: tuple[int, ...]) -> dict:
    """Fresh parameters for images of that shape [height, width, channels].

    Raises:
        ValueError: the images are too small for the model's kernels.
    """
    return init_all(model, key, image_shape)[0]


def init_all(model: nn.Module, key: jax.Array, image_shape: tuple[int, ...]) -> tuple[dict, dict]:
    """Fresh parameters, and batch norm's running statistics, which are {} in a model without.

    Raises:
        ValueError: the images are too small for the model's kernels.
    """
    variables = model.init(key, jnp.zeros((1, *image_shape)))
    return variables["params"], variables.get("batch_stats", {})


def apply(model: nn.Module, params: dict, stats: dict, images: jax.Array) -> dict[str, Any]:
    """A model's outputs as in evaluation, batch norms going by their running statistics."""
    return model.apply({"params": params, "batch_stats": stats}, images)


def apply_in_training(
    model: nn.Module,
    params: dict,
    stats: dict,
    images: jax.Array,
    labels: jax.Array,
    *,
    dropout: jax.Array,
    frozen: Collection[str] = (),
) -> tuple[dict[str, Any], dict]:
    """A model's outputs as in training, and batch norm's running statistics after it.

    Args:
        model: the network.
        params: its parameters.
        stats: its running statistics.
        images: pixels in [0, 1].
        labels: their classes.
        dropout: key of what is dropped.
        frozen: layers whose batch norms go by their running statistics, which stand still.
    """

    def hold(call: Callable, arguments: Any, keywords: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if isinstance(module, BatchNorm) and context.method_name == "__call__" and module.path[0] in frozen:
            keywords = {**keywords, "train": False}
        return call(*arguments, **keywords)

    variables, keys = {"params": params, "batch_stats": stats}, {"dropout": dropout}
    with nn.intercept_methods(hold):
        out, moved = model.apply(variables, images, labels, train=True, rngs=keys, mutable=["batch_stats"])
    return out, moved.get("batch_stats", {})


def count_parameters(params: dict) -> int:
    """How many numbers a tree of parameters (or of their shapes) holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
