"""Convolution as one matrix product of copied patches and filters."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from capsnet_jax.ops.conv.padding import Pads, Strides, pad_images
from capsnet_jax.ops.matmul import matmul


def im2col_conv(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels filters"],
    *,
    strides: Strides,
    pads: Pads,
) -> Float[Array, "batch out_height out_width filters"]:
    """Multiply all patches [images·positions, window·channels] by all filters [window·channels, filters].

    Differentiated in reverse only. The patches are kept for the kernel's gradient.
    """
    height, width, _, filters = kernel.shape
    patches = extract_patches(pad_images(x, pads), (height, width), strides)
    return matmul(patches.reshape(-1, patches.shape[-1]), kernel.reshape(-1, filters)).reshape(
        *patches.shape[:3], filters
    )


def extract_patches(
    padded: Float[Array, "batch height width channels"], window: tuple[int, int], strides: Strides
) -> Float[Array, "batch out_height out_width patch"]:
    """Copy the pixels under every position of the window, flattened in the order of a kernel [height, width, channels].

    Args:
        padded: images, with their padding.
        window: height and width of the window, pixels.
        strides: pixels that the window moves.
    """
    if padded.shape[3] <= 4 and min(window) > 1:
        # With so few channels each copy would move a few values only. Copying whole rows first takes half as long.
        rows = extract_patches(padded, (1, window[1]), (1, strides[1]))
        return extract_patches(rows, (window[0], 1), (strides[0], 1))
    ends = [(size - k) // s * s + 1 for size, k, s in zip(padded.shape[1:3], window, strides, strict=True)]
    views = [
        padded[:, i : i + ends[0] : strides[0], j : j + ends[1] : strides[1]]
        for i in range(window[0])
        for j in range(window[1])
    ]
    return jnp.concatenate(views, axis=-1)
