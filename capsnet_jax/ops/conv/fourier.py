"""Strided convolution in Fourier space: one matrix product for every frequency.

With stride s, image and kernel split into s² phases of every s-th pixel. Each phase is an ordinary small convolution,
and stacked as channels they are one. On a grid of outputs + kernel − 1 points (in strides), the correlation theorem
turns it into one product [batch, channels] × [channels, filters] for every frequency. The grid is so large that no
valid output is touched by the wrap-around.

CapsNet's primary capsules (20×20 → 6×6, 9×9 kernel, stride 2) have a grid of 10×10 with 52 independent frequencies.
That is about a fifth of the direct algorithm's multiplications. A larger image is cut into tiles that overlap, each an
image of its own.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from capsnet_jax.ops.conv.padding import Pads, Strides, pad_images
from capsnet_jax.ops.matmul import left_multiply

GRID = 16  # points of a tile, in each direction, where the kernel has fewer taps


def fourier_conv(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels filters"],
    *,
    strides: Strides,
    pads: Pads,
) -> Float[Array, "batch out_height out_width filters"]:
    """Cross-correlate images with filters through the discrete Fourier transform.

    Args:
        x: images.
        kernel: filters.
        strides: pixels that the filter moves (vertical, horizontal).
        pads: zeros added around the image ((top, bottom), (left, right)).

    Returns:
        The same as the direct algorithm, to float32 rounding.
    """
    x = pad_images(x, pads)
    window = kernel.shape[:2]
    taps = count_taps(window, strides)
    out = tuple((n - k) // s + 1 for n, k, s in zip(x.shape[1:3], window, strides, strict=True))
    limits = out if is_one_tile(out, taps) else [max(1, GRID + 1 - t) for t in taps]
    tiles = tuple(-(-o // limit) for o, limit in zip(out, limits, strict=True))
    tile = tuple(-(-o // n) for o, n in zip(out, tiles, strict=True))  # outputs
    grid = tuple(o + t - 1 for o, t in zip(tile, taps, strict=True))
    dft = _transforms(grid, taps, tile)

    batch, filters = x.shape[0], kernel.shape[3]
    points = tuple(n * o + t - 1 for n, o, t in zip(tiles, tile, taps, strict=True))
    phases = _phases(x, points, strides).transpose(1, 3, 0, 2, 4, 5)
    corners = [(i * tile[0], j * tile[1]) for i in range(tiles[0]) for j in range(tiles[1])]
    # [points, tiles·batch, phases·channels] and [taps, phases·channels, filters]
    images = jnp.stack([phases[i : i + grid[0], j : j + grid[1]] for i, j in corners], axis=2)
    images = images.reshape(grid[0] * grid[1], len(corners) * batch, -1)
    weights = _phases(kernel[None], taps, strides, filters).transpose(1, 3, 0, 2, 4, 5, 6)
    weights = weights.reshape(taps[0] * taps[1], -1, filters)

    transformed = _multiply(left_multiply(dft.image, images), left_multiply(dft.kernel, weights), dft.pairs)
    outputs = left_multiply(dft.output, transformed).reshape(*tile, *tiles, batch, filters).transpose(4, 2, 0, 3, 1, 5)
    return outputs.reshape(batch, tiles[0] * tile[0], tiles[1] * tile[1], filters)[:, : out[0], : out[1]]


def count_taps(window: Sequence[int], strides: Strides) -> tuple[int, ...]:
    """Return the size of a window in strides, vertical and horizontal."""
    return tuple(-(-k // s) for k, s in zip(window, strides, strict=True))


def is_one_tile(out: Sequence[int], taps: Sequence[int]) -> bool:
    """Whether the grid of so many outputs, vertical and horizontal, is small enough to be left whole."""
    return math.prod(o + t - 1 for o, t in zip(out, taps, strict=True)) <= GRID**2


class _Transforms(NamedTuple):
    """Real DFT matrices; rows or columns are [real of pairs, real frequencies, imaginary of pairs]."""

    image: np.ndarray  # [frequencies, points]
    kernel: np.ndarray  # [frequencies, taps]
    output: np.ndarray  # [outputs, frequencies]
    pairs: int  # frequencies with an imaginary part, each standing for its conjugate too


def _transforms(grid: tuple[int, ...], taps: tuple[int, ...], out: tuple[int, ...]) -> _Transforms:
    """Return the transforms of a grid's points and of the kernel's taps (conjugate: correlation), and the inverse."""
    conjugate = {(u, v): (-u % grid[0], -v % grid[1]) for u in range(grid[0]) for v in range(grid[1])}
    pairs = [f for f, mirror in conjugate.items() if f < mirror]
    real = [f for f, mirror in conjugate.items() if f == mirror]

    def waves(size: tuple[int, ...]) -> np.ndarray:
        """Return exp(−2πi (u·y / height + v·x / width)) for each frequency (u, v) and each point (y, x) of `size`."""
        u, v = np.array(pairs + real).T
        y, x = np.indices(size).reshape(2, -1)
        return np.exp(-2j * np.pi * (np.outer(u, y) / grid[0] + np.outer(v, x) / grid[1]))

    def stack(complex_rows: np.ndarray) -> np.ndarray:
        return np.concatenate([complex_rows.real, complex_rows.imag[: len(pairs)]])

    weight = np.array([2] * len(pairs) + [1] * len(real))[:, None] / (grid[0] * grid[1])
    return _Transforms(stack(waves(grid)), stack(waves(taps).conj()), stack(waves(out) * weight).T, len(pairs))


def _phases(x: Array, points: tuple[int, ...], strides: Strides, *filters: int) -> Array:
    """Split height and width into (points, phases), cropping or padding with zeros at the far end."""
    height, width = (p * s for p, s in zip(points, strides, strict=True))
    x = x[:, :height, :width]
    far_pads = [(0, 0), (0, height - x.shape[1]), (0, width - x.shape[2])] + [(0, 0)] * (x.ndim - 3)
    return jnp.pad(x, far_pads).reshape(x.shape[0], points[0], strides[0], points[1], strides[1], x.shape[3], *filters)


def _multiply(
    a: Float[Array, "frequencies batch channels"],
    b: Float[Array, "frequencies channels filters"],
    pairs: int,
) -> Float[Array, "frequencies batch filters"]:
    """Multiply at each frequency; a complex product takes three real ones (Gauss)."""
    end = a.shape[0] - pairs
    a_real, a_imag, b_real, b_imag = a[:pairs], a[end:], b[:pairs], b[end:]
    common = (a_real + a_imag) @ b_real
    real = common - a_imag @ (b_real + b_imag)
    imag = common + a_real @ (b_imag - b_real)
    return jnp.concatenate([real, a[pairs:end] @ b[pairs:end], imag])
