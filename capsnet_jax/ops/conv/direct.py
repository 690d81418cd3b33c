"""The native convolution, with gradients that use it only in the way a CPU is fast at.

On a CPU, XLA's convolution is as fast as a matrix product for images NHWC and kernels HWIO. The gradients that JAX
derives from it have other layouts, and those take 27 times (images) and 270 times (kernel) as long inside a loop.
Training steps are in a loop.
"""

from functools import partial

import jax
from jaxtyping import Array, Float

from capsnet_jax.ops.conv.chunking import CHUNK_BYTES, chunked_map, chunked_sum, largest_divisor
from capsnet_jax.ops.conv.im2col import extract_patches
from capsnet_jax.ops.conv.padding import Pads, Strides, pad_images
from capsnet_jax.ops.conv.side_by_side import side_by_side_conv
from capsnet_jax.ops.materialize import materialize

FEW_CHANNELS = 4  # too few filters for a convolution that yields them: of one channel it takes ten times as long


def direct_conv(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels filters"],
    *,
    strides: Strides,
    pads: Pads,
) -> Float[Array, "batch out_height out_width filters"]:
    """Convolve natively, with gradients that are fast on a CPU. Differentiated in reverse only."""
    return _direct(x, kernel, strides, pads)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _direct(x: Array, kernel: Array, strides: Strides, pads: Pads) -> Array:
    return side_by_side_conv(x, kernel, strides=strides, pads=pads)


def _direct_forward(x: Array, kernel: Array, strides: Strides, pads: Pads) -> tuple[Array, tuple[Array, Array]]:
    return _direct(x, kernel, strides, pads), (x, kernel)


def _direct_backward(
    strides: Strides, pads: Pads, residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    if strides == (1, 1) and kernel.shape[2] > FEW_CHANNELS:
        to_x = _flipped_conv(gradient, kernel, pads)
    else:
        to_x = _fold_patches(gradient, kernel, x.shape, strides, pads)
    return to_x, _kernel_gradient(gradient, pad_images(x, pads), kernel.shape, strides)


_direct.defvjp(_direct_forward, _direct_backward)


def _flipped_conv(gradient: Array, kernel: Array, pads: Pads) -> Array:
    """Return the images' gradient without strides, of many channels: a convolution with the kernel turned by 180°."""
    vertical, horizontal = ((k - 1 - low, k - 1 - high) for k, (low, high) in zip(kernel.shape, pads, strict=False))
    return _direct(gradient, kernel[::-1, ::-1].swapaxes(2, 3), (1, 1), (vertical, horizontal))


def _fold_patches(gradient: Array, kernel: Array, shape: tuple[int, ...], strides: Strides, pads: Pads) -> Array:
    """Return the images' gradient with strides or few channels: add each patch's to the pixels it was copied from."""
    height, width, _, filters = kernel.shape
    images = images_per_chunk(len(gradient), gradient.shape[1:3], kernel.shape)

    def unfold(x: Array) -> Array:
        return extract_patches(pad_images(x, pads), (height, width), strides)

    fold = jax.linear_transpose(unfold, jax.ShapeDtypeStruct((images, *shape[1:]), gradient.dtype))

    def chunk_fn(gradient: Array) -> Array:
        return fold(gradient @ kernel.reshape(-1, filters).T)[0]

    return chunked_map(chunk_fn, gradient.reshape(-1, images, *gradient.shape[1:])).reshape(shape)


def _kernel_gradient(gradient: Array, padded: Array, shape: tuple[int, ...], strides: Strides) -> Array:
    """Return the kernel's gradient: the patches of a few images at a time, multiplied by the outputs' gradient."""
    height, width, _, filters = shape
    images = images_per_chunk(len(gradient), gradient.shape[1:3], shape)

    def chunk_fn(padded: Array, gradient: Array) -> Array:
        patches = extract_patches(padded, (height, width), strides)
        return gradient.reshape(-1, filters).T @ patches.reshape(-1, patches.shape[-1])

    arguments = [batch.reshape(-1, images, *batch.shape[1:]) for batch in (padded, gradient)]
    return materialize(chunked_sum(chunk_fn, *arguments).T).reshape(shape)


def images_per_chunk(batch: int, positions: tuple[int, ...], kernel_shape: tuple[int, ...]) -> int:
    """Return how many images' patches are copied together: a divisor of the batch.

    As many as stay in the cache. But every product reads all filters, so the patches take at least twice their bytes.

    Args:
        batch: number of images.
        positions: height and width of the output.
        kernel_shape: [height, width, channels, filters].
    """
    height, width, channels, filters = kernel_shape
    patch_bytes = 4 * height * width * channels
    limit = max(CHUNK_BYTES, 2 * patch_bytes * filters)
    return largest_divisor(batch, limit // (positions[0] * positions[1] * patch_bytes))
