"""Forms of the same convolution: the platform's own, its own with gradients that a CPU is fast at, and im2col.

All take images NHWC and kernels HWIO, `strides` (vertical, horizontal) and `pads` ((top, bottom), (left, right)).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from capsnet_jax.ops.held import held
from capsnet_jax.ops.product import product

Pads = tuple[tuple[int, int], tuple[int, int]]
Strides = tuple[int, int]

CACHED = 2**22  # bytes of windows or tiles copied out at a time; half or twice as many are slower on 32 MB of cache
LOTS = 4  # of these in one turn of a loop: XLA does what is small on one core, but several such things at once
BLOCKS = 8  # into which a convolution falls, so that few cores wait for the last one


def native_conv(
    x: Array, kernel: Array, *, strides: Strides, pads: Pads, groups: int = 1
) -> Float[Array, "batch out_height out_width filters"]:
    """The platform's own convolution."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=strides,
        padding=pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def im2col_conv(
    x: Array, kernel: Array, *, strides: Strides, pads: Pads
) -> Float[Array, "batch out_height out_width filters"]:
    """A matrix product of all windows [images·positions, window] with all filters [window, filters]."""
    height, width, _, filters = kernel.shape
    patches = _windows(padded(x, pads), (height, width), strides)
    return product(patches.reshape(-1, patches.shape[-1]), kernel.reshape(-1, filters)).reshape(
        *patches.shape[:3], filters
    )


def abreast_conv(
    x: Array, kernel: Array, *, strides: Strides, pads: Pads
) -> Float[Array, "batch out_height out_width filters"]:
    """The platform's own convolution, of images that stand side by side with zeros between them.

    On a CPU XLA shares a convolution among cores in blocks of 64 filters and of 64 to 1024 columns, the more the less
    each number is a sum of, but never by images or rows: 64 filters of 7×7×3 on images of 224×224 keep one core busy,
    192 of 5×5×64 on 27×27 one and a half. So images stand side by side until there are `BLOCKS` of columns, but where
    filters are blocks enough, or copying takes longer than it saves. And without any padding XLA takes 1.8 times as
    long: then one column more than is asked for is computed.
    """
    (height, width), (window, horizontal), (left, right) = x.shape[1:3], (kernel.shape[1], strides[1]), pads[1]
    columns = (width + left + right - window) // horizontal + 1
    channels, filters = kernel.shape[2:]
    terms = kernel.size // filters
    copied = channels * math.prod(strides) + filters  # numbers, for every `kernel.size` products
    apart = (filters % 128 == 0 and terms >= 1024) or kernel.size < 90 * copied or window == 1 or left < 0
    block = min(max(64, 2**16 // terms), 1024)
    many = 1 if apart else divisor(len(x), -(-BLOCKS * block // columns))
    if many == 1:
        some = pads if any(map(any, pads)) else (pads[0], (0, horizontal))
        return native_conv(x, kernel, strides=strides, pads=some)[:, :, :columns]
    # Each image begins a whole number of steps behind the one before it; the next one's zeros are also its own.
    steps = -(-max(width + left, (columns - 1) * horizontal + window - left) // horizontal)
    spaced = padded(x, [(0, 0), (0, steps * horizontal - width)])
    rows = spaced.reshape(-1, many, *spaced.shape[1:]).swapaxes(1, 2)
    rows = rows.reshape(-1, height, many * spaced.shape[2], channels)
    out = native_conv(rows, kernel, strides=strides, pads=(pads[0], (left, window - horizontal - left)))
    out = out.reshape(len(rows), -1, many, steps, filters)[:, :, :, :columns]
    return out.swapaxes(1, 2).reshape(len(x), -1, columns, filters)


def direct_conv(
    x: Array, kernel: Array, *, strides: Strides, pads: Pads
) -> Float[Array, "batch out_height out_width filters"]:
    """The platform's own convolution, with gradients that use it only as it is used forward.

    On CPU XLA's convolution is as fast as a matrix product in this one form, NHWC by HWIO. The gradients that JAX
    derives from it are other forms, for which XLA takes 27 times (images) and 270 times (kernel) as long inside of a
    loop, where training steps are (5×5, 256 channels, 28×28 images). It is differentiated in reverse only.
    """
    return _direct(x, kernel, strides, pads)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _direct(x: Array, kernel: Array, strides: Strides, pads: Pads) -> Array:
    return abreast_conv(x, kernel, strides=strides, pads=pads)


def _direct_forward(x: Array, kernel: Array, strides: Strides, pads: Pads) -> tuple[Array, tuple[Array, Array]]:
    return _direct(x, kernel, strides, pads), (x, kernel)


def _direct_backward(strides: Strides, pads: Pads, held: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = held
    if strides == (1, 1):
        to_x = _flipped_conv(gradient, kernel, pads)
    else:
        to_x = _windows_put_back(gradient, kernel, x.shape, strides, pads)
    return to_x, _windows_times(gradient, padded(x, pads), kernel.shape, strides)


_direct.defvjp(_direct_forward, _direct_backward)


def _flipped_conv(gradient: Array, kernel: Array, pads: Pads) -> Array:
    """The images' gradient without strides: a convolution with the kernel turned around, filters for channels."""
    vertical, horizontal = ((k - 1 - low, k - 1 - high) for k, (low, high) in zip(kernel.shape, pads, strict=False))
    return _direct(gradient, kernel[::-1, ::-1].swapaxes(2, 3), (1, 1), (vertical, horizontal))


def _windows_put_back(gradient: Array, kernel: Array, shape: tuple[int, ...], strides: Strides, pads: Pads) -> Array:
    """The images' gradient with strides: each window's, added where the window was."""
    height, width, _, filters = kernel.shape
    images = images_at_a_time(len(gradient), gradient.shape[1:3], kernel.shape)

    def copied(x: Array) -> Array:
        return _windows(padded(x, pads), (height, width), strides)

    put_back = jax.linear_transpose(copied, jax.ShapeDtypeStruct((images, *shape[1:]), gradient.dtype))

    def some(gradient: Array) -> Array:
        return put_back(gradient @ kernel.reshape(-1, filters).T)[0]

    return mapped(some, gradient.reshape(-1, images, *gradient.shape[1:])).reshape(shape)


def _windows_times(gradient: Array, padded: Array, shape: tuple[int, ...], strides: Strides) -> Array:
    """The kernel's gradient: windows, copied out of a few images at a time, times what filters are to gain there."""
    height, width, _, filters = shape
    images = images_at_a_time(len(gradient), gradient.shape[1:3], shape)

    def some(padded: Array, gradient: Array) -> Array:
        patches = _windows(padded, (height, width), strides)
        return gradient.reshape(-1, filters).T @ patches.reshape(-1, patches.shape[-1])

    parts = [whole.reshape(-1, images, *whole.shape[1:]) for whole in (padded, gradient)]
    return held(summed(some, *parts).T).reshape(shape)


def images_at_a_time(batch: int, positions: tuple[int, ...], kernel_shape: tuple[int, ...]) -> int:
    """Of how many images windows are copied out together: a divisor of the batch.

    As many as stay in the cache, but no fewer bytes of them than twice the filters', which every product reads.
    """
    height, width, channels, filters = kernel_shape
    window = 4 * height * width * channels
    return divisor(batch, max(CACHED, 2 * window * filters) // (positions[0] * positions[1] * window))


def mapped(some: Callable[[Array], Array], lots: Float[Array, "lots ..."]) -> Float[Array, "lots ..."]:
    """What comes of every lot, some lots together."""
    together = divisor(len(lots), LOTS)
    turns = lax.map(lambda lots: jnp.stack([some(lot) for lot in lots]), lots.reshape(-1, together, *lots.shape[1:]))
    return turns.reshape(-1, *turns.shape[2:])


def summed(some: Callable[..., Array], *parts: Float[Array, "lots ..."]) -> Array:
    """The sum of what comes of every lot, some lots together."""
    together = divisor(len(parts[0]), LOTS)
    one = jax.eval_shape(some, *(jax.ShapeDtypeStruct(part.shape[1:], part.dtype) for part in parts))
    start = jnp.zeros(one.shape, one.dtype)

    def turn(total: Array, lots: Sequence[Array]) -> tuple[Array, None]:
        return sum((some(*lot) for lot in zip(*lots, strict=True)), start=total), None

    return lax.scan(turn, start, [part.reshape(-1, together, *part.shape[1:]) for part in parts])[0]


def divisor(whole: int, most: int) -> int:
    """The greatest divisor that is at most so great; at least 1."""
    return max(n for n in range(1, max(1, min(whole, most)) + 1) if whole % n == 0)


def padded(x: Float[Array, "batch height width channels"], pads: Sequence[tuple[int, int]]) -> Array:
    """Zeros around images; less than none cuts off."""
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)])


def along_first(matrix: np.ndarray, x: Float[Array, "a ..."]) -> Float[Array, "b ..."]:
    """A constant matrix times the first axis."""
    return (jnp.asarray(matrix, x.dtype) @ x.reshape(len(x), -1)).reshape(-1, *x.shape[1:])


def _windows(padded: Array, window: tuple[int, int], strides: Strides) -> Array:
    """Copies of all windows [batch, out_height, out_width, window·channels]."""
    if padded.shape[3] <= 4 and min(window) > 1:  # rows of windows first, for copying so few values takes twice as long
        rows = _windows(padded, (1, window[1]), (1, strides[1]))
        return _windows(rows, (window[0], 1), (strides[0], 1))
    last = [(size - k) // s * s + 1 for size, k, s in zip(padded.shape[1:3], window, strides, strict=True)]
    views = [
        padded[:, i : i + last[0] : strides[0], j : j + last[1] : strides[1]]
        for i in range(window[0])
        for j in range(window[1])
    ]
    return jnp.concatenate(views, axis=-1)
