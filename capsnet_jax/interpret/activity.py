"""What a layer does: its activations and filters, and what is dead in it."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from capsnet_jax.config import ConfigError, check_word
from capsnet_jax.interpret.dead_units import Activity, CapsuleActivity, by_unit, capsule_sums, channel_sums, lacking
from capsnet_jax.interpret.examples import check_images, to_pixels
from capsnet_jax.interpret.program import Net, check_layer
from capsnet_jax.interpret.targets import as_argument, named_outputs

Images = Num[Array | np.ndarray, "images height width channels"]


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
    parts = [_channel_sums(net, part, layer, count) for part, count in equal_chunks(images, chunk)]
    return _stack(parts).join(len(images))


def capsule_activity(net: Net, images: Images, *, chunk: int = 64) -> dict[str, CapsuleActivity]:
    """Observe what the primary capsules and the class capsules of a CapsNet do over many images.

    Args:
        net: what has "primary" capsules [batch, inputs, dim], their "primary_activations" [batch, inputs], those of the
            class capsules, "lengths" [batch, classes], and "couplings" [batch, inputs, classes] among its outputs.
        images: pixels in [0, 1], or bytes.
        chunk: images at a time.

    Returns:
        {"primary": of those that send, "capsules": of those that get}.

    Raises:
        ConfigError: the net does not route.
    """
    check_images(images)
    net = as_argument(net)
    if missing := lacking(_outputs(net, images)):
        raise ConfigError(f"the net has no {missing[0]}, so no capsules that starve; take a CapsNet that routes")
    parts = [_capsule_sums(net, part, count) for part, count in equal_chunks(images, chunk)]
    return {layer: each.join(len(images)) for layer, each in _stack(parts).items()}


def _stack(parts: list[Any]) -> Any:
    """Stack what is known of each chunk of images."""
    return jax.tree.map(lambda *each: np.stack(each), *parts)


def _outputs(net: Any, images: Images) -> dict[str, Any]:
    """Return the shapes of a net's outputs for one image."""
    shape = jax.ShapeDtypeStruct((1, *images.shape[1:]), jnp.float32)
    return jax.eval_shape(partial(named_outputs, net), shape)


def checked(net: Net, images: Images, layer: str) -> Any:
    """Return a net as an argument of jitted functions.

    Raises:
        ConfigError: there is no such layer, or there are no images.
    """
    check_images(images)
    net = as_argument(net)
    check_layer(layer, _outputs(net, images))
    return net


def equal_chunks(images: Images, chunk: int) -> Iterator[tuple[Images, int]]:
    """Yield images, equally many each time, and how many of them count: the last are filled up with the last one."""
    chunk = max(1, min(chunk, len(images)))
    for start in range(0, len(images), chunk):
        index = np.minimum(np.arange(start, start + chunk), len(images) - 1)
        yield images[index], min(chunk, len(images) - start)


@partial(jax.jit, static_argnames="layer")
def run_layer(net: Any, images: Array, layer: str) -> Array:
    """Return what a layer makes of images, which may be bytes."""
    return named_outputs(net, to_pixels(images))[layer]


@partial(jax.jit, static_argnames="layer")
def _channel_sums(net: Any, images: Array, layer: str, count: Array) -> Activity:
    return channel_sums(by_unit(run_layer(net, images, layer)), jnp.arange(len(images)) < count)


@jax.jit
def _capsule_sums(net: Any, images: Array, count: Array) -> dict[str, CapsuleActivity]:
    return capsule_sums(named_outputs(net, to_pixels(images)), jnp.arange(len(images)) < count)
