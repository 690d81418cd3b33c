"""Deterministic splits by class: held-out validation, balanced subsets of train; and variants of their images.

Both rest on one number an example has: its rank, a random place among the examples of its class. Validation
takes the lowest ranks, a subset of train the next ones, so that a smaller subset is part of every larger one
and validation does not depend on the subset's size.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int

from capsnet_jax.data.dataset import DataError, Examples

VARIANTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda images: images,
    "inverted": np.invert,
    "rotated": lambda images: np.rot90(images, axes=(1, 2)),
}
_SEED = 20171026  # the day "Dynamic Routing Between Capsules" appeared; any fixed number would do


def class_ranks(labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Ranks each example at random among those of its class, from 0; the same labels, the same ranks."""
    # Unlike Generator's, the stream of RandomState is frozen across NumPy versions (NEP 19).
    random = np.random.RandomState(_SEED)
    ranks = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ranks[members] = random.permutation(len(members))
    return ranks


def balanced_counts(available: Int[np.ndarray, " classes"], total: int) -> Int[np.ndarray, " classes"]:
    """Shares `total` among classes as evenly as their sizes allow.

    Args:
        available: number of examples of each class.
        total: number of examples wanted, at most the sum of `available`.

    Returns:
        Number of examples to take of each class. Classes that have enough differ by at most one, the lower
        class numbers having the one more.
    """
    counts = np.zeros_like(available)
    while (missing := total - counts.sum()) > 0:
        unfilled = np.flatnonzero(counts < available)
        share = missing // len(unfilled)
        if share == 0:
            counts[unfilled[:missing]] += 1
        else:
            counts[unfilled] = np.minimum(counts[unfilled] + share, available[unfilled])
    return counts


def check_bounds(validation_fraction: float, train_size: int) -> None:
    """Checks the two numbers of a split, before anything is loaded.

    Raises:
        DataError: a number is out of its bounds.
    """
    if not 0 <= validation_fraction < 1:
        raise DataError(f"validation_fraction must be at least 0 and less than 1, not {validation_fraction}")
    if train_size < 0:
        raise DataError(f"train_size must be positive, or 0 for all of train, not {train_size}")


def divide(examples: Examples, *, validation_fraction: float, train_size: int, name: str) -> tuple[Examples, Examples]:
    """Carves validation from examples, and takes a balanced subset of the rest.

    Args:
        examples: the source's train split.
        validation_fraction: the share of each class to hold out, in [0, 1).
        train_size: number of examples to keep of those not held out; 0 keeps all.
        name: the dataset's, for the error.

    Returns:
        Train and validation, disjoint, each in the order of `examples`.

    Raises:
        DataError: no example of some class, or fewer than `train_size` in all, would be left in train.
    """
    labels = np.asarray(examples.labels)
    sizes = np.bincount(labels)
    held_out = np.floor(validation_fraction * sizes + 0.5).astype(np.int64)
    left = sizes - held_out
    if np.any((left == 0) & (sizes > 0)):
        raise DataError(
            f"{name}: validation_fraction={validation_fraction} leaves a class without training examples; lower it"
        )
    if train_size > left.sum():
        raise DataError(f"{name}: train_size={train_size} is more than the {left.sum()} training examples there are")
    kept = balanced_counts(left, train_size) if train_size else left
    ranks, held_out, kept = class_ranks(labels), held_out[labels], kept[labels]
    return (
        _select(examples, (ranks >= held_out) & (ranks < held_out + kept)),
        _select(examples, ranks < held_out),
    )


def variant(examples: Examples, kind: str) -> Examples:
    """A related data set: its images "inverted" (bright for dark), "rotated" by 90°, or with "none" as they are.

    Raises:
        DataError: there is no such kind.
    """
    if kind not in VARIANTS:
        raise DataError(f"variant must be one of {', '.join(VARIANTS)}, not {kind!r}")
    images: Any = np.ascontiguousarray(VARIANTS[kind](np.asarray(examples.images)))
    return Examples(images, examples.labels)


def _select(examples: Examples, mask: np.ndarray) -> Examples:
    return Examples(examples.images[mask], examples.labels[mask])
