"""What a layer does: its activations and filters, what is dead in it, and the images that activate it most."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from capsnet_jax.config import ConfigError, check_word
from capsnet_jax.data.augment import to_float
from capsnet_jax.interpret.program import Net, check_layer
from capsnet_jax.interpret.receptive_field import ReceptiveField
from capsnet_jax.interpret.routing_diagnostics import DEAD
from capsnet_jax.interpret.targets import as_argument, score
from capsnet_jax.ops.squash import length

Images = Num[Array | np.ndarray, "images height width channels"]

NEAR_DEAD = 1e-3  # share of positions
CONSTANT = 1e-6  # the range of activations that say nothing
STARVED = 0.01  # of what a capsule would have if all had as much
GREY = 0.5


class Activity(NamedTuple):
    """What the units of a layer did over many images; a channel of a layer with positions is one unit.

    Attributes:
        least: the least activation at any position of any image.
        greatest: the greatest.
        active: the share of positions, of all images, with an activation above 0.
    """

    least: Float[np.ndarray, "units"]
    greatest: Float[np.ndarray, "units"]
    active: Float[np.ndarray, "units"]

    @property
    def dead(self) -> Bool[np.ndarray, "units"]:
        """Which units are never above 0; in a layer that goes below 0, which are always the same, to within 1e-6."""
        if (self.least >= 0).all():
            return self.greatest <= 0
        return self.greatest - self.least < CONSTANT

    @property
    def near_dead(self) -> Bool[np.ndarray, "units"]:
        """Which units are above 0 at fewer than 0.1 % of positions, and not dead; none in a layer that goes below 0."""
        return (self.least >= 0).all() & (self.active < NEAR_DEAD) & ~self.dead


class CapsuleActivity(NamedTuple):
    """What the capsules of a layer did over many images.

    Attributes:
        longest: the greatest length in any image.
        share: its mean share of what is sent between the two layers of capsules, Σ c_io |u_i|, times the number of
            capsules: 1 where all have as much.
    """

    longest: Float[np.ndarray, "capsules"]
    share: Float[np.ndarray, "capsules"]

    @property
    def dead(self) -> Bool[np.ndarray, "capsules"]:
        """Which capsules are never longer than 0.1."""
        return self.longest <= DEAD

    @property
    def starved(self) -> Bool[np.ndarray, "capsules"]:
        """Which capsules send, or get, less than 1 % of what they would if all had as much."""
        return self.share < STARVED


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


def activations(net: Net, images: Images, layer: str, *, chunk: int = 64) -> Float[Array, "images ..."]:
    """Return what a layer makes of images.

    Args:
        net: a network, or any function of images to {name: array}.
        images: pixels in [0, 1], or bytes.
        layer: one of the names.
        chunk: images at a time.

    Raises:
        ConfigError: there is no such layer.
    """
    net = _checked(net, images, layer)
    return jnp.concatenate([_layer(net, part, layer)[:count] for part, count in _chunks(images, chunk)])


def strongest_channel(activations: Float[Array, "images height width channels"]) -> Int[Array, "images"]:
    """Return for each image the channel with the greatest activation at any position."""
    return jnp.argmax(jnp.max(activations, axis=(1, 2)), axis=-1)


def filters(net: Any, layer: str) -> Float[Array, "filters height width inputs"]:
    """Return the filters of a convolution, each an image with as many channels as it has inputs.

    Args:
        net: a network, or a Flax module's `Forward`.
        layer: the path of the convolution in the parameters, joined by dots.

    Raises:
        ConfigError: there is no such convolution.
    """
    params = getattr(net, "forward", net).variables["params"]
    kernels = {
        ".".join(key.key for key in path[:-1]): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if leaf.ndim == 4 and path[-1].key == "kernel"
    }
    if not kernels:
        raise ConfigError("the net has no convolution whose filters could be shown")
    check_word("convolution", layer, list(kernels))
    return kernels[layer].transpose(3, 0, 1, 2)


def channel_activity(net: Net, images: Images, layer: str, *, chunk: int = 64) -> Activity:
    """Observe what each channel of a layer does over many images: take 1,000 or more to call one dead.

    Args:
        net: a network, or any function of images to {name: array}.
        images: pixels in [0, 1], or bytes; such as all of a test set.
        layer: one of the names; of capsules [batch, capsules, dim], each dimension is a unit.
        chunk: images at a time.

    Raises:
        ConfigError: there is no such layer.
    """
    net = _checked(net, images, layer)
    parts = [_extremes(net, part, layer, count) for part, count in _chunks(images, chunk)]
    least, greatest, active = (np.stack(each) for each in zip(*parts, strict=True))
    return Activity(least.min(axis=0), greatest.max(axis=0), active.sum(axis=0, dtype=np.float64) / len(images))


def capsule_activity(net: Net, images: Images, *, chunk: int = 64) -> dict[str, CapsuleActivity]:
    """Observe what the primary capsules and the class capsules of a CapsNet do over many images.

    Args:
        net: what has "primary" capsules [batch, inputs, dim], "capsules" [batch, classes, dim] and their "couplings"
            [batch, inputs, classes] among its outputs.
        images: pixels in [0, 1], or bytes.
        chunk: images at a time.

    Returns:
        {"primary": of those that send, "capsules": of those that get}.

    Raises:
        ConfigError: the net does not route.
    """
    names = ("primary", "capsules", "couplings")
    net = as_argument(net)
    outputs = _outputs(net, images)
    if lacking := [name for name in names if outputs.get(name) is None]:
        raise ConfigError(f"the net has no {lacking[0]}, so no capsules that starve; take a CapsNet that routes")
    parts = [_capsules(net, part, count) for part, count in _chunks(images, chunk)]

    def gather(layer: str) -> CapsuleActivity:
        longest, shares = (np.stack(each) for each in zip(*(part[layer] for part in parts), strict=True))
        return CapsuleActivity(longest.max(axis=0), shares.sum(axis=0) * shares.shape[1] / len(images))

    return {"primary": gather("primary"), "capsules": gather("capsules")}


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
    net = _checked(net, images, layer)
    k, start = min(k, len(images)), 0
    shape = (_units(net, images, layer, by_length), k)
    best = jnp.full(shape, -jnp.inf), jnp.zeros(shape, int), jnp.zeros((*shape, 2), int)
    for part, count in _chunks(images, chunk):
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


def _outputs(net: Any, images: Images) -> dict[str, Any]:
    """Return the shapes of a net's outputs for one image."""
    shape = jax.ShapeDtypeStruct((1, *images.shape[1:]), jnp.float32)
    return jax.eval_shape(partial(score, net, dict), shape)


def _checked(net: Net, images: Images, layer: str) -> Any:
    """Return a net as an argument of jitted functions.

    Raises:
        ConfigError: there is no such layer, or there are no images.
    """
    if images.ndim != 4 or not len(images):
        raise ConfigError(f"images are {list(images.shape)}; give at least one, as [batch, height, width, channels]")
    net = as_argument(net)
    check_layer(layer, _outputs(net, images))
    return net


def _chunks(images: Images, chunk: int) -> Iterator[tuple[Images, int]]:
    """Yield images, equally many each time, and how many of them count: the last are filled up with the last one."""
    chunk = max(1, min(chunk, len(images)))
    for start in range(0, len(images), chunk):
        index = np.minimum(np.arange(start, start + chunk), len(images) - 1)
        yield images[index], min(chunk, len(images) - start)


def _to_pixels(images: Array) -> Array:
    return to_float(images) if images.dtype == np.uint8 else images


@partial(jax.jit, static_argnames="layer")
def _layer(net: Any, images: Array, layer: str) -> Array:
    return score(net, lambda outputs: outputs[layer], _to_pixels(images))


def _by_unit(array: Array, by_length: bool) -> Array:
    """Return activations as [images, positions, units]."""
    if array.ndim == 3:
        array = length(array) if by_length else array.reshape(len(array), -1)
    return array.reshape(len(array), -1, array.shape[-1] if array.ndim > 1 else 1)


@partial(jax.jit, static_argnames="layer")
def _extremes(net: Any, images: Array, layer: str, count: Array) -> tuple[Array, Array, Array]:
    """Return for each unit the least, the greatest, and the images' mean share of positions above 0, summed."""
    array = _by_unit(_layer(net, images, layer), by_length=False)
    counts = (jnp.arange(len(array)) < count)[:, None, None]
    low = jnp.min(jnp.where(counts, array, jnp.inf), axis=(0, 1))
    high = jnp.max(jnp.where(counts, array, -jnp.inf), axis=(0, 1))
    return low, high, jnp.sum(counts & (array > 0), axis=(0, 1)) / array.shape[1]


@jax.jit
def _capsules(net: Any, images: Array, count: Array) -> dict[str, tuple[Array, Array]]:
    """Return greatest lengths and summed shares of primary and of class capsules."""
    out = score(net, dict, _to_pixels(images))
    counts = (jnp.arange(len(images)) < count)[:, None]
    primary, classes = (jnp.where(counts, length(out[name]), 0) for name in ("primary", "capsules"))
    sent = out["couplings"] * primary[:, :, None]
    shares = sent / jnp.maximum(sent.sum(axis=(1, 2), keepdims=True), 1e-9)
    return {
        "primary": (primary.max(axis=0), shares.sum(axis=(0, 2))),
        "capsules": (classes.max(axis=0), shares.sum(axis=(0, 1))),
    }


def _units(net: Any, images: Images, layer: str, by_length: bool) -> int:
    """Return the number of a layer's units."""
    return jax.eval_shape(lambda: _by_unit(_layer(net, images[:1], layer), by_length)).shape[-1]


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
    outputs = _layer(net, images, layer)
    columns = outputs.shape[2] if outputs.ndim == 4 else 1
    array = _by_unit(outputs, by_length)
    index, place = jnp.arange(len(array)), jnp.argmax(array, axis=1).T  # [units, chunk]
    values = jnp.where((index < count)[None], jnp.max(array, axis=1).T, -jnp.inf)
    new = values, jnp.broadcast_to(start + index, place.shape), jnp.stack(jnp.divmod(place, columns), axis=-1)
    values, which, positions = (jnp.concatenate(pair, axis=1) for pair in zip(best, new, strict=True))
    values, chosen = jax.lax.top_k(values, best[0].shape[1])
    take = partial(jnp.take_along_axis, axis=1)
    return values, take(which, chosen), take(positions, chosen[..., None])
