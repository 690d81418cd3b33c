"""3×3 convolution on tiles of 4×4 outputs, with a quarter of the direct form's multiplications.

Winograd's minimal filtering (Lavin and Gray 2016, arXiv:1509.09308, section 4): four outputs of a filter of three taps
are coefficients of a product of polynomials, so six values of each polynomial are enough to know them. In two
dimensions a tile of 6×6 pixels and a filter become 6×6 values each, products over channels stand between them, and
what comes out is 4×4 outputs. The products are 36 matrix products [tiles, channels] × [channels, filters].

Which six points decides how much is lost to rounding. The usual integers (0, ±1, ±2, ∞) lose four times as much as
these, which are each other's inverses and lose two to five times what the direct form does.
"""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from capsnet_jax.ops.forms import CACHED, Pads, along_first, divisor, mapped, padded, summed
from capsnet_jax.ops.held import held

TILE, TAPS = 4, 3
POINTS = (0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))  # and infinity


def _values(terms: int) -> Float[np.ndarray, "points terms"]:
    """The matrix that takes a polynomial's coefficients to its values at the points, at infinity the last of them."""
    return np.vstack([np.vander(POINTS, terms, increasing=True), np.eye(terms)[-1:]])


# Images are taken apart one way after the other; what is small, both ways at once.
ON_IMAGE = np.linalg.inv(_values(TILE + TAPS - 1)).T
ON_KERNEL, ON_OUTPUT = (np.kron(one_way, one_way) for one_way in (_values(TAPS), _values(TILE)))


def pays(batch: int, out: Sequence[int], channels: int, filters: int) -> bool:
    """Whether this form is faster on a CPU than the direct one.

    Taking tiles apart and putting them together costs as much a channel and a filter whatever the products are, so
    there must be many of both (24 is half of 48 and 48). The filters are taken apart too, so there must be many tiles,
    the more where filters fill the cache (64 for 512 filters of 512 channels). And tiles must be at least half full, as
    one output costs as much as sixteen.
    """
    tiles = batch * math.prod(-(-n // TILE) for n in out)
    enough = max(32, channels * filters // 4096)
    return channels * filters >= 24 * (channels + filters) and enough <= tiles <= batch * math.prod(out) // 8


def winograd_conv(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels filters"],
    *,
    strides: tuple[int, int],
    pads: Pads,
) -> Float[Array, "batch out_height out_width filters"]:
    """Cross-correlation with 3×3 filters that move one pixel. It is differentiated in reverse only.

    Args:
        x: images.
        kernel: filters.
        strides: (1, 1); as other forms have them.
        pads: zeros added around the image ((top, bottom), (left, right)).

    Returns:
        The same as the direct form, to float32 rounding.

    Raises:
        ValueError: another window, or strides.
    """
    if kernel.shape[:2] != (TAPS, TAPS) or strides != (1, 1):
        raise ValueError(f"this form is for 3×3 filters with stride 1, not {kernel.shape[:2]} with strides {strides}")
    return _winograd(x, kernel, pads)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _winograd(x: Array, kernel: Array, pads: Pads) -> Array:
    lots, out = _lots(x, kernel.shape, pads)
    filters = along_first(ON_KERNEL, kernel.swapaxes(0, 1).reshape(TAPS * TAPS, *kernel.shape[2:]))

    def some(images: Array) -> Array:
        tiles = along_first(ON_OUTPUT.T, _image_values(images) @ filters)
        down, across = (n // TILE for n in images.shape[1:3])
        return tiles.reshape(TILE, TILE, len(images), down, across, -1).transpose(2, 3, 1, 4, 0, 5)

    return mapped(some, lots).reshape(len(x), *_whole(out), -1)[:, : out[0], : out[1]]


def _forward(x: Array, kernel: Array, pads: Pads) -> tuple[Array, tuple[Array, Array]]:
    return _winograd(x, kernel, pads), (x, kernel)


def _backward(pads: Pads, kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    """The images' gradient is a convolution with the filters turned around; the filters' a sum over tiles."""
    x, kernel = kept
    gradient = held(gradient)
    vertical, horizontal = ((TAPS - 1 - low, TAPS - 1 - high) for low, high in pads)
    to_x = _winograd(gradient, kernel[::-1, ::-1].swapaxes(2, 3), (vertical, horizontal))

    lots, out = _lots(x, kernel.shape, pads)
    height, width = (n // TILE * TILE for n in lots.shape[2:4])
    filled = padded(gradient, [(0, whole - n) for whole, n in zip(_whole(out), out, strict=True)])

    def some(images: Array, gradient: Array) -> Array:
        tiles = gradient.reshape(len(images), height // TILE, TILE, width // TILE, TILE, -1)
        tiles = tiles.transpose(4, 2, 0, 1, 3, 5).reshape(TILE * TILE, -1, gradient.shape[-1])
        values = _image_values(images), along_first(ON_OUTPUT, tiles)
        first, second = values[::-1] if turned else values
        return first.swapaxes(1, 2) @ second

    channels, filters = kernel.shape[2:]
    turned = channels > filters  # the narrower one is transposed faster
    parts = lots, filled.reshape(*lots.shape[:2], height, width, -1)
    to_kernel = along_first(ON_KERNEL.T, summed(some, *parts))
    if turned:
        to_kernel = to_kernel.swapaxes(1, 2)
    return to_x, to_kernel.reshape(kernel.shape).swapaxes(0, 1)


_winograd.defvjp(_forward, _backward)


def _image_values(images: Float[Array, "images height width channels"]) -> Float[Array, "values tiles channels"]:
    """Every overlapping 6×6 tile at every pair (across, down) of points: first down, while rows are whole."""
    size, channels = len(ON_IMAGE), images.shape[-1]
    height, width = (n // TILE * TILE for n in images.shape[1:3])
    down = along_first(ON_IMAGE, jnp.stack([images[:, i : i + height : TILE] for i in range(size)]))
    tiles = along_first(ON_IMAGE, jnp.stack([down[:, :, :, i : i + width : TILE] for i in range(size)]))
    return tiles.reshape(size * size, -1, channels)


def _lots(x: Array, kernel_shape: tuple[int, ...], pads: Pads) -> tuple[Array, tuple[int, int]]:
    """Padded images [lots, images, height, width, channels], whole ones or bands of one, and the size of the output.

    A lot's values at all points take at most `CACHED` bytes, but it has no fewer tiles than there are filters, which
    every product reads. Lots of one turn do not share these bytes, for products of few tiles run on one core: else
    DenseNet-121's inference takes 8 % longer, and by the kernels' gradients its step 3 to 7 %.
    """
    batch, _, _, channels = x.shape
    out = (x.shape[1] + sum(pads[0]) - TAPS + 1, x.shape[2] + sum(pads[1]) - TAPS + 1)
    height, width = _whole(out)
    most = max(CACHED // (x.dtype.itemsize * len(ON_IMAGE) ** 2 * channels), kernel_shape[3])
    wider = [(low, high + whole - n) for (low, high), whole, n in zip(pads, (height, width), out, strict=True)]
    filled = padded(x, wider)
    images = divisor(batch, most * TILE**2 // (height * width))
    rows = TILE * divisor(height // TILE, most * TILE // width) if images == 1 else height
    bands = [filled[:, i : i + rows + TAPS - 1] for i in range(0, height, rows)]
    lots = jnp.stack(bands, axis=1) if len(bands) > 1 else filled
    return lots.reshape(-1, images, rows + TAPS - 1, width + TAPS - 1, channels), out


def _whole(out: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of the tiles that cover an output."""
    height, width = (-(-n // TILE) * TILE for n in out)
    return height, width
