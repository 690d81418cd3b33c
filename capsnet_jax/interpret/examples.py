"""Which images are looked at, and how pixels are stored."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num, UInt8

from capsnet_jax.config import ConfigError
from capsnet_jax.data import Dataset
from capsnet_jax.data.augment import to_float


class Shown(NamedTuple):
    """Images that were chosen for a class each.

    Attributes:
        images: bytes.
        labels: the class that each was chosen for.
        present: for each image, 1 for every class that it shows, else 0.
        split: "validation", or "training" where no image is held out.
    """

    images: UInt8[np.ndarray, "images height width channels"]
    labels: Int[np.ndarray, "images"]
    present: UInt8[np.ndarray, "images classes"]
    split: str


def of_each_class(data: Dataset, count: int, *, classes: int | None = None) -> Shown:
    """Choose the first `count` validation images of every class; training images where none are held out.

    The first image of every class comes first, then the second of every class. A class with fewer images has those
    that there are, and one without any is left out.

    Args:
        data: the data set.
        count: of each class.
        classes: only so many, the first ones that have an image; None: all.
    """
    split, examples = ("validation", data.validation) if len(data.validation.labels) else ("training", data.train)
    labels = np.asarray(examples.labels)
    present = labels if labels.ndim == 2 else (labels[:, None] == np.arange(data.classes)).astype(np.uint8)
    members = {k: np.flatnonzero(present[:, k])[:count] for k in range(data.classes) if present[:, k].any()}
    chosen = list(members.items())[:classes]
    pairs = [(k, positions[i]) for i in range(count) for k, positions in chosen if i < len(positions)]
    order = np.array([position for _, position in pairs], int)
    return Shown(np.asarray(examples.images)[order], np.array([k for k, _ in pairs]), present[order], split)


def to_pixels(images: Num[Array | np.ndarray, "*shape"]) -> Float[Array, "*shape"]:
    """Return pixels in [0, 1] of bytes; floats are pixels already.

    Raises:
        ConfigError: they are neither.
    """
    if images.dtype != np.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
        raise ConfigError(f"images are {images.dtype}; give bytes, uint8, or floats in [0, 1]")
    return to_float(jnp.asarray(images)) if images.dtype == np.uint8 else jnp.asarray(images)


def check_images(images: Num[Array | np.ndarray, "..."]) -> None:
    """Raise a ConfigError unless these are one image or more, with a batch axis."""
    if images.ndim != 4 or not len(images):
        shape = list(images.shape)
        raise ConfigError(f"images are {shape}; give at least one, as [batch, height, width, channels]: one is x[None]")


def like_pixels(value: Any, pixels: Float[Array, "*shape"]) -> Float[Array, "..."]:
    """Return a number or an image, which may be bytes, as what stands beside pixels."""
    value = value if isinstance(value, int | float) else to_pixels(jnp.asarray(value))
    return jnp.asarray(value, pixels.dtype)


def to_bytes(pixels: Float[Array | np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Round pixels in [0, 1] to bytes."""
    return np.round(255 * np.asarray(pixels)).astype(np.uint8)
