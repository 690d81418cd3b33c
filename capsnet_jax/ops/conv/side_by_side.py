"""The native convolution with several images in one row, which gives every core of a CPU its share.

XLA on a CPU divides a convolution among cores in blocks of 64 filters and of 64 to 1024 output columns. The fewer
products a sum has, the more columns a block has. It never divides by images or by rows, so small images keep one
core busy. Images that stand side by side, with zeros between them, have columns for all cores.
A training step of `cnn_small` takes a sixth less time with it (two cores, batch 128).
"""

import math

from jaxtyping import Array, Float

from capsnet_jax.ops.conv.chunking import largest_divisor
from capsnet_jax.ops.conv.native import native_conv
from capsnet_jax.ops.conv.padding import Pads, Strides, pad_images

BLOCKS = 8  # wanted in each convolution, so that a few cores finish at about the same time


def side_by_side_conv(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels filters"],
    *,
    strides: Strides,
    pads: Pads,
) -> Float[Array, "batch out_height out_width filters"]:
    """Convolve as `native_conv` does, with `images_per_row` images in each row."""
    per_row = images_per_row(x.shape, kernel.shape, strides=strides, pads=pads)
    if per_row == 1:
        return native_conv(x, kernel, strides=strides, pads=pads)
    _, height, width, channels = x.shape
    _, window, _, filters = kernel.shape
    stride, left = strides[1], pads[1][0]
    columns = _columns(x.shape, kernel.shape, strides, pads)
    # Each image begins a whole number of strides after the one before. The zeros between two images serve both.
    steps = -(-max(width + left, (columns - 1) * stride + window - left) // stride)
    spaced = pad_images(x, [(0, 0), (0, steps * stride - width)])
    rows = spaced.reshape(-1, per_row, *spaced.shape[1:]).swapaxes(1, 2)
    rows = rows.reshape(-1, height, per_row * spaced.shape[2], channels)
    out = native_conv(rows, kernel, strides=strides, pads=(pads[0], (left, window - stride - left)))
    out = out.reshape(len(rows), -1, per_row, steps, filters)[:, :, :, :columns]
    return out.swapaxes(1, 2).reshape(len(x), -1, columns, filters)


def images_per_row(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], *, strides: Strides, pads: Pads) -> int:
    """Return how many images should stand side by side: a divisor of the batch, 1 where it would not help.

    It does not help where the filters make blocks enough, or where copying the images costs more than it saves.
    """
    window, channels, filters = kernel_shape[1:]
    terms = math.prod(kernel_shape[:3])  # of each sum
    products = terms * filters  # for every output position
    copied = channels * math.prod(strides) + filters  # numbers, for every output position
    enough_filters = filters % 128 == 0 and terms >= 1024
    if enough_filters or products < 90 * copied or window == 1 or pads[1][0] < 0:
        return 1
    block = min(max(64, 2**16 // terms), 1024)  # columns
    return largest_divisor(x_shape[0], -(-BLOCKS * block // _columns(x_shape, kernel_shape, strides, pads)))


def _columns(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], strides: Strides, pads: Pads) -> int:
    """Return the width of the output."""
    return (x_shape[2] + sum(pads[1]) - kernel_shape[1]) // strides[1] + 1
