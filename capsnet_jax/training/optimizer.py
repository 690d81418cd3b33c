"""From gradients to directions; a step goes along them by the learning rate (see `schedule`)."""

import math
from typing import Any

import jax
import optax
from jaxtyping import PyTree
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from capsnet_jax.config import Train
from capsnet_jax.training.finetune import OUTPUT

MUON_RMS = 0.2  # of a direction's elements: about Adam's, so that one learning rate serves both
IMAGE_CHANNELS = 3  # at most so many channels are an image's


def directions(settings: Train) -> optax.GradientTransformation:
    """Adam (Kingma and Ba 2015), or Muon for the kernels between layers and Adam for all else."""
    if settings.optimizer == "adam":
        return optax.scale_by_adam()
    return optax.partition({"muon": _muon(), "adam": optax.scale_by_adam()}, _parts)


def decayed(directions: PyTree, params: PyTree, decay: Any) -> PyTree:
    """Directions with decoupled weight decay (Loshchilov and Hutter 2019): of all but biases and other vectors."""
    return jax.tree.map(lambda d, p: d + decay * p if p.ndim > 1 else d, directions, params)


def _muon() -> optax.GradientTransformation:
    """The momentum of a kernel as the nearest matrix with equal singular values (Jordan et al. 2024).

    Its rows are all that one output sums over; scaled to `MUON_RMS` (Liu et al. 2025, arXiv:2502.16982, section 2.2).
    """

    def rows_and_columns(kernels: PyTree) -> PyTree:
        return jax.tree.map(lambda k: MuonDimensionNumbers(tuple(range(k.ndim - 1)), k.ndim - 1), kernels)

    def scaled(kernels: PyTree, _: PyTree = None) -> PyTree:
        return jax.tree.map(lambda k: MUON_RMS * math.sqrt(max(math.prod(k.shape[:-1]), k.shape[-1])) * k, kernels)

    return optax.chain(scale_by_muon(weight_dimension_numbers=rows_and_columns), optax.stateless(scaled))


def _parts(params: PyTree) -> PyTree:
    """Which of the two moves a parameter: kernels go by Muon, but for those that see the image or tell the classes."""

    def part(path: tuple[Any, ...], leaf: Any) -> str:
        between = path[-1].key == "kernel" and path[0].key not in OUTPUT and leaf.shape[-2] > IMAGE_CHANNELS
        return "muon" if between else "adam"

    return jax.tree_util.tree_map_with_path(part, params)
