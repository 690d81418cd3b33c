"""Deep dream: a photograph, or noise, changed until a net sees more of what it saw a little of."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num, PRNGKeyArray

from capsnet_jax.config import ConfigError
from capsnet_jax.interpret.chunks import map_chunks
from capsnet_jax.interpret.laplacian_pyramid import SMALLEST, normalize_bands, resize
from capsnet_jax.interpret.leak import with_leak
from capsnet_jax.interpret.program import Net
from capsnet_jax.interpret.targets import AnyTarget, Target, layer_energy, prepare

Images = Num[Array | np.ndarray, "batch height width channels"]
Dreams = Float[Array, "batch height width channels"]
Normalize = Callable[[Float[Array, "height width channels"]], Float[Array, "height width channels"]]

BYTE = 1 / 255  # steps are given in units of the 255 levels of a byte, as in the sources
CONTRAST = 0.1  # standard deviation of a dream from noise


def deep_dream(
    net: Net,
    images: Images,
    target: AnyTarget | str = None,
    *,
    key: PRNGKeyArray,
    octaves: int = 4,
    octave_scale: float = 1.4,
    steps: int = 10,
    step_size: float = 1.5,
    jitter: int = 32,
    chunk: int = 4,
) -> Dreams:
    """Return photographs in which a net sees more of a target: first of what is large, then of what is small.

    Args:
        net: a network, or any function of images to {name: array}; it must take images of every octave's size.
        images: pixels in [0, 1], or bytes; of any size.
        target: a layer's name: the mean of its squared activations; or as in `targets`.
        key: the source of the jitter.
        octaves: sizes that are dreamt at, the images' own the last.
        octave_scale: ratio of one size to the size before.
        steps: at each size.
        step_size: mean change of a pixel in a step, in levels of 0 … 255.
        jitter: by how many pixels an image is rolled at most, another way in each step.
        chunk: images at a time.

    Raises:
        ConfigError: there is no such layer, unit or class, or the net does not take the small sizes.

    Source: Mordvintsev, Olah and Tyka 2015, github.com/google/deepdream (dream.ipynb).
    """
    net, images, target = prepare(net, images, layer_energy(target) if isinstance(target, str) else target)
    sizes = _octaves(net, images, octaves, octave_scale)
    climb = partial(_climb, net, target, steps=steps, jitter=jitter, normalize=_by_mean, chunk=chunk)
    detail = jnp.zeros_like(images)
    for size, octave_key in zip(sizes, jax.random.split(key, octaves), strict=True):
        base = resize(images, size)
        dream = climb(base + resize(detail, size), octave_key, step=step_size * BYTE)
        detail = dream - base
    return dream


def dream_from_noise(
    net: Net,
    target: AnyTarget | str,
    *,
    key: PRNGKeyArray,
    shape: tuple[int, int, int],
    octaves: int = 3,
    octave_scale: float = 1.4,
    steps: int = 10,
    step_size: float = 1.0,
    jitter: int = 32,
) -> Dreams:
    """Return an image that a net dreams up from noise; all frequencies of the gradient are made equally strong.

    Args:
        net: a network, or any function of images to {name: array}; it must take images of every octave's size.
        target: a layer's name: the mean of its squared activations; or as in `targets`.
        key: the source of noise and jitter.
        shape: (height, width, channels) of the image.
        octaves: sizes that are dreamt at, `shape` the last.
        octave_scale: ratio of one size to the size before.
        steps: at each size.
        step_size: standard deviation of a frequency band's change in a step, in levels of 0 … 255.
        jitter: by how many pixels an image is rolled at most, another way in each step.

    Returns:
        One image [1, height, width, channels] of mean ½ and standard deviation 0.1, cut to [0, 1].

    Raises:
        ConfigError: there is no such layer, unit or class, or the net does not take the small sizes.

    Source: Mordvintsev 2016, TensorFlow's examples/tutorials/deepdream.
    """
    key, noise = jax.random.split(key)
    grey = jnp.full((1, *shape), 100 * BYTE)
    net, grey, target = prepare(net, grey, layer_energy(target) if isinstance(target, str) else target)
    sizes = _octaves(net, grey, octaves, octave_scale)
    climb = partial(_climb, net, target, steps=steps, jitter=jitter, normalize=normalize_bands, chunk=1)
    dream = resize(grey, sizes[0])
    dream += BYTE * jax.random.uniform(noise, dream.shape)
    for size, octave_key in zip(sizes, jax.random.split(key, octaves), strict=True):
        dream = climb(resize(dream, size), octave_key, step=step_size * BYTE)
    centred = dream - dream.mean()
    return jnp.clip(0.5 + CONTRAST * centred / jnp.maximum(centred.std(), SMALLEST), 0, 1)


def _by_mean(gradient: Array) -> Array:
    return gradient / jnp.maximum(jnp.abs(gradient).mean(), SMALLEST)


@partial(jax.jit, static_argnames=("steps", "jitter", "normalize", "chunk"))
def _climb(
    net: Any,
    targets: Target,
    images: Array,
    key: PRNGKeyArray,
    *,
    step: float | Array,
    steps: int,
    jitter: int,
    normalize: Normalize,
    chunk: int,
) -> Array:
    """Return the images after steps along the normalised gradient."""

    def of_images(which: Array, _: Array) -> Array:
        target = targets.of_images(which)
        leaking = with_leak(net, target)  # so that a channel that sees nothing at first begins to

        def one_step(dreams: Array, step_key: PRNGKeyArray) -> tuple[Array, None]:
            shift = jax.random.randint(step_key, (2,), -jitter, jitter + 1)
            rolled = jnp.roll(dreams, shift, axis=(1, 2))
            gradients = jax.grad(lambda pixels: target(leaking(pixels)).sum())(rolled)
            rolled += step * jax.vmap(normalize)(gradients)
            return jnp.clip(jnp.roll(rolled, -shift, axis=(1, 2)), 0, 1), None

        return jax.lax.scan(one_step, images[which], jax.random.split(key, steps))[0]

    return map_chunks(of_images, len(images), 1, chunk)[:, 0]


def _octaves(net: Any, images: Array, octaves: int, scale: float) -> list[tuple[int, int]]:
    """Return the sizes to dream at, the smallest first.

    Raises:
        ConfigError: the net does not take images of the smallest.
    """
    _, height, width, channels = images.shape
    factors = [scale**-octave for octave in reversed(range(octaves))]
    sizes = [(math.ceil(height * factor), math.ceil(width * factor)) for factor in factors]
    if error := refusal(net, (*sizes[0], channels), images.dtype):
        size = "×".join(map(str, sizes[0]))
        raise ConfigError(
            f"the net takes no images of {size}, the smallest of {octaves} octaves; give fewer"
        ) from error
    return sizes


def refusal(net: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Exception | None:
    """Return what a net raises when it is given images of (height, width, channels); None if it takes them."""
    try:
        jax.eval_shape(net, jax.ShapeDtypeStruct((1, *shape), dtype))
    except Exception as error:  # a net may raise anything
        return error
    return None
