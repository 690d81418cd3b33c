"""Zeros around images."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Pads = tuple[tuple[int, int], tuple[int, int]]  # pixels added ((top, bottom), (left, right))
Strides = tuple[int, int]  # pixels that the filter moves (vertical, horizontal)


def resolve_padding(
    padding: str | int | Sequence[tuple[int, int]], size: Sequence[int], window: Sequence[int], strides: Strides
) -> Pads:
    """Return the pixels that a setting of `conv2d` adds on each side.

    Args:
        padding: "VALID", "SAME", one number for every side, or ((top, bottom), (left, right)).
        size: height and width of the image.
        window: height and width of the kernel.
        strides: pixels that the filter moves; "SAME" depends on them.
    """
    if isinstance(padding, str):
        (top, bottom), (left, right) = lax.padtype_to_pads(size, window, strides, padding)
        return ((int(top), int(bottom)), (int(left), int(right)))
    if isinstance(padding, int):
        return ((padding, padding), (padding, padding))
    (top, bottom), (left, right) = padding
    return ((top, bottom), (left, right))


def pad_images(
    x: Float[Array, "batch height width channels"], pads: Sequence[tuple[int, int]]
) -> Float[Array, "batch padded_height padded_width channels"]:
    """Add zeros around images; a negative number of pixels crops instead."""
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)])
