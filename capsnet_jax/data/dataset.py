"""What the data room hands out: batches of examples, datasets of three splits, and one error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # jax takes half a second to import, which `launch.py --list` does not have
    from jax import Array
    from jaxtyping import Int32, UInt8


class DataError(Exception):
    """A dataset that cannot be had as asked. The message is one line: the mistake and its remedy."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


class Examples(NamedTuple):
    """Images and their labels, batched along the first axis; a pytree.

    Attributes:
        images: uint8 in [0, 255]; a grey image has one channel.
        labels: class numbers from 0.
    """

    images: UInt8[Array, "n height width channels"]
    labels: Int32[Array, " n"]


class Source(NamedTuple):
    """A dataset as its source splits it, before validation is carved from train.

    Attributes:
        label_names: name of each class, by class number.
        train: the source's whole training split.
        test: the source's test split.
    """

    label_names: tuple[str, ...]
    train: Examples
    test: Examples


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three disjoint splits of labelled images of one size, as NumPy arrays.

    Attributes:
        name: as it was asked for.
        label_names: name of each class, by class number.
        train: what to learn from.
        validation: held out of the source's train split; empty if none was asked for.
        test: the source's test split, whole.
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
