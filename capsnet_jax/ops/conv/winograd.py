"""3×3 convolution on tiles of 4×4 outputs, with a quarter of the direct algorithm's multiplications.

Winograd's minimal filtering, F(4×4, 3×3) of Lavin and Gray 2016 (arXiv:1509.09308, section 4). A filter g and a tile d
of 6×6 pixels are evaluated at 6×6 points, multiplied there, and turned into 4×4 outputs:

    Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A

Summed over channels, the multiplication at each of the 36 points is a matrix product
[tiles, channels] × [channels, filters].

The choice of points decides how much is lost to rounding. These come in pairs of inverses and lose two to five times
what the direct algorithm loses. The usual points (0, ±1, ±2, ∞) lose four times as much as these.
"""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from capsnet_jax.ops.conv.chunking import CHUNK_BYTES, chunked_map, chunked_sum, largest_divisor
from capsnet_jax.ops.conv.padding import Pads, Strides, pad_images
from capsnet_jax.ops.materialize import materialize
from capsnet_jax.ops.matmul import left_multiply

TILE, TAPS = 4, 3
POINTS = (0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))  # and infinity


def _evaluation(terms: int) -> Float[np.ndarray, "points terms"]:
    """Return the matrix from a polynomial's coefficients to its values at the points, the last at infinity."""
    return np.vstack([np.vander(POINTS, terms, increasing=True), np.eye(terms)[-1:]])


# The names of the paper; each matrix works along one axis of a tile.
B_T = np.linalg.inv(_evaluation(TILE + TAPS - 1)).T
G = _evaluation(TAPS)
A_T = _evaluation(TILE).T


def is_profitable(batch: int, out: Sequence[int], channels: int, filters: int) -> bool:
    """Tell whether this is faster on a CPU than the direct algorithm.

    - The transforms cost the same for each channel and filter, so there must be enough of both to share them.
    - The filters are transformed too, so there must be enough tiles: more where the filters fill the cache.
    - A partly filled tile costs as much as a full one, so tiles must be at least half full on average.
    """
    tiles = batch * math.prod(-(-n // TILE) for n in out)
    enough = max(32, channels * filters // 4096)
    return channels * filters >= 24 * (channels + filters) and enough <= tiles <= batch * math.prod(out) // 8


def winograd_conv(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels filters"],
    *,
    strides: Strides,
    pads: Pads,
) -> Float[Array, "batch out_height out_width filters"]:
    """Cross-correlate images with 3×3 filters that move one pixel. Differentiated in reverse only.

    Args:
        x: images.
        kernel: filters.
        strides: (1, 1); the argument is there because the other algorithms have it.
        pads: pixels of 0 around the image ((top, bottom), (left, right)).

    Returns:
        The same as the direct algorithm, to float32 rounding.

    Raises:
        ValueError: another window, or strides.
    """
    if kernel.shape[:2] != (TAPS, TAPS) or strides != (1, 1):
        raise ValueError(f"Winograd is for 3×3 filters with stride 1, not {kernel.shape[:2]} with strides {strides}")
    return _winograd(x, kernel, pads)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _winograd(x: Array, kernel: Array, pads: Pads) -> Array:
    chunks, out = _chunks(x, kernel.shape, pads)
    # G g Gᵀ, as one product: both axes of a filter are flattened. They come as (width, height), like the tiles' points.
    filters = left_multiply(np.kron(G, G), kernel.swapaxes(0, 1).reshape(TAPS * TAPS, *kernel.shape[2:]))

    def chunk_fn(images: Array) -> Array:
        tiles = left_multiply(np.kron(A_T, A_T), _transform_images(images) @ filters)
        down, across = (n // TILE for n in images.shape[1:3])
        return tiles.reshape(TILE, TILE, len(images), down, across, -1).transpose(2, 3, 1, 4, 0, 5)

    return chunked_map(chunk_fn, chunks).reshape(len(x), *_tiled_size(out), -1)[:, : out[0], : out[1]]


def _forward(x: Array, kernel: Array, pads: Pads) -> tuple[Array, tuple[Array, Array]]:
    return _winograd(x, kernel, pads), (x, kernel)


def _backward(pads: Pads, residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    """Return the images' gradient, a convolution with turned filters, and the filters', a sum over tiles."""
    x, kernel = residuals
    gradient = materialize(gradient)
    vertical, horizontal = ((TAPS - 1 - low, TAPS - 1 - high) for low, high in pads)
    to_x = _winograd(gradient, kernel[::-1, ::-1].swapaxes(2, 3), (vertical, horizontal))

    chunks, out = _chunks(x, kernel.shape, pads)
    height, width = (n // TILE * TILE for n in chunks.shape[2:4])
    padded = pad_images(gradient, [(0, size - n) for size, n in zip(_tiled_size(out), out, strict=True)])

    def chunk_fn(images: Array, gradient: Array) -> Array:
        tiles = gradient.reshape(len(images), height // TILE, TILE, width // TILE, TILE, -1)
        tiles = tiles.transpose(4, 2, 0, 1, 3, 5).reshape(TILE * TILE, -1, gradient.shape[-1])
        factors = _transform_images(images), left_multiply(np.kron(A_T, A_T).T, tiles)
        first, second = factors[::-1] if swapped else factors
        return first.swapaxes(1, 2) @ second

    channels, filters = kernel.shape[2:]
    swapped = channels > filters  # the first factor is transposed, which is faster for the narrower one
    arguments = chunks, padded.reshape(*chunks.shape[:2], height, width, -1)
    to_kernel = left_multiply(np.kron(G, G).T, chunked_sum(chunk_fn, *arguments))
    if swapped:
        to_kernel = to_kernel.swapaxes(1, 2)
    return to_x, to_kernel.reshape(kernel.shape).swapaxes(0, 1)


_winograd.defvjp(_forward, _backward)


def _transform_images(images: Float[Array, "images height width channels"]) -> Float[Array, "points tiles channels"]:
    """Return Bᵀ d B of every overlapping 6×6 tile d, at the points (horizontal, vertical).

    One axis after the other, as the tiles share their rows: vertically first, while these are complete.
    """
    size, channels = len(B_T), images.shape[-1]
    height, width = (n // TILE * TILE for n in images.shape[1:3])
    down = left_multiply(B_T, jnp.stack([images[:, i : i + height : TILE] for i in range(size)]))
    tiles = left_multiply(B_T, jnp.stack([down[:, :, :, i : i + width : TILE] for i in range(size)]))
    return tiles.reshape(size * size, -1, channels)


def _chunks(x: Array, kernel_shape: tuple[int, ...], pads: Pads) -> tuple[Array, tuple[int, int]]:
    """Split padded images into chunks of several images, or of a band of rows of one.

    A chunk's transform takes at most `CHUNK_BYTES`. But every product reads all filters, so a chunk has at least as
    many tiles as there are filters. The chunks of one turn do not share `CHUNK_BYTES`: then products would have few
    tiles, and XLA gives those one core only.

    Returns:
        Chunks [chunks, images, height, width, channels], and height and width of the output.
    """
    batch, _, _, channels = x.shape
    out = (x.shape[1] + sum(pads[0]) - TAPS + 1, x.shape[2] + sum(pads[1]) - TAPS + 1)
    height, width = _tiled_size(out)
    max_tiles = max(CHUNK_BYTES // (x.dtype.itemsize * len(B_T) ** 2 * channels), kernel_shape[3])
    tiled_pads = [(low, high + size - n) for (low, high), size, n in zip(pads, (height, width), out, strict=True)]
    padded = pad_images(x, tiled_pads)
    images = largest_divisor(batch, max_tiles * TILE**2 // (height * width))
    rows = TILE * largest_divisor(height // TILE, max_tiles * TILE // width) if images == 1 else height
    bands = [padded[:, i : i + rows + TAPS - 1] for i in range(0, height, rows)]
    chunks = jnp.stack(bands, axis=1) if len(bands) > 1 else padded
    return chunks.reshape(-1, images, rows + TAPS - 1, width + TAPS - 1, channels), out


def _tiled_size(out: tuple[int, ...]) -> tuple[int, int]:
    """Return height and width of the whole tiles that cover an output."""
    height, width = (-(-n // TILE) * TILE for n in out)
    return height, width
