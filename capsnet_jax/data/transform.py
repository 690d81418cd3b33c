"""Transforms: a related dataset, made by one fixed change of every image of every split.

To add a transform, write one function uint8[n, height, width, channels] → the same, and add one line to `TRANSFORMS`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from capsnet_jax.data.arrays import DataError, Examples

TRANSFORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda images: images,
    "inverted": np.invert,  # bright for dark
    "rotated": lambda images: np.rot90(images, axes=(1, 2)),  # by 90°, counter-clockwise
}


def check_transform(name: str) -> None:
    """Check that there is a transform of this name.

    Raises:
        DataError: there is none.
    """
    if name not in TRANSFORMS:
        raise DataError(f"transform must be one of {', '.join(TRANSFORMS)}, not {name!r}")


def background(name: str) -> int:
    """Return what a transform makes of black, 0 to 255: it moves in where a transformed image is moved or turned."""
    return int(TRANSFORMS[name](np.zeros((1, 28, 28, 3), np.uint8)).flat[0])


def transform_images(examples: Examples, name: str) -> Examples:
    """Return the examples with the transform of this name done to their images.

    Raises:
        DataError: there is no such transform.
    """
    check_transform(name)
    images: Any = np.ascontiguousarray(TRANSFORMS[name](np.asarray(examples.images)))
    return Examples(images, examples.labels)
