"""From gradients to updates; a step goes along them by the learning rate (see `schedule`)."""

from collections.abc import Callable, Collection
from typing import Any

import jax
import optax
from jaxtyping import PyTree
from optax.contrib import MuonDimensionNumbers, muon

from capsnet_jax.config import Train

MUON_RMS = 0.2  # of an update's elements: about Adam's, so that one learning rate serves both
IMAGE_CHANNELS = 3  # at most so many channels are an image's
NOT_DECAYED = ("bias", "prior")  # a router's have a row for each parent, or for each input


def adam(head_layers: Collection[str]) -> optax.GradientTransformation:
    """Return Adam with β 0.9 and 0.999, ε 1e-8 (Kingma and Ba 2015)."""
    del head_layers
    return optax.scale_by_adam()


def sgd(head_layers: Collection[str]) -> optax.GradientTransformation:
    """Return plain gradient descent: updates are the gradient."""
    del head_layers
    return optax.identity()


def muon_between_layers(head_layers: Collection[str]) -> optax.GradientTransformation:
    """Return Muon for the kernels between layers, and Adam for all else.

    The momentum of a kernel becomes the nearest matrix with equal singular values (Jordan et al. 2024). Its rows are
    all that one output sums over; it is scaled to `MUON_RMS` (Liu et al. 2025, arXiv:2502.16982, section 2.2).
    """

    def dimension_numbers(kernels: PyTree) -> PyTree:
        return jax.tree.map(lambda k: MuonDimensionNumbers(tuple(range(k.ndim - 1)), k.ndim - 1), kernels)

    def label(path: tuple[Any, ...], leaf: Any) -> str:
        """Return Muon for a kernel, unless its layer sees the image or tells the classes."""
        between = path[-1].key == "kernel" and path[0].key not in head_layers and leaf.shape[-2] > IMAGE_CHANNELS
        return "muon" if between else "adam"

    # A learning rate of −1, since optax turns updates around and a step here goes against them.
    kernels = muon(-1.0, muon_weight_dimension_numbers=dimension_numbers, consistent_rms=MUON_RMS)
    labels = lambda params: jax.tree_util.tree_map_with_path(label, params)  # noqa: E731
    return optax.partition({"muon": kernels, "adam": optax.scale_by_adam()}, labels)


# Name → (head layers) → from gradients to updates.
OPTIMIZERS: dict[str, Callable[[Collection[str]], optax.GradientTransformation]] = {
    "adam": adam,
    "sgd": sgd,
    "muon": muon_between_layers,
}


def gradient_transform(settings: Train, head_layers: Collection[str]) -> optax.GradientTransformation:
    """Return the chosen optimizer, from gradients to updates for a learning rate of 1.

    Args:
        settings: which one.
        head_layers: layers that tell the classes.
    """
    chosen = OPTIMIZERS[settings.optimizer](head_layers)
    return optax.chain(optax.clip_by_global_norm(settings.clip), chosen) if settings.clip else chosen


def add_weight_decay(updates: PyTree, params: PyTree, decay: Any) -> PyTree:
    """Add decoupled weight decay (Loshchilov and Hutter 2019) to all but vectors, biases and priors of couplings."""

    def add(path: tuple[Any, ...], update: Any, param: Any) -> Any:
        return update if param.ndim < 2 or path[-1].key in NOT_DECAYED else update + decay * param

    return jax.tree_util.tree_map_with_path(add, updates, params)
