"""Heat maps from what happens when parts of an image are hidden."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from capsnet_jax.interpret.chunks import map_chunks, sum_chunks
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

    Source: Zeiler and Fergus 2013 (arXiv:1311.2901), section 4.2.
    """
    net, pixels, target = prepare(net, images, target)
    side = min(pixels.shape[1:3])
    window = window or max(1, round(0.2 * side))
    stride = stride or max(1, round(0.1 * side))
    cover = pixels.mean(axis=(1, 2), keepdims=True) if fill is None else jnp.asarray(fill, pixels.dtype)
    return _occlusion(net, pixels, target, cover, window=window, stride=stride, chunk=chunk)


@partial(jax.jit, static_argnames=("window", "stride", "chunk"))
def _occlusion(net: Any, images: Array, target: Target, cover: Array, *, window: int, stride: int, chunk: int) -> Array:
    rows, columns = (_covered(size, window, stride) for size in images.shape[1:3])  # [positions, pixels]
    cover = jnp.broadcast_to(cover, images.shape)

    def squares(position: Array) -> Array:
        """Return 1 where the square of each position is, [chunk, height, width, 1]."""
        return (rows[position // len(columns), :, None] & columns[position % len(columns), None, :])[..., None]

    def seen(image: Array, pixels: Array) -> Array:
        return score(net, target.of_images(image), pixels)

    plain = map_chunks(lambda image, _: seen(image, images[image]), len(images), 1, chunk)[:, 0]

    def fall(image: Array, position: Array) -> Array:
        hidden = squares(position)
        scores = seen(image, jnp.where(hidden, cover[image], images[image]))
        return (plain[image] - scores).reshape(-1, 1, 1, 1) * hidden

    falls = sum_chunks(fall, len(images), len(rows) * len(columns), chunk)
    times = rows.sum(axis=0)[:, None] * columns.sum(axis=0)[None, :]
    return falls / times[None, :, :, None]


def _covered(size: int, window: int, stride: int) -> Array:
    """Return which of the pixels along one side each position of the square covers, bool[positions, size]."""
    last = max(size - window, 0)
    starts = np.unique([*range(0, last, stride), last])
    pixel = np.arange(size)
    return jnp.asarray((pixel >= starts[:, None]) & (pixel < starts[:, None] + window))
