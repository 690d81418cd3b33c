"""Choose the convolution algorithm for each platform.

A TPU gets the native convolution. So does a GPU, except for large windows with a stride. On a CPU some gradients of
XLA's native convolution run at 1 % of a matrix product's speed, so `cpu_algorithm` chooses there, by static shapes
alone.

All algorithms are differentiated in reverse, any number of times. They agree to the rounding of products: float32 on a
CPU, TF32 on a GPU unless `JAX_DEFAULT_MATMUL_PRECISION=highest`.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from capsnet_jax.ops.conv.direct import direct_conv
from capsnet_jax.ops.conv.fourier import GRID, count_taps, fourier_conv, is_one_tile
from capsnet_jax.ops.conv.im2col import im2col_conv
from capsnet_jax.ops.conv.native import native_conv
from capsnet_jax.ops.conv.padding import Strides, resolve_padding
from capsnet_jax.ops.conv.winograd import is_profitable, winograd_conv


def conv2d(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels_per_group filters"],
    *,
    strides: int | tuple[int, int] = 1,
    padding: str | int | Sequence[tuple[int, int]] = "VALID",
    groups: int = 1,
) -> Float[Array, "batch out_height out_width filters"]:
    """Slide every filter over every image (cross-correlation, which conv nets call convolution).

    Args:
        x: images, NHWC.
        kernel: filters, HWIO; with groups, I counts the channels of one group.
        strides: pixels that the filter moves, one number or (vertical, horizontal).
        padding: "VALID", "SAME", pixels of 0 on every side, or ((top, bottom), (left, right)).
        groups: number of independent groups that channels and filters are split into.

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
    strides = (strides, strides) if isinstance(strides, int) else strides
    size, window = x.shape[1:3], kernel.shape[:2]
    pads = resolve_padding(padding, size, window, strides)
    padded_size = tuple(n + low + high for n, (low, high) in zip(size, pads, strict=True))
    if any(n < k for n, k in zip(padded_size, window, strict=True)):
        raise ValueError(
            f"images of {size[0]}×{size[1]} are too small for a {window[0]}×{window[1]} kernel with padding {padding}"
        )
    if x.shape[3] != kernel.shape[2] * groups or kernel.shape[3] % groups:
        raise ValueError(
            f"{x.shape[3]} channels do not fit {groups} group(s) of {kernel.shape[2]} channels"
            f" and {kernel.shape[3]} filters"
        )
    native = partial(native_conv, strides=strides, pads=pads, groups=groups)
    algorithm = cpu_algorithm((len(x), *padded_size), kernel.shape, strides, groups)
    if algorithm is native_conv:
        return native(x, kernel)

    def run_algorithm(x: Array, kernel: Array) -> Array:
        # These algorithms need sums in float32, which is also a CPU's fastest type.
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        x, kernel, input_dtype = x.astype(dtype), kernel.astype(dtype), x.dtype
        if groups == 1:
            return algorithm(x, kernel, strides=strides, pads=pads).astype(input_dtype)
        pairs = zip(jnp.split(x, groups, axis=3), jnp.split(kernel, groups, axis=3), strict=True)
        outputs = [algorithm(*pair, strides=strides, pads=pads) for pair in pairs]
        return jnp.concatenate(outputs, axis=3).astype(input_dtype)

    # On an H100, CapsNet's primary capsules with both gradients: native 1.86 ms, Fourier 0.73 ms (batch 64). Tiles were
    # not measured there.
    out = [(n - k) // s + 1 for n, k, s in zip(padded_size, window, strides, strict=True)]
    one_tile = is_one_tile(out, count_taps(window, strides))
    on_gpu = run_algorithm if algorithm is fourier_conv and groups == 1 and one_tile else native
    return lax.platform_dependent(x, kernel, cpu=run_algorithm, cuda=on_gpu, default=native)


def cpu_algorithm(
    padded_shape: tuple[int, ...], kernel_shape: tuple[int, ...], strides: Strides, groups: int
) -> Callable[..., Array]:
    """Return the algorithm that a CPU uses.

    - More than eight groups: native. Each group is too small a product for the others.
    - A stride, a window of at least 5×5 and more than one channel: Fourier, if its grid has at most 256 points. Or in
      tiles, if a kernel takes at most half of one, and each output is a sum of at least 1024 products, which pays for
      the transforms. It was measured for training: with 9×9 windows of 32 channels and 64 filters in images of 56×56,
      value and gradients take a quarter of the direct algorithm's time, the value alone as long.
    - 3×3 without a stride: Winograd, where there are enough channels, filters and tiles (`winograd.is_profitable`).
    - im2col, where copying patches costs little compared with the product, or the native convolution is slow:
        - windows of one pixel: the patches are the images themselves.
        - at most twice as many patches as filters.
        - fewer output positions than pixels in a window: XLA takes the larger of image and filter for the image.
    - Otherwise direct.

    Up to eight groups are separate convolutions.

    Args:
        padded_shape: [batch, height, width] of the images with their padding.
        kernel_shape: [height, width, channels of a group, filters].
        strides: pixels that the filter moves.
        groups: number of groups.
    """
    height, width, channels, filters = kernel_shape
    out = [(n - k) // s + 1 for n, k, s in zip(padded_shape[1:], kernel_shape, strides, strict=False)]
    if groups > 8:
        return native_conv
    if max(strides) > 1 and height * width >= 25 and channels > 1:
        taps = count_taps((height, width), strides)
        if is_one_tile(out, taps) or (max(taps) <= GRID // 2 and height * width * channels >= 1024):
            return fourier_conv
    if (height, width, *strides) == (3, 3, 1, 1) and is_profitable(padded_shape[0], out, channels, filters):
        return winograd_conv
    positions, pixels = out[0] * out[1], height * width
    few_patches = padded_shape[0] * positions <= 2 * filters or positions < pixels
    return im2col_conv if pixels == 1 or few_patches else direct_conv
