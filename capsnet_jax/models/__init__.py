"""Models, one paper a file, and the only place that knows Flax.

A model is a Flax module called as `model(images, labels, train=...)`, labels being there for decoders that mask by
class. It returns a dictionary of everything worth looking at; `lengths` or `logits` are its classes' scores. To add
one, write its file and add its line here.
"""

import inspect
from collections.abc import Callable
from functools import partial

import jax
from flax import linen as nn

from capsnet_jax import config
from capsnet_jax.models.capsnet import CapsNet
from capsnet_jax.models.sabour_cnn import SabourCNN
from capsnet_jax.models.small_cnn import SmallCNN

MODELS: dict[str, Callable[..., nn.Module]] = {
    "capsnet": CapsNet,
    "capsnet_small": partial(CapsNet, channels=32, types=4, primary_dim=16, decoder=(256, 512)),
    "sabour_cnn": SabourCNN,
    "cnn_small": SmallCNN,
    "cnn_small_strided": partial(SmallCNN, pooling=False),
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


def init(model: nn.Module, key: jax.Array, image_shape: tuple[int, ...]) -> dict:
    """Fresh parameters for images of that shape [height, width, channels].

    Raises:
        ValueError: the images are too small for the model's kernels.
    """
    return model.init(key, jax.numpy.zeros((1, *image_shape)))["params"]


def count_parameters(params: dict) -> int:
    """How many numbers a tree of parameters (or of their shapes) holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
