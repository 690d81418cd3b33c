"""The types of the data room: examples, datasets before and after they are split; one error, and notes.

Labels are of one of two kinds, in every type and function of this room:

* one class per example: int32[n], class numbers from 0;
* several classes per example ("multi-hot"): uint8[n, classes], 1 for each class that the image shows, else 0.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # jax takes half a second to import, too long for `launch.py --list`
    from jax import Array
    from jaxtyping import Int32, UInt8


class DataError(Exception):
    """A dataset cannot be loaded as asked. The message is one line: the mistake and its remedy."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


@functools.cache
def note(message: str) -> None:
    """Print one line on what a user may not expect of a dataset; each line once."""
    print(f"note: {message}", file=sys.stderr)


class Examples(NamedTuple):
    """Images and their labels, batched along the first axis; a pytree.

    Attributes:
        images: uint8 in [0, 255]; a grey image has one channel.
        labels: class numbers from 0, or for each class whether the image shows it (multi-hot).
    """

    images: UInt8[Array, "n height width channels"]
    labels: Int32[Array, " n"] | UInt8[Array, "n classes"]


class Description(NamedTuple):
    """What is known of a dataset without its images.

    Attributes:
        image_shape: (height, width, channels) of every image.
        label_names: name of each class, by class number.
    """

    image_shape: tuple[int, int, int]
    label_names: tuple[str, ...]


class RawDataset(NamedTuple):
    """A dataset as its publisher splits it. Every loader returns this.

    Attributes:
        label_names: name of each class, by class number.
        train: the publisher's complete training split.
        test: the publisher's test split.
        validation: the publisher's validation split; None if there is none. It is then taken from train.
        notes: what a user may not expect of it, a line each; told at every load.
    """

    label_names: tuple[str, ...]
    train: Examples
    test: Examples
    validation: Examples | None = None
    notes: tuple[str, ...] = ()

    @property
    def splits(self) -> dict[str, Examples]:
        """The splits that there are, by name."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}

    def check(self, name: str) -> None:
        """Check that the arrays have the types and shapes that everything else relies on.

        Args:
            name: the dataset's, for the error.

        Raises:
            DataError: there are no names of classes, an array is empty or has another type or shape, or a label is not
                one of the classes.
        """
        names = self.label_names
        if not (isinstance(names, tuple) and names and all(isinstance(label, str) for label in names)):
            raise DataError(f"{name}: label_names are {names!r:.80}; the loader must return a tuple of a str per class")
        for split, (images, labels) in self.splits.items():
            _check_split(f"{name}'s {split} split", images, labels, classes=len(names))
            if images.shape[1:] != self.train.images.shape[1:]:
                raise DataError(
                    f"{name}'s {split} split: images are {images.shape[1:]}, but {self.train.images.shape[1:]} in train"
                )
            if labels.ndim != self.train.labels.ndim:
                raise DataError(f"{name}: labels are multi-hot in one split only")


def _check_split(where: str, images: Array, labels: Array, *, classes: int) -> None:
    """Check the arrays of one split by themselves."""
    if _kind(images) != ("uint8", 4) or 0 in images.shape[1:]:
        raise DataError(
            f"{where}: images are {_text(images)}; the loader must return uint8[n, height, width, channels]"
        )
    if len(images) == 0:
        raise DataError(f"{where} is empty")
    one_class = _kind(labels) == ("int32", 1)
    multi_hot = _kind(labels) == ("uint8", 2) and labels.shape[1:] == (classes,)
    if not (one_class or multi_hot) or len(labels) != len(images):
        raise DataError(
            f"{where}: labels are {_text(labels)}; "
            f"the loader must return int32[{len(images)}] or uint8[{len(images)}, {classes}]"
        )
    highest = classes - 1 if one_class else 1
    wrong = (labels < 0) | (labels > highest)
    if wrong.any():
        first = tuple(int(axis[0]) for axis in wrong.nonzero())
        raise DataError(
            f"{where}: {int(wrong.sum())} of its labels are not in 0…{highest}, the first is {int(labels[first])} "
            f"at image {first[0]}; leave out images without a label, and number the classes from 0"
            if one_class
            else f"{where}: {int(wrong.sum())} of its multi-hot labels are not 0 or 1, the first is "
            f"{int(labels[first])} at image {first[0]}, class {first[1]}; write 1 for each class that an image shows"
        )


def _kind(array: object) -> tuple[str, int]:
    """Return the type and the number of axes of an array, and ("", 0) of anything else."""
    return str(getattr(array, "dtype", "")), len(getattr(array, "shape", ()))


def _text(array: object) -> str:
    """Describe an array as in `uint8[4, 28, 28, 1]`."""
    dtype, shape = getattr(array, "dtype", None), getattr(array, "shape", None)
    return f"a {type(array).__name__}, no array" if dtype is None or shape is None else f"{dtype}{list(shape)}"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three disjoint splits of labelled images of one size, as NumPy arrays.

    Attributes:
        name: the name it was loaded by.
        label_names: name of each class, by class number.
        train: the examples to learn from.
        validation: the publisher's validation split, else examples taken from train; empty if none were asked for.
        test: the publisher's test split.
    """

    name: str
    label_names: tuple[str, ...]
    train: Examples
    validation: Examples
    test: Examples

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.label_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels
