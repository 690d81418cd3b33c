"""The image that a target likes best: of a class, a channel, a unit, a capsule, one dimension of a capsule."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PRNGKeyArray

from capsnet_jax.config import ConfigError
from capsnet_jax.interpret.chunks import map_chunks
from capsnet_jax.interpret.image_parameters import (
    Movements,
    Shape,
    background_for,
    draw_spectrum,
    move,
    movements_for,
    spectrum_to_values,
    to_image,
)
from capsnet_jax.interpret.leak import with_leak
from capsnet_jax.interpret.program import Net, Outputs, check_layer
from capsnet_jax.interpret.targets import AnyTarget, Target, named_outputs, prepare, score

Keys = Key[Array, "images"]
Spectra = Float[Array, "images parts height half_width channels"]

RACE = 64  # steps after which the best start shows


class Visualization(NamedTuple):
    """Images made for targets, those of the first target first.

    Attributes:
        images: pixels in [0, 1].
        scores: each image's score at its target, as the net gives it for that very image.
    """

    images: Float[Array, "images height width channels"]
    scores: Float[Array, "images"]


class _Settings(NamedTuple):
    shape: Shape
    steps: int
    learning_rate: float
    fade: float
    background: float
    movements: Movements
    variants: int
    diversity: float
    layer: str | None
    starts: int


def visualize(
    net: Net,
    target: AnyTarget,
    *,
    key: PRNGKeyArray,
    shape: Shape,
    steps: int = 512,
    learning_rate: float = 0.05,
    fade: float = 0.005,
    background: float | None = None,
    movements: Movements | None = None,
    variants: int = 1,
    diversity: float = 0.1,
    layer: str | None = None,
    starts: int = 1,
    chunk: int = 16,
) -> Visualization:
    """Make the image that a target likes best, for each of several targets at once.

    Adam on a spectrum; in every step the image is moved a little. The ReLU of a layer whose channel or unit
    is optimised leaks meanwhile, so that one that is off has a gradient too. Where no ReLU is the last to make a
    layer's array, as of ResNet's blocks and inceptions, none leaks: take a layer inside, or give `starts`.

    Args:
        net: a network, or any function of images to {name: array}.
        target: a class, a `targets.Target`, or a function of the outputs to scores[batch]. An array of classes, or of
            numbers given to a target, is as many targets.
        key: the source of the first spectra and of the movements.
        shape: (height, width, channels) of the images; the net must take them.
        steps: of Adam.
        learning_rate: of Adam.
        fade: the part of what an image shows that is lost in every step, so that what the target does not need goes
            back to the background.
        background: from 0 to 1, what the images begin with, and what lies around them; None: black for small drawings,
            else grey.
        movements: how far images are moved; None: as their size asks for.
        variants: images of each target, kept apart in what `layer` shows.
        diversity: how much this counts beside the score: at 1 their gradients are equally long.
        layer: of positions and channels, in which variants are kept apart; None: the target's.
        starts: images begun for each one, of which the best goes on after some steps. A capsule's length has poor
            maxima that many starts end in: give 8.
        chunk: targets at a time; each is `variants` × `starts` images.

    Raises:
        ConfigError: there is no such layer, unit or class, or variants have no layer to differ in.

    Source: Olah, Mordvintsev and Schubert 2017 (distill.pub/2017/feature-visualization).
    """
    net, images, target = prepare(net, jnp.zeros((_count(target), *shape)), target)
    if variants > 1:
        layer = _layer_to_differ_in(layer or str(target.of), jax.eval_shape(partial(named_outputs, net), images))
    background = background_for(shape) if background is None else background
    movements = movements or movements_for(shape)
    settings = _Settings(shape, steps, learning_rate, fade, background, movements, variants, diversity, layer, starts)
    return _visualize(net, target, key, settings=settings, chunk=chunk)


def _count(target: AnyTarget) -> int:
    """Return how many targets one is."""
    if callable(target) and not isinstance(target, Target):
        return 1
    index = target.index if isinstance(target, Target) else jnp.asarray(target)[..., None]
    return len(index) if index.ndim > 1 else 1


def _layer_to_differ_in(layer: str, outputs: Outputs) -> str:
    """Return the layer; raise a ConfigError if there is none with positions of that name."""
    check_layer(layer, outputs)
    if outputs[layer].ndim != 4:
        raise ConfigError(f"variants are kept apart in a layer with positions; {layer} has none: name another layer")
    return layer


@partial(jax.jit, static_argnames=("settings", "chunk"))
def _visualize(net: Any, targets: Target, key: PRNGKeyArray, *, settings: _Settings, chunk: int) -> Visualization:
    variants, shape = settings.variants, settings.shape

    def of_targets(which: Array, _: Array) -> tuple[Array, Array]:
        target = _repeat(targets.of_images(which), variants)
        # Numbered, so that a target's images do not hang on which others share its chunk.
        numbers = jnp.add.outer(which * variants, jnp.arange(variants)).reshape(-1)
        keys = jax.vmap(partial(jax.random.fold_in, key))(numbers)
        images = _render(_optimise(net, target, keys, settings), settings)
        return images.reshape(-1, variants, *shape), score(net, target, images).reshape(-1, variants)

    images, scores = map_chunks(of_targets, len(targets.index), 1, chunk)
    return Visualization(images.reshape(-1, *shape), scores.reshape(-1))


def _optimise(net: Net, target: Target, keys: Keys, settings: _Settings) -> Spectra:
    """Return the spectrum that is optimised for each key, from the best of its starts."""
    starts = settings.starts
    if starts == 1:
        return _climb(net, target, keys, _draw(keys, settings.shape), settings)
    many, keys = _repeat(target, starts), jax.vmap(lambda key: jax.random.split(key, starts))(keys).reshape(-1)
    spectra = _climb(net, many, keys, _draw(keys, settings.shape), settings._replace(steps=RACE, variants=1))
    scores = score(net, many, _render(spectra, settings)).reshape(-1, starts)
    best = starts * jnp.arange(len(scores)) + jnp.argmax(scores, axis=1)
    return _climb(net, target, keys[best], spectra[best], settings)


def _climb(net: Net, target: Target, keys: Keys, spectra: Spectra, settings: _Settings) -> Spectra:
    """Return the spectra after steps of Adam."""
    variants = settings.variants
    optimizer = optax.adam(settings.learning_rate)
    leaking = with_leak(net, target)
    moved = partial(move, movements=settings.movements, background=settings.background)

    def judge(spectra: Array, keys: Array) -> tuple[Array, Array]:
        outputs = leaking(jax.vmap(moved)(keys, _render(spectra, settings)))
        unlike = -_likeness(outputs[str(settings.layer)], variants) if variants > 1 else jnp.zeros(())
        return target(outputs).sum(), unlike

    def step(state: Any, t: Array) -> tuple[Any, None]:
        spectra, moments = state
        moving = jax.vmap(lambda key: jax.random.fold_in(key, t))(keys)
        _, pull = jax.vjp(lambda spectra: judge(spectra, moving), spectra)
        uphill = _unit_norm(pull((1.0, 0.0))[0])
        if variants > 1:
            uphill += settings.diversity * _unit_norm(pull((0.0, 1.0))[0])
        updates, moments = optimizer.update(-uphill, moments)
        return ((1 - settings.fade) * spectra + updates, moments), None

    return jax.lax.scan(step, (spectra, optimizer.init(spectra)), 1 + jnp.arange(settings.steps))[0][0]


def _draw(keys: Keys, shape: Shape) -> Spectra:
    return jax.vmap(lambda key: draw_spectrum(jax.random.fold_in(key, 0), shape))(keys)


def _render(spectra: Spectra, settings: _Settings) -> Float[Array, "images height width channels"]:
    def render(spectrum: Array) -> Array:
        return to_image(spectrum_to_values(spectrum, settings.shape), settings.background)

    return jax.vmap(render)(spectra)


def _repeat(target: Target, times: int) -> Target:
    return jax.tree.map(lambda index: jnp.repeat(index, times, axis=0), target)


def _likeness(activations: Float[Array, "images height width channels"], variants: int) -> Float[Array, ""]:
    """Return the cosines between the Gram matrices of every two variants of a target, summed."""
    _, height, width, channels = activations.shape
    flat = activations.reshape(-1, variants, height * width, channels)
    grams = jnp.einsum("tvpc,tvpd->tvcd", flat, flat).reshape(len(flat), variants, -1)
    grams = _unit_norm(grams.reshape(-1, channels**2)).reshape(grams.shape)
    return jnp.einsum("tvg,twg->", grams, grams) - jnp.sum(grams**2)


def _unit_norm(arrays: Float[Array, "batch *rest"]) -> Float[Array, "batch *rest"]:
    """Return arrays over their norms, one for each of the batch; zeros stay zeros.

    So a score of any scale, and a squash that lets little through, gives steps of the same size.
    """
    largest = jnp.abs(arrays).max(axis=tuple(range(1, arrays.ndim)), keepdims=True)
    scaled = arrays / jnp.where(largest > 0, largest, 1)  # squares of small numbers would be zero
    squares = jnp.sum(scaled**2, axis=tuple(range(1, arrays.ndim)), keepdims=True)  # at least 1, unless all are zeros
    return scaled / jnp.sqrt(jnp.maximum(squares, 1))
