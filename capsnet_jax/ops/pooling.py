"""Pooling: the greatest or the mean of every window of an image.

Windows are read as shifted views of the whole image, k² of them for a k×k window, which every platform fuses into one
pass. Gradients are gathered by views too, where a native window reduction's would be scattered; there are none but in
reverse, any number of times.
"""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from capsnet_jax.ops.held import held


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
    moves = strides or window
    pads, _ = _layout(x, window, moves, padding, ceil)
    return _greatest(_padded(x, pads, -jnp.inf), window, moves)


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
    total = _sum(_padded(x, pads, 0.0), window, moves)
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _sum(padded: Array, window: int, strides: int) -> Array:
    return functools.reduce(operator.add, _views(padded, window, strides))


_sum.defvjp(
    lambda padded, window, strides: (_sum(padded, window, strides), None),
    lambda window, strides, _, gradient: (_gathered(gradient, window, strides),),
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _greatest(padded: Array, window: int, strides: int) -> Array:
    return _greatest_and_place(padded, window, strides)[0]


def _greatest_and_place(padded: Array, window: int, strides: int) -> tuple[Array, Array]:
    """The greatest value of every window, NaN where one is, and its place there; of equals the first.

    The gradient goes by the place, a byte for each window. Comparing values with the result again would not do: XLA
    may compute them anew, rounded otherwise, so that none is the result, and the gradient is lost.
    """
    greatest, *rest = _views(padded, window, strides)
    place = jnp.zeros(greatest.shape, np.min_scalar_type(window**2))
    for index, view in enumerate(rest, 1):
        greater = (view > greatest) | (view != view)
        greatest, place = jnp.where(greater, view, greatest), jnp.where(greater, place.dtype.type(index), place)
    return greatest, place


_greatest.defvjp(
    _greatest_and_place, lambda window, strides, place, gradient: (_gathered(gradient, window, strides, place),)
)


def _gathered(gradient: Array, window: int, strides: int, place: Array | None = None) -> Array:
    """To every pixel, the gradients of all windows that it is in; with `place`, of those where it has that place.

    Pixel strides · q + phase has place phase + strides · m in window q − m. All pixels of a phase are computed alike,
    as sums of shifted views; adding up what every place of a window gives its pixels, zeros lying between these, has
    XLA compute the gradient anew for each of the places, as it would the place for each phase, were it not held.
    """
    gradient = held(gradient)
    reach = (window - 1) // strides
    around = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    gradient = jnp.pad(gradient, around)
    if place is not None:
        place = jnp.pad(held(place), around, constant_values=window**2)  # which is no place
    batch, rows, columns, channels = (n - reach * (axis in (1, 2)) for axis, n in enumerate(gradient.shape))

    def phase(row: int, column: int) -> Array:
        total = jnp.zeros((batch, rows, columns, channels), gradient.dtype)
        for i in range(row, window, strides):
            for j in range(column, window, strides):
                top, left = reach - i // strides, reach - j // strides
                seen = np.s_[:, top : top + rows, left : left + columns]
                given = gradient[seen]
                total += given if place is None else jnp.where(place[seen] == i * window + j, given, 0)
        return total

    phases = [jnp.stack([phase(row, column) for column in range(strides)], axis=3) for row in range(strides)]
    return jnp.stack(phases, axis=2).reshape(batch, rows * strides, columns * strides, channels)


def _layout(x: Array, window: int, strides: int, padding: int, ceil: bool) -> tuple[list, list[int]]:
    """What is padded before and after height and width (less than 0: cut off), and the outputs' height and width.

    Padded images are whole multiples of the strides, as many as windows reach.
    """
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
        pads.append((padding, (steps + 1 + (window - 1) // strides) * strides - size - padding))
        out.append(steps + 1)
    return pads, out


def _padded(x: Array, pads: list[tuple[int, int]], value: float) -> Array:
    return lax.pad(x, jnp.asarray(value, x.dtype), [(low, high, 0) for low, high in [(0, 0), *pads, (0, 0)]])


def _views(padded: Array, window: int, strides: int) -> list[Array]:
    """For every place in the window, what all windows have there."""
    rows, columns = (n - strides - (window - 1) // strides * strides + 1 for n in padded.shape[1:3])
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
