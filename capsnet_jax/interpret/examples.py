"""Which images are observed, and pixels as bytes."""

import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from capsnet_jax.config import ConfigError
from capsnet_jax.data import Dataset


def of_each_class(
    data: Dataset, count: int, *, classes: int | None = None
) -> tuple[UInt8[np.ndarray, "images height width channels"], Int[np.ndarray, "images"]]:
    """Return the first `count` validation images of every class, and the class that each was chosen for.

    The first image of every class comes first, then the second of every class.

    Args:
        data: the data set.
        count: of each class.
        classes: only so many, the first ones; None: all.

    Raises:
        ConfigError: a class has fewer.
    """
    labels = np.asarray(data.validation.labels)
    names = data.label_names[:classes]
    positions = []
    for k, name in enumerate(names):
        [members] = np.nonzero(labels == k if labels.ndim == 1 else labels[:, k])
        if len(members) < count:
            raise ConfigError(
                f"the validation split of {data.name} has {len(members)} images of {name}, and {count} are needed;"
                " raise data.validation_fraction"
            )
        positions.append(members[:count])
    order = np.stack(positions, axis=1).ravel()
    return np.asarray(data.validation.images)[order], np.tile(np.arange(len(names)), count)


def to_bytes(pixels: Float[Array | np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Round pixels in [0, 1] to bytes."""
    return np.round(255 * np.asarray(pixels)).astype(np.uint8)
