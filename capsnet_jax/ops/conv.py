"""Two-dimensional convolution: one function for every platform.

On GPU and TPU it lowers to the native convolution. On CPU, XLA's native form loses two orders of magnitude on some
gradients (the input gradient of a strided 9×9 convolution reaches 1 % of a matrix product's rate), so there the form
is chosen by `cpu_form` from static shapes alone. All forms are linear algebra that JAX differentiates, any number of
times, and agree to float32 rounding.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from capsnet_jax.ops.fourier import fourier_conv

Pads = tuple[tuple[int, int], tuple[int, int]]

CACHED = 2**22  # bytes of windows that are copied out at a time; half or twice as many are slower on 32 MB of cache


def conv2d(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels_per_group filters"],
    *,
    strides: int | tuple[int, int] = 1,
    padding: str | int | Sequence[tuple[int, int]] = "VALID",
    groups: int = 1,
) -> Float[Array, "batch out_height out_width filters"]:
    """Slide every filter over every image (cross-correlation, as conv nets mean "convolution").

    Args:
        x: images, NHWC.
        kernel: filters, HWIO; with groups, I counts the channels of one group.
        strides: pixels that the filter moves, one number or (vertical, horizontal).
        padding: "VALID", "SAME", zeros on every side, or ((top, bottom), (left, right)).
        groups: channels and filters are split into that many independent groups.

    Returns:
        Activations, NHWC.

    Raises:
        ValueError: the image is smaller than the kernel, or the channels do not fit the groups.

    The slides' worked example (filters move one pixel, no padding):

    >>> image = jnp.array([[3., 2, 2, 5, 5, 3], [3, 1, 1, 2, 6, 2], [1, 4, 3, 3, 1, 4]])
    >>> kernel = jnp.array([[1., 0, -2], [1, 1, 0], [0, -1, 1]])
    >>> conv2d(image[None, :, :, None], kernel[:, :, None, None])[0, :, :, 0].tolist()
    [[2.0, -6.0, -7.0, 10.0]]
    """
    moves = (strides, strides) if isinstance(strides, int) else strides
    size, window = x.shape[1:3], kernel.shape[:2]
    pads = _pads(padding, size, window, moves)
    padded = tuple(n + low + high for n, (low, high) in zip(size, pads, strict=True))
    if any(n < k for n, k in zip(padded, window, strict=True)):
        raise ValueError(
            f"images of {size[0]}×{size[1]} are too small for a {window[0]}×{window[1]} kernel with padding {padding}"
        )
    if x.shape[3] != kernel.shape[2] * groups or kernel.shape[3] % groups:
        raise ValueError(
            f"{x.shape[3]} channels do not fit {groups} group(s) of {kernel.shape[2]} channels"
            f" and {kernel.shape[3]} filters"
        )
    native = partial(native_conv, strides=moves, pads=pads, groups=groups)
    form = cpu_form(padded, kernel.shape, moves, groups)
    if form is native_conv:
        return native(x, kernel)

    def on_cpu(x: Array, kernel: Array) -> Array:
        """The forms' sums need float32, which is also what a CPU is fastest at."""
        wide = jnp.promote_types(x.dtype, jnp.float32)
        x, kernel, narrow = x.astype(wide), kernel.astype(wide), x.dtype
        if groups == 1:
            return form(x, kernel, strides=moves, pads=pads).astype(narrow)
        parts = zip(jnp.split(x, groups, axis=3), jnp.split(kernel, groups, axis=3), strict=True)
        return jnp.concatenate([form(*part, strides=moves, pads=pads) for part in parts], axis=3).astype(narrow)

    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=native)


def cpu_form(
    padded: tuple[int, ...], kernel_shape: tuple[int, ...], strides: tuple[int, int], groups: int
) -> Callable[..., Array]:
    """The form of the convolution that a CPU gets, from static shapes alone.

    - more than eight groups: native (each is too small a product for the other forms to pay).
    - a stride, a window of at least 5×5 and more than one channel: Fourier, while its grid has at most 256 points.
    - else im2col. Native's gradients would be faster outside of loops; inside of one, where training steps are,
      XLA takes 27 times (input) and 270 times (kernel) as long for them (5×5, 256 channels, 28×28 images).

    Up to eight groups are each a convolution of its own.
    """
    height, width, channels, _ = kernel_shape
    outputs = [(n - k) // s + 1 for n, k, s in zip(padded, kernel_shape, strides, strict=False)]
    if groups > 8:
        return native_conv
    if max(strides) > 1 and height * width >= 25 and channels > 1:
        grid = [o + -(-k // s) - 1 for o, k, s in zip(outputs, kernel_shape, strides, strict=False)]
        if grid[0] * grid[1] <= 256:
            return fourier_conv
    return im2col_conv


def native_conv(
    x: Array, kernel: Array, *, strides: tuple[int, int], pads: Pads, groups: int = 1
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
    x: Array, kernel: Array, *, strides: tuple[int, int], pads: Pads
) -> Float[Array, "batch out_height out_width filters"]:
    """Matrix products of windows [images·positions, window] with all filters [window, filters].

    Windows overlap, so they are several times the images. Those of a few images at a time are copied out, used while
    they are in the cache, and copied again in the backward pass instead of being kept.
    """
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    images = images_at_a_time(x.shape, kernel.shape, strides)
    product = partial(_window_product, strides=strides)
    if images == len(x):
        return product(x, kernel)
    again = jax.checkpoint(product)
    out = lax.map(lambda some: again(some, kernel), x.reshape(-1, images, *x.shape[1:]))
    return out.reshape(-1, *out.shape[2:])


def images_at_a_time(shape: tuple[int, ...], kernel_shape: tuple[int, ...], strides: tuple[int, int]) -> int:
    """Of how many images windows are copied out together: a divisor of the batch.

    All of them where copying again would cost more than it saves: windows of one pixel, of less than 16 channels, or
    fewer bytes of them than twice the filters', which every product reads.
    """
    batch, rows, columns, _ = shape
    height, width, channels, filters = kernel_shape
    if height * width == 1 or channels < 16:
        return batch
    positions = ((rows - height) // strides[0] + 1) * ((columns - width) // strides[1] + 1)
    window = 4 * height * width * channels
    most = max(1, max(CACHED, 2 * window * filters) // (positions * window))
    return max(n for n in range(1, min(most, batch) + 1) if batch % n == 0)


def _window_product(x: Array, kernel: Array, *, strides: tuple[int, int]) -> Array:
    (batch, rows, columns, _), (height, width, _, filters) = x.shape, kernel.shape
    out_rows, out_columns = (rows - height) // strides[0] + 1, (columns - width) // strides[1] + 1
    windows = [
        x[
            :,
            i : i + (out_rows - 1) * strides[0] + 1 : strides[0],
            j : j + (out_columns - 1) * strides[1] + 1 : strides[1],
        ]
        for i in range(height)
        for j in range(width)
    ]
    patches = jnp.concatenate(windows, axis=-1).reshape(batch * out_rows * out_columns, -1)
    return (patches @ kernel.reshape(-1, filters)).reshape(batch, out_rows, out_columns, filters)


def _pads(padding: str | int | Sequence[tuple[int, int]], size, window, strides) -> Pads:
    if isinstance(padding, str):
        (top, bottom), (left, right) = lax.padtype_to_pads(size, window, strides, padding)
        return ((int(top), int(bottom)), (int(left), int(right)))
    if isinstance(padding, int):
        return ((padding, padding), (padding, padding))
    (top, bottom), (left, right) = padding
    return ((top, bottom), (left, right))
