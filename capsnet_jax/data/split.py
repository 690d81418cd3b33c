"""Deterministic splits, balanced by class: test, validation, and subsets of train.

All follow from one number per example, its rank: a random position among the examples of its class. Validation
takes the lowest ranks, and a subset of train takes the next ones. A set that comes without a test split gives the
lowest ranks to test first, and what is left is ranked anew. So a smaller subset is part of every larger one,
and validation does not depend on the size of the subset.

Examples with several classes are balanced by their set of classes: all that show a 3 and a 5 form one group.
"""

import numpy as np
from jaxtyping import Int, Shaped

from capsnet_jax.data.arrays import DataError, Examples, RawDataset, note

TEST_FRACTION = 0.2  # of a set that comes without a test split, as in mnist_5k
_SEED = 20171026  # the day "Dynamic Routing Between Capsules" appeared; any fixed number would do


def class_groups(labels: Shaped[np.ndarray, "n *classes"]) -> Int[np.ndarray, " n"]:
    """Return the groups of examples that are balanced against each other.

    Args:
        labels: class numbers, or multi-hot.

    Returns:
        The group number of each example, from 0. A group is a class or, for multi-hot labels, a set of classes. Sets of
        one class come in the order of the classes, so that one-hot labels are split exactly as class numbers are.
    """
    if labels.ndim == 1:
        return labels
    # Rows are sorted in lexicographic order. Without the "1 −", the last class would come first.
    return np.unique(1 - labels, axis=0, return_inverse=True)[1].reshape(-1)


def class_ranks(groups: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Rank each example at random among those of its class or group, from 0. The same classes give the same ranks."""
    # Unlike Generator's, the stream of RandomState is frozen across NumPy versions (NEP 19).
    random = np.random.RandomState(_SEED)
    ranks = np.empty(len(groups), dtype=np.int64)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        ranks[members] = random.permutation(len(members))
    return ranks


def balanced_counts(available: Int[np.ndarray, " groups"], total: int) -> Int[np.ndarray, " groups"]:
    """Share `total` among the groups as evenly as their sizes allow.

    Args:
        available: number of examples of each group.
        total: number of examples wanted, at most the sum of `available`.

    Returns:
        Number of examples to take of each group. The counts of groups that have enough differ by at most one, and the
        lower group numbers have the one more.
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
    """Check the two numbers of a split, before anything is loaded.

    Raises:
        DataError: a number is out of its bounds.
    """
    if not 0 <= validation_fraction < 1:
        raise DataError(f"validation_fraction must be at least 0 and less than 1, not {validation_fraction}")
    if train_size < 0:
        raise DataError(f"train_size must be positive, or 0 for all of train, not {train_size}")


def train_and_test(examples: Examples, *, name: str) -> tuple[Examples, Examples]:
    """Take test from the examples of a set that has no test split: `TEST_FRACTION` of each class.

    Args:
        examples: all that there are.
        name: the dataset's, for the error.

    Returns:
        Train and test, disjoint, each in the order of `examples`. A class of one image is in train only, and of every
        other class at least one image is in each.

    Raises:
        DataError: no class has two images.
    """
    groups = class_groups(np.asarray(examples.labels))
    sizes = np.bincount(groups)
    test_sizes = np.where(sizes > 1, np.maximum(_shares(TEST_FRACTION, sizes), 1), 0)
    if not test_sizes.any():
        raise DataError(f"{name} has no test split, and no class with two images to take one from; choose another set")
    is_test = class_ranks(groups) < test_sizes[groups]
    return _select(examples, ~is_test), _select(examples, is_test)


def split_raw(
    raw: RawDataset, *, validation_fraction: float, train_size: int, name: str
) -> tuple[Examples, Examples, Examples]:
    """Return train, validation and test of a dataset, and print a note on classes that go without images.

    Args:
        raw: the dataset. Its own validation split, if it has one, is validation as it is; 0 leaves it out.
        validation_fraction: as for `train_and_validation`.
        train_size: as for `train_and_validation`.
        name: the dataset's, for errors and notes.

    Raises:
        DataError: as for `train_and_validation`.
    """
    fraction = validation_fraction if raw.validation is None else 0.0
    train, validation = train_and_validation(raw.train, validation_fraction=fraction, train_size=train_size, name=name)
    if raw.validation is not None and validation_fraction > 0:
        validation = raw.validation
    for split, examples in (("train", train), ("validation", validation), ("test", raw.test)):
        if split != "validation" or validation_fraction > 0:
            _note_missing(f"{name}: {split}", examples, raw.label_names)
    return train, validation, raw.test


def train_and_validation(
    examples: Examples, *, validation_fraction: float, train_size: int, name: str
) -> tuple[Examples, Examples]:
    """Take validation from examples, and a balanced subset of the rest for train.

    Args:
        examples: the publisher's training split.
        validation_fraction: the share of each class that goes to validation, in [0, 1).
        train_size: number of examples of the rest to use for train; 0 uses all.
        name: the dataset's, for the error.

    Returns:
        Train and validation, disjoint, each in the order of `examples`.

    Raises:
        DataError: no example of some class, or fewer than `train_size` in total, would be left for train.
    """
    groups = class_groups(np.asarray(examples.labels))
    sizes = np.bincount(groups)
    validation_sizes = _shares(validation_fraction, sizes)
    available = sizes - validation_sizes
    if np.any((available == 0) & (sizes > 0)):
        kind = "class" if np.ndim(examples.labels) == 1 else "set of classes"
        raise DataError(
            f"{name}: validation_fraction={validation_fraction} leaves a {kind} without training examples; lower it"
        )
    if train_size > available.sum():
        raise DataError(
            f"{name}: train_size={train_size} is more than the {available.sum()} training examples there are"
        )
    train_sizes = balanced_counts(available, train_size) if train_size else available
    ranks, first, count = class_ranks(groups), validation_sizes[groups], train_sizes[groups]
    return _select(examples, (ranks >= first) & (ranks < first + count)), _select(examples, ranks < first)


def _note_missing(where: str, examples: Examples, label_names: tuple[str, ...]) -> None:
    """Print a note on the classes that no image shows."""
    labels = np.asarray(examples.labels)
    counts = labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=len(label_names))
    missing = [label for label, count in zip(label_names, counts.tolist(), strict=True) if count == 0]
    if missing:
        names = f"{', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}"
        note(f"{where} has no image of {len(missing)} of {len(label_names)} classes ({names})")


def _shares(fraction: float, sizes: np.ndarray) -> np.ndarray:
    """Return a share of each size, rounded to whole examples, halves up."""
    return np.floor(fraction * sizes + 0.5).astype(np.int64)


def _select(examples: Examples, mask: np.ndarray) -> Examples:
    return Examples(examples.images[mask], examples.labels[mask])
