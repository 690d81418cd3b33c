"""Two-dimensional convolution: one function for every platform.

On TPU it lowers to the native convolution, and on GPU but for large windows that move by more than one pixel, which go
through Fourier space. On CPU, XLA's native form loses two orders of magnitude on some gradients (the input gradient of
a strided 9×9 convolution reaches 1 % of a matrix product's rate), so there the form is chosen by `cpu_form` from static
shapes alone. All forms (see `forms`, `fourier` and `winograd`) are differentiated in reverse, any number of times, and
agree to the rounding of products: float32 on a CPU, TF32 on a GPU unless `JAX_DEFAULT_MATMUL_PRECISION=highest`.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from capsnet_jax.ops import winograd
from capsnet_jax.ops.forms import Pads, direct_conv, im2col_conv, native_conv
from capsnet_jax.ops.fourier import fourier_conv


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
    form = cpu_form((len(x), *padded), kernel.shape, moves, groups)
    if form is native_conv:
        return native(x, kernel)

    def formed(x: Array, kernel: Array) -> Array:
        """The forms' sums need float32, which is also what a CPU is fastest at."""
        wide = jnp.promote_types(x.dtype, jnp.float32)
        x, kernel, narrow = x.astype(wide), kernel.astype(wide), x.dtype
        if groups == 1:
            return form(x, kernel, strides=moves, pads=pads).astype(narrow)
        parts = zip(jnp.split(x, groups, axis=3), jnp.split(kernel, groups, axis=3), strict=True)
        return jnp.concatenate([form(*part, strides=moves, pads=pads) for part in parts], axis=3).astype(narrow)

    # On an H100, 9×9 by twos, 256 channels and filters, batch 64, with both gradients: native 1.86 ms, Fourier 0.73.
    on_gpu = formed if form is fourier_conv and groups == 1 else native
    return lax.platform_dependent(x, kernel, cpu=formed, cuda=on_gpu, default=native)


def cpu_form(
    padded: tuple[int, ...], kernel_shape: tuple[int, ...], strides: tuple[int, int], groups: int
) -> Callable[..., Array]:
    """The form of the convolution that a CPU gets, from static shapes alone: [batch, height, width] of padded images.

    - more than eight groups: native (each is too small a product for the other forms to pay).
    - a stride, a window of at least 5×5 and more than one channel: Fourier, while its grid has at most 256 points.
    - 3×3 without a stride: Winograd, where there are enough channels, filters and tiles (see `winograd.pays`).
    - im2col where copies of windows cost little: windows of one pixel, which are the images themselves; of at least
      5×5 pixels of one channel, which are kept for the gradient; at most twice as many windows as filters; or fewer
      windows than each has pixels (XLA takes the larger of image and filter for the image, which is far slower).
    - else direct.

    Up to eight groups are each a convolution of its own.
    """
    height, width, channels, filters = kernel_shape
    outputs = [(n - k) // s + 1 for n, k, s in zip(padded[1:], kernel_shape, strides, strict=False)]
    if groups > 8:
        return native_conv
    if max(strides) > 1 and height * width >= 25 and channels > 1:
        grid = [o + -(-k // s) - 1 for o, k, s in zip(outputs, kernel_shape, strides, strict=False)]
        if grid[0] * grid[1] <= 256:
            return fourier_conv
    if (height, width, *strides) == (3, 3, 1, 1) and winograd.pays(padded[0], outputs, channels, filters):
        return winograd.winograd_conv
    windows, pixels = outputs[0] * outputs[1], height * width
    few = padded[0] * windows <= 2 * filters or windows < pixels
    return im2col_conv if pixels == 1 or (channels == 1 and pixels >= 25) or few else direct_conv


def _pads(padding: str | int | Sequence[tuple[int, int]], size, window, strides) -> Pads:
    if isinstance(padding, str):
        (top, bottom), (left, right) = lax.padtype_to_pads(size, window, strides, padding)
        return ((int(top), int(bottom)), (int(left), int(right)))
    if isinstance(padding, int):
        return ((padding, padding), (padding, padding))
    (top, bottom), (left, right) = padding
    return ((top, bottom), (left, right))
