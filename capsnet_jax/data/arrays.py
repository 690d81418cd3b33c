"""The types of the data room: examples, datasets before and after they are split, and one error.

Labels are of one of two kinds, in every type and function of this room:

* one class per example: int32[n], class numbers from 0;
* several classes per example ("multi-hot"): uint8[n, classes], 1 for each class that the image shows, else 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # jax takes half a second to import, too long for `launch.py --list`
    from jax import Array
    from jaxtyping import Int32, UInt8


class DataError(Exception):
    """A dataset cannot be loaded as asked. The message is one line: the mistake and its remedy."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


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
    """A dataset as its publisher splits it, before validation is taken from train. Every loader returns this.

    Attributes:
        label_names: name of each class, by class number.
        train: the publisher's complete training split.
        test: the publisher's test split.
    """

    label_names: tuple[str, ...]
    train: Examples
    test: Examples

    def check(self, name: str) -> None:
        """Check that the arrays have the types and shapes that everything else relies on.

        Args:
            name: the dataset's, for the error.

        Raises:
            DataError: an array is empty or has another type or shape, or a label is not one of the classes.
        """
        classes = len(self.label_names)
        for split, (images, labels) in (("train", self.train), ("test", self.test)):
            where = f"{name}'s {split} split"
            if images.dtype != "uint8" or images.ndim != 4:
                raise DataError(
                    f"{where}: images are {images.dtype}{list(images.shape)}; "
                    "the loader must return uint8[n, height, width, channels]"
                )
            if len(images) == 0:
                raise DataError(f"{where} is empty")
            if images.shape[1:] != self.train.images.shape[1:]:
                raise DataError(f"{where}: images are {images.shape[1:]}, but {self.train.images.shape[1:]} in train")
            one_class = labels.dtype == "int32" and labels.ndim == 1
            multi_hot = labels.dtype == "uint8" and labels.shape[1:] == (classes,)
            if len(labels) != len(images) or not (one_class or multi_hot):
                raise DataError(
                    f"{where}: labels are {labels.dtype}{list(labels.shape)}; "
                    f"the loader must return int32[{len(images)}] or uint8[{len(images)}, {classes}]"
                )
            highest = classes - 1 if one_class else 1
            if labels.min() < 0 or labels.max() > highest:
                raise DataError(f"{where}: labels are from {labels.min()} to {labels.max()}, not from 0 to {highest}")
        if self.train.labels.ndim != self.test.labels.ndim:
            raise DataError(f"{name}: labels are multi-hot in one split only")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three disjoint splits of labelled images of one size, as NumPy arrays.

    Attributes:
        name: the name it was loaded by.
        label_names: name of each class, by class number.
        train: the examples to learn from.
        validation: the examples taken from the publisher's training split; empty if none were asked for.
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
