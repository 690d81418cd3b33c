"""The images of a data set that activate each unit of a layer most, and what of them it sees."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from capsnet_jax.interpret.activity import Images, checked, equal_chunks, run_layer
from capsnet_jax.interpret.dead_units import by_unit
from capsnet_jax.interpret.program import Net
from capsnet_jax.interpret.receptive_fields import ReceptiveField

GREY = 0.5  # outside of an image


class TopImages(NamedTuple):
    """The images that activate each unit most, the first most of all.

    Attributes:
        values: the activations, at the position where they are greatest.
        images: which images.
        positions: (row, column) in the layer; 0 of a layer without positions.
    """

    values: Float[np.ndarray, "units k"]
    images: Int[np.ndarray, "units k"]
    positions: Int[np.ndarray, "units k 2"]


def top_images(
    net: Net, images: Images, layer: str, k: int = 9, *, by_length: bool = True, chunk: int = 64
) -> TopImages:
    """Find the images that activate each unit of a layer most, of all units in one pass over the images.

    A channel of a layer with positions counts where it is greatest. Of equals, the first images are taken.

    Args:
        net: a network, or any function of images to {name: array}.
        images: pixels in [0, 1], or bytes; such as all of a test set.
        layer: one of the names, such as a convolution's, "logits", or "capsules".
        k: images of each unit; all, where there are fewer.
        by_length: whether a capsule of a layer [batch, capsules, dim] is one unit, which counts by its length; or
            each of its dimensions is: unit capsule · dim + d.
        chunk: images at a time.

    Raises:
        ConfigError: there is no such layer.
    """
    net = checked(net, images, layer)
    k, start = min(k, len(images)), 0
    shape = (_units(net, images, layer, by_length), k)
    best = jnp.full(shape, -jnp.inf), jnp.zeros(shape, int), jnp.zeros((*shape, 2), int)
    for part, count in equal_chunks(images, chunk):
        best = _merge(net, part, best, start, count, layer=layer, by_length=by_length)
        start += count
    return TopImages(*map(np.asarray, best))


def crop_receptive_field(
    images: Images, positions: Int[Array | np.ndarray, "images 2"], field: ReceptiveField
) -> Num[np.ndarray, "images rows columns channels"]:
    """Cut out of each image what a position of a layer sees of it; grey where that is outside of the image.

    Args:
        images: pixels in [0, 1], or bytes.
        positions: (row, column) in the layer, one an image.
        field: of the layer. Along an axis where it is as large as the image or larger, nothing is cut off.
    """
    images = np.asarray(images)
    grey = 127 if images.dtype == np.uint8 else GREY
    crops = images
    for axis, position in zip((1, 2), np.asarray(positions).T, strict=True):
        side, size = images.shape[axis], field.size[axis - 1]
        if size >= side:
            continue
        pixels = field.start[axis - 1] + field.stride[axis - 1] * position[:, None] + np.arange(size)
        pixels, inside = (np.expand_dims(x, (3 - axis, 3)) for x in (pixels, (pixels >= 0) & (pixels < side)))
        crops = np.where(inside, np.take_along_axis(crops, np.clip(pixels, 0, side - 1), axis), grey)
    return crops.astype(images.dtype)


def _units(net: Any, images: Images, layer: str, by_length: bool) -> int:
    """Return the number of a layer's units."""
    return jax.eval_shape(lambda: by_unit(run_layer(net, images[:1], layer), by_length)).shape[-1]


@partial(jax.jit, static_argnames=("layer", "by_length"))
def _merge(
    net: Any,
    images: Array,
    best: tuple[Array, Array, Array],
    start: Array,
    count: Array,
    *,
    layer: str,
    by_length: bool,
) -> tuple[Array, Array, Array]:
    """Return the best images of each unit, of the best until now and of a chunk that begins with image `start`."""
    outputs = run_layer(net, images, layer)
    columns = outputs.shape[2] if outputs.ndim == 4 else 1
    array = by_unit(outputs, by_length)
    index, place = jnp.arange(len(array)), jnp.argmax(array, axis=1).T  # [units, chunk]
    values = jnp.where((index < count)[None], jnp.max(array, axis=1).T, -jnp.inf)
    new = values, jnp.broadcast_to(start + index, place.shape), jnp.stack(jnp.divmod(place, columns), axis=-1)
    values, which, positions = (jnp.concatenate(pair, axis=1) for pair in zip(best, new, strict=True))
    values, chosen = jax.lax.top_k(values, best[0].shape[1])
    take = partial(jnp.take_along_axis, axis=1)
    return values, take(which, chosen), take(positions, chosen[..., None])
