"""Pooling: the greatest or the mean of every window of an image.

Windows are read as shifted views of the whole image, k² of them for a k×k window, which every platform fuses into one
pass, and differentiates without the scatter that a native window reduction's gradient needs.
"""

import functools
import operator

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float


def max_pool(
    x: Float[Array, "batch height width channels"],
    window: int,
    *,
    strides: int | None = None,
    padding: int = 0,
    ceil: bool = False,
) -> Float[Array, "batch out_height out_width channels"]:
    """The greatest value of every window, channel by channel.

    Args:
        x: images, NHWC.
        window: side of the square window, pixels.
        strides: pixels that the window moves; None: its side, so that windows do not overlap.
        padding: pixels of −∞ around the image.
        ceil: a last window that only partly lies in the image counts too, as long as it begins inside.

    Returns:
        NHWC. Where values are equal, the first has the gradient, row by row, as in PyTorch.

    Raises:
        ValueError: the image is smaller than the window.

    A worked example, 2×2 windows with stride 2:

    >>> image = jnp.array([[1., 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]])
    >>> max_pool(image[None, :, :, None], 2)[0, :, :, 0].tolist()
    [[6.0, 8.0], [3.0, 4.0]]
    """
    pads, out = _layout(x, window, strides or window, padding, ceil)
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
    return functools.reduce(_greater, _views(padded, window, strides or window, out))


def average_pool(
    x: Float[Array, "batch height width channels"],
    window: int,
    *,
    strides: int | None = None,
    padding: int = 0,
    ceil: bool = False,
    count_padding: bool = True,
) -> Float[Array, "batch out_height out_width channels"]:
    """The mean of every window, channel by channel.

    Args:
        x: images, NHWC.
        window: side of the square window, pixels.
        strides: pixels that the window moves; None: its side.
        padding: pixels of 0 around the image.
        ceil: as in `max_pool`; what such a window has beyond the padding never counts.
        count_padding: whether the padding's pixels count in a mean's denominator.

    Raises:
        ValueError: the image is smaller than the window.

    >>> image = jnp.array([[1., 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]])
    >>> average_pool(image[None, :, :, None], 2)[0, :, :, 0].tolist()
    [[3.25, 5.25], [2.0, 2.0]]
    """
    moves = strides or window
    pads, out = _layout(x, window, moves, padding, ceil)
    total = functools.reduce(operator.add, _views(jnp.pad(x, ((0, 0), *pads, (0, 0))), window, moves, out))
    counted = [
        _overlaps(positions, size, window, moves, padding, padding if count_padding else 0)
        for positions, size in zip(out, x.shape[1:3], strict=True)
    ]
    return total / jnp.asarray(np.outer(*counted), x.dtype)[None, :, :, None]


def adaptive_average_pool(
    x: Float[Array, "batch height width channels"], side: int
) -> Float[Array, "batch side side channels"]:
    """Means over side×side windows that cover an image of any size; windows overlap where it does not divide.

    Window i of n spans the pixels from ⌊i·size/n⌋ to before ⌈(i+1)·size/n⌉, as in PyTorch, also where the image is
    smaller than n: then pixels repeat.
    """
    if x.shape[1:3] == (side, side):
        return x
    rows, columns = (jnp.asarray(_shares(size, side), x.dtype) for size in x.shape[1:3])
    return jnp.einsum("ih,bhwc,jw->bijc", rows, x, columns, precision=lax.Precision.HIGHEST)


def global_average(x: Float[Array, "batch height width channels"]) -> Float[Array, "batch channels"]:
    """The mean of every channel over all positions."""
    return jnp.mean(x, axis=(1, 2))


def _greater(a: Array, b: Array) -> Array:
    """The greater of two, NaN where one is; of equals the first.

    The gradient goes by the choice that was made. That of `jnp.maximum` compares both with the result again, and XLA
    may then compute them anew, rounded otherwise: neither is the result, and the gradient is lost.
    """
    return jnp.where((b > a) | (b != b), b, a)


def _layout(x: Array, window: int, strides: int, padding: int, ceil: bool) -> tuple[list, list[int]]:
    """What is padded before and after height and width, and the outputs' height and width."""
    pads, out = [], []
    for size in x.shape[1:3]:
        room = size + 2 * padding - window
        steps = -(-room // strides) if ceil else room // strides
        if steps * strides >= size + padding:  # the last window would begin after the image
            steps -= 1
        if steps < 0:
            raise ValueError(
                f"images of {x.shape[1]}×{x.shape[2]} are too small for a {window}×{window} pooling window"
                f" with padding {padding}"
            )
        pads.append((padding, max(padding, steps * strides + window - size - padding)))
        out.append(steps + 1)
    return pads, out


def _views(padded: Array, window: int, strides: int, out: list[int]) -> list[Array]:
    """For every place in the window, what all windows have there."""
    rows, columns = ((n - 1) * strides + 1 for n in out)
    return [padded[:, i : i + rows : strides, j : j + columns : strides] for i in range(window) for j in range(window)]


def _overlaps(positions: int, size: int, window: int, strides: int, padding: int, counted: int) -> np.ndarray:
    """How many pixels of the image, and of `counted` pixels around it, each window covers along one axis."""
    first = np.arange(positions) * strides - padding
    return np.minimum(first + window, size + counted) - np.maximum(first, -counted)


def _shares(size: int, side: int) -> np.ndarray:
    """The weight [side, size] of every pixel in every adaptive window along one axis."""
    index, pixel = np.arange(side)[:, None], np.arange(size)
    inside = (pixel >= index * size // side) & (pixel < -(-(index + 1) * size // side))
    return inside / inside.sum(axis=1, keepdims=True)
