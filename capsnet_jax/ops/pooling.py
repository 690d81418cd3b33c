"""Pooling: the maximum or the mean of every window of an image.

A k×k window is read as k² shifted views of the whole image, which every platform fuses into one pass. Gradients are
gathered by views too, where a native window reduction would scatter. All are differentiated in reverse only, any
number of times. Each names itself and its sizes in the program, as `max_pool_3_2_1`: window, strides, padding. Profiles
show these names, and `models.summary` reads them.
"""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from capsnet_jax.ops.materialize import materialize


def max_pool(
    x: Float[Array, "batch height width channels"],
    window: int,
    *,
    strides: int | None = None,
    padding: int = 0,
    ceil: bool = False,
) -> Float[Array, "batch out_height out_width channels"]:
    """Return the maximum of every window, channel by channel.

    Args:
        x: images, NHWC.
        window: side of the square window, pixels.
        strides: pixels that the window moves; None: its side, so that windows do not overlap.
        padding: pixels of −∞ around the image.
        ceil: keep a last window that is only partly in the image, if it begins inside.

    Returns:
        NHWC. Of equal values, the first in row order gets the gradient, as in PyTorch.

    Raises:
        ValueError: the image is smaller than the window.

    A worked example, 2×2 windows with stride 2:

    >>> image = jnp.array([[1., 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]])
    >>> max_pool(image[None, :, :, None], 2)[0, :, :, 0].tolist()
    [[6.0, 8.0], [3.0, 4.0]]
    """
    strides = strides or window
    pads, _ = _layout(x, window, strides, padding, ceil)
    with jax.named_scope(f"max_pool_{window}_{strides}_{padding}"):
        return _max(_pad(x, pads, -jnp.inf), window, strides)


def average_pool(
    x: Float[Array, "batch height width channels"],
    window: int,
    *,
    strides: int | None = None,
    padding: int = 0,
    ceil: bool = False,
    count_padding: bool = True,
) -> Float[Array, "batch out_height out_width channels"]:
    """Return the mean of every window, channel by channel.

    Args:
        x: images, NHWC.
        window: side of the square window, pixels.
        strides: pixels that the window moves; None: its side.
        padding: pixels of 0 around the image.
        ceil: as in `max_pool`. Pixels of such a window beyond the padding never count.
        count_padding: whether a mean's denominator counts the padding.

    Raises:
        ValueError: the image is smaller than the window.

    >>> image = jnp.array([[1., 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]])
    >>> average_pool(image[None, :, :, None], 2)[0, :, :, 0].tolist()
    [[3.25, 5.25], [2.0, 2.0]]
    """
    strides = strides or window
    pads, out = _layout(x, window, strides, padding, ceil)
    counts = [
        _overlaps(positions, size, window, strides, padding, padding if count_padding else 0)
        for positions, size in zip(out, x.shape[1:3], strict=True)
    ]
    with jax.named_scope(f"average_pool_{window}_{strides}_{padding}"):
        total = _sum(_pad(x, pads, 0.0), window, strides)
        return total / jnp.asarray(np.outer(*counts), x.dtype)[None, :, :, None]


def adaptive_average_pool(
    x: Float[Array, "batch height width channels"], side: int
) -> Float[Array, "batch side side channels"]:
    """Return means over side×side windows that cover an image of any size.

    Window i of n spans the pixels from ⌊i·size/n⌋ to before ⌈(i+1)·size/n⌉, as in PyTorch. Windows overlap where n does
    not divide the size, and pixels repeat where the image is smaller than n.
    """
    if x.shape[1:3] == (side, side):
        return x
    rows, columns = (jnp.asarray(_shares(size, side), x.dtype) for size in x.shape[1:3])
    with jax.named_scope("adaptive_average_pool"):
        return jnp.einsum("ih,bhwc,jw->bijc", rows, x, columns, precision=lax.Precision.HIGHEST)


def global_average(x: Float[Array, "batch height width channels"]) -> Float[Array, "batch channels"]:
    """Return the mean of every channel over all positions."""
    with jax.named_scope("global_average"):
        return jnp.mean(x, axis=(1, 2))


def global_max(x: Float[Array, "batch height width channels"]) -> Float[Array, "batch channels"]:
    """Return the maximum of every channel over all positions; equal ones share its gradient."""
    with jax.named_scope("global_max"):
        return jnp.max(x, axis=(1, 2))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _sum(padded: Array, window: int, strides: int) -> Array:
    return functools.reduce(operator.add, _views(padded, window, strides))


_sum.defvjp(
    lambda padded, window, strides: (_sum(padded, window, strides), None),
    lambda window, strides, _, gradient: (_gather_gradient(gradient, window, strides),),
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _max(padded: Array, window: int, strides: int) -> Array:
    return _max_and_index(padded, window, strides)[0]


def _max_and_index(padded: Array, window: int, strides: int) -> tuple[Array, Array]:
    """Return the maximum of every window, NaN where one is, and its index there, the first of equals.

    The gradient follows the index, one byte for each window. Comparing the pixels with the maximum again would not
    work: XLA may recompute them with another rounding. Then none is equal to the maximum, and the gradient is lost.
    """
    maximum, *rest = _views(padded, window, strides)
    index = jnp.zeros(maximum.shape, np.min_scalar_type(window**2))
    for i, view in enumerate(rest, 1):
        greater = (view > maximum) | (view != view)
        maximum, index = jnp.where(greater, view, maximum), jnp.where(greater, index.dtype.type(i), index)
    return maximum, index


_max.defvjp(
    _max_and_index, lambda window, strides, index, gradient: (_gather_gradient(gradient, window, strides, index),)
)


def _gather_gradient(gradient: Array, window: int, strides: int, index: Array | None = None) -> Array:
    """Return for every pixel the sum of the gradients of its windows; with `index`, of those whose maximum it is.

    Pixel strides · q + phase has the offset phase + strides · m in window q − m. So all pixels of one phase are a sum
    of shifted views. Scattering per offset would make XLA recompute the gradient for every offset. Views of it are
    recomputed for every phase; `materialize` prevents that.
    """
    gradient = materialize(gradient)
    reach = (window - 1) // strides
    pads = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    gradient = jnp.pad(gradient, pads)
    if index is not None:
        index = jnp.pad(materialize(index), pads, constant_values=window**2)  # not an index of any pixel
    batch, rows, columns, channels = (n - reach * (axis in (1, 2)) for axis, n in enumerate(gradient.shape))

    def phase(row: int, column: int) -> Array:
        total = jnp.zeros((batch, rows, columns, channels), gradient.dtype)
        for i in range(row, window, strides):
            for j in range(column, window, strides):
                top, left = reach - i // strides, reach - j // strides
                view = np.s_[:, top : top + rows, left : left + columns]
                part = gradient[view]
                total += part if index is None else jnp.where(index[view] == i * window + j, part, 0)
        return total

    phases = [jnp.stack([phase(row, column) for column in range(strides)], axis=3) for row in range(strides)]
    return jnp.stack(phases, axis=2).reshape(batch, rows * strides, columns * strides, channels)


def _layout(x: Array, window: int, strides: int, padding: int, ceil: bool) -> tuple[list, list[int]]:
    """Return the padding before and after height and width (negative: cropped), and the outputs' height and width.

    The padded size is a multiple of the strides and reaches as far as the windows do.
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


def _pad(x: Array, pads: list[tuple[int, int]], value: float) -> Array:
    return lax.pad(x, jnp.asarray(value, x.dtype), [(low, high, 0) for low, high in [(0, 0), *pads, (0, 0)]])


def _views(padded: Array, window: int, strides: int) -> list[Array]:
    """Return, for every offset in the window, the pixels that all windows have there."""
    rows, columns = (n - strides - (window - 1) // strides * strides + 1 for n in padded.shape[1:3])
    return [padded[:, i : i + rows : strides, j : j + columns : strides] for i in range(window) for j in range(window)]


def _overlaps(positions: int, size: int, window: int, strides: int, padding: int, counted: int) -> np.ndarray:
    """Return how many pixels of the image and of `counted` pixels around it each window covers along one axis."""
    first = np.arange(positions) * strides - padding
    return np.minimum(first + window, size + counted) - np.maximum(first, -counted)


def _shares(size: int, side: int) -> np.ndarray:
    """Return the weight [side, size] of every pixel in every adaptive window along one axis."""
    index, pixel = np.arange(side)[:, None], np.arange(size)
    inside = (pixel >= index * size // side) & (pixel < -(-(index + 1) * size // side))
    return inside / inside.sum(axis=1, keepdims=True)
