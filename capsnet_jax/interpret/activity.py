"""What a layer does: its activations and filters, and what is dead in it."""

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
from capsnet_jax.interpret.routing_diagnostics import DEAD
from capsnet_jax.interpret.targets import as_argument, named_outputs
from capsnet_jax.ops.squash import length

Images = Num[Array | np.ndarray, "images height width channels"]

NEAR_DEAD = 1e-3  # share of positions
CONSTANT = 1e-6  # the range of activations that say nothing
STARVED = 0.01  # of what a capsule would have if all had as much


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
    net = checked(net, images, layer)
    return jnp.concatenate([run_layer(net, part, layer)[:count] for part, count in equal_chunks(images, chunk)])


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
    net = checked(net, images, layer)
    parts = [_extremes(net, part, layer, count) for part, count in equal_chunks(images, chunk)]
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
    parts = [_capsules(net, part, count) for part, count in equal_chunks(images, chunk)]

    def gather(layer: str) -> CapsuleActivity:
        longest, shares = (np.stack(each) for each in zip(*(part[layer] for part in parts), strict=True))
        return CapsuleActivity(longest.max(axis=0), shares.sum(axis=0) * shares.shape[1] / len(images))

    return {"primary": gather("primary"), "capsules": gather("capsules")}


def _outputs(net: Any, images: Images) -> dict[str, Any]:
    """Return the shapes of a net's outputs for one image."""
    shape = jax.ShapeDtypeStruct((1, *images.shape[1:]), jnp.float32)
    return jax.eval_shape(partial(named_outputs, net), shape)


def checked(net: Net, images: Images, layer: str) -> Any:
    """Return a net as an argument of jitted functions.

    Raises:
        ConfigError: there is no such layer, or there are no images.
    """
    if images.ndim != 4 or not len(images):
        raise ConfigError(f"images are {list(images.shape)}; give at least one, as [batch, height, width, channels]")
    net = as_argument(net)
    check_layer(layer, _outputs(net, images))
    return net


def equal_chunks(images: Images, chunk: int) -> Iterator[tuple[Images, int]]:
    """Yield images, equally many each time, and how many of them count: the last are filled up with the last one."""
    chunk = max(1, min(chunk, len(images)))
    for start in range(0, len(images), chunk):
        index = np.minimum(np.arange(start, start + chunk), len(images) - 1)
        yield images[index], min(chunk, len(images) - start)


def _to_pixels(images: Array) -> Array:
    return to_float(images) if images.dtype == np.uint8 else images


@partial(jax.jit, static_argnames="layer")
def run_layer(net: Any, images: Array, layer: str) -> Array:
    """Return what a layer makes of images, which may be bytes."""
    return named_outputs(net, _to_pixels(images))[layer]


def by_unit(array: Array, by_length: bool) -> Array:
    """Return activations as [images, positions, units]."""
    if array.ndim == 3:
        array = length(array) if by_length else array.reshape(len(array), -1)
    return array.reshape(len(array), -1, array.shape[-1] if array.ndim > 1 else 1)


@partial(jax.jit, static_argnames="layer")
def _extremes(net: Any, images: Array, layer: str, count: Array) -> tuple[Array, Array, Array]:
    """Return for each unit the least, the greatest, and the images' mean share of positions above 0, summed."""
    array = by_unit(run_layer(net, images, layer), by_length=False)
    counts = (jnp.arange(len(array)) < count)[:, None, None]
    low = jnp.min(jnp.where(counts, array, jnp.inf), axis=(0, 1))
    high = jnp.max(jnp.where(counts, array, -jnp.inf), axis=(0, 1))
    return low, high, jnp.sum(counts & (array > 0), axis=(0, 1)) / array.shape[1]


@jax.jit
def _capsules(net: Any, images: Array, count: Array) -> dict[str, tuple[Array, Array]]:
    """Return greatest lengths and summed shares of primary and of class capsules."""
    out = named_outputs(net, _to_pixels(images))
    counts = (jnp.arange(len(images)) < count)[:, None]
    primary, classes = (jnp.where(counts, length(out[name]), 0) for name in ("primary", "capsules"))
    sent = out["couplings"] * primary[:, :, None]
    shares = sent / jnp.maximum(sent.sum(axis=(1, 2), keepdims=True), 1e-9)
    return {
        "primary": (primary.max(axis=0), shares.sum(axis=(0, 2))),
        "capsules": (classes.max(axis=0), shares.sum(axis=(0, 1))),
    }
