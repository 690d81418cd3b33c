"""Heat maps from what happens when parts of an image are hidden."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from capsnet_jax.config import ConfigError
from capsnet_jax.interpret.chunks import check_count, map_chunks
from capsnet_jax.interpret.examples import like_pixels
from capsnet_jax.interpret.program import Net
from capsnet_jax.interpret.targets import AnyTarget, Target, prepare, score


def occlusion(
    net: Net,
    images: Num[Array | np.ndarray, "batch height width channels"],
    target: AnyTarget = None,
    *,
    window: int | None = None,
    stride: int | None = None,
    fill: float | Float[Array | np.ndarray, "..."] | None = None,
    chunk: int = 32,
) -> Float[Array, "batch height width 1"]:
    """Return how much the target falls when a square around each pixel is hidden; positive supports it.

    A square is moved over the image. A pixel's value is the mean fall over all squares that cover it. The last square
    in each direction ends at the image's end.

    Args:
        net: a network, or any function of images to {name: array}.
        images: pixels in [0, 1], or bytes.
        target: a class, one class an image, a `targets.Target`, a function of the outputs to scores[batch]; None: the
            class that the net itself chooses.
        window: side of the square, pixels; None: a fifth of the image's shorter side.
        stride: pixels that it moves; None: a tenth of that side.
        fill: what hides, a number or what broadcasts to the images; None: the mean of each channel of each image.
        chunk: images at a time.

    Raises:
        ConfigError: the window or the stride is less than a pixel, squares leave pixels between them, or as
            `targets.prepare` says.

    Source: Zeiler and Fergus 2013 (arXiv:1311.2901), section 4.2.
    """
    net, pixels, target = prepare(net, images, target)
    side = min(pixels.shape[1:3])
    window = max(1, round(0.2 * side)) if window is None else check_count("window", window)
    stride = min(window, max(1, round(0.1 * side))) if stride is None else check_count("stride", stride)
    if stride > window:
        raise ConfigError(f"squares of {window} pixels, {stride} apart, leave gaps; give a stride of at most {window}")
    cover = pixels.mean(axis=(1, 2), keepdims=True) if fill is None else like_pixels(fill, pixels)
    return _occlusion(net, pixels, target, cover, window=window, stride=stride, chunk=chunk)


@partial(jax.jit, static_argnames=("window", "stride", "chunk"))
def _occlusion(net: Any, images: Array, target: Target, cover: Array, *, window: int, stride: int, chunk: int) -> Array:
    rows, columns = (_covered(size, window, stride) for size in images.shape[1:3])  # [positions, pixels]
    cover = jnp.broadcast_to(cover, images.shape)
    squares = len(rows) * len(columns)

    def seen(image: Array, position: Array) -> Array:
        hidden = rows[position // len(columns), :, None] & columns[position % len(columns), None, :]
        hidden &= (position < squares)[:, None, None]  # the last sample is the image itself
        pixels = jnp.where(hidden[..., None], cover[image], images[image])
        return score(net, target.of_images(image), pixels)

    scores = map_chunks(seen, len(images), squares + 1, chunk)
    falls = (scores[:, -1:] - scores[:, :-1]).reshape(-1, len(rows), len(columns))
    total = jnp.einsum("brc,rh,cw->bhw", falls, *(each.astype(falls.dtype) for each in (rows, columns)))
    times = jnp.outer(rows.sum(axis=0), columns.sum(axis=0))
    return (total / times[None])[..., None]


def _covered(size: int, window: int, stride: int) -> Array:
    """Return which of the pixels along one side each position of the square covers, bool[positions, size]."""
    last = max(size - window, 0)
    starts = np.unique([*range(0, last, stride), last])
    pixel = np.arange(size)
    return jnp.asarray((pixel >= starts[:, None]) & (pixel < starts[:, None] + window))
