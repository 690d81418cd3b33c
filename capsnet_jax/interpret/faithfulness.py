"""Which map tells the truth: pixels deleted or inserted in a map's order, and layers made random one after another."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, Num, PRNGKeyArray

from capsnet_jax.config import ConfigError, check_word
from capsnet_jax.interpret.chunks import map_chunks
from capsnet_jax.interpret.examples import like_pixels
from capsnet_jax.interpret.network import Network
from capsnet_jax.interpret.program import Net, Outputs
from capsnet_jax.interpret.targets import AnyTarget, Target, prepare, score, scores_of
from capsnet_jax.models.forward import Forward

Images = Num[Array | np.ndarray, "batch height width channels"]
Maps = Float[Array | np.ndarray, "batch rows columns ..."]
Fill = str | float | Float[Array | np.ndarray, "..."]

FILLS = ("mean", "blur")
SCORED = 64  # images at a time, whose scores tell whether a layer counts


class Curve(NamedTuple):
    """How a score changes with the pixels that are changed.

    Attributes:
        fractions: of pixels, from 0 to 1.
        scores: of each image.
    """

    fractions: Float[np.ndarray, "points"]
    scores: Float[Array, "batch points"]

    @property
    def areas(self) -> Float[np.ndarray, "batch"]:
        """The area under each image's curve, by the trapezoidal rule."""
        return np.trapezoid(np.asarray(self.scores), self.fractions, axis=1)


class Cascade(NamedTuple):
    """How like the trained net's maps are those of a net whose last layers are random.

    Attributes:
        layers: in the order in which they were made random, the last layer of the net first.
        absolute: rank correlation of the sizes of two maps' pixels, after each of these steps.
        signed: rank correlation of two maps.
    """

    layers: list[str]
    absolute: Float[np.ndarray, "layers batch"]
    signed: Float[np.ndarray, "layers batch"]


def deletion_curve(
    net: Net,
    images: Images,
    maps: Maps,
    target: AnyTarget = None,
    *,
    key: PRNGKeyArray,
    steps: int = 28,
    fill: Fill = "mean",
    chunk: int = 64,
) -> Curve:
    """Replace the pixels that a map calls most important first, and follow the score: the faster it falls, the better.

    A class's score is its probability: the softmax of its logit, or the share of its capsule's length in the lengths
    of all class capsules. Any other target is its own score.

    Args:
        net: a function of images to {name: array}.
        images: pixels in [0, 1], or bytes.
        maps: the greater, the more important; channels are added up.
        target: a class, one class an image, or another target; None: the class that the net itself chooses.
        key: of the order of equal pixels.
        steps: in how many steps all pixels are replaced.
        fill: what pixels are replaced by: "mean", of each channel of the image, which is RISE's grey; "blur", see
            `blurred`; or a number or array that fits the images.
        chunk: images at a time.

    Source: Samek et al. 2017 (arXiv:1509.06321); RISE, Petsiuk, Das and Saenko 2018 (arXiv:1806.07421).
    """
    net, images, target = _prepare(net, images, target)
    replaced = _fill(images, fill)
    return _curve(net, images, replaced, _ranks(key, images, maps), target, steps, chunk)


def insertion_curve(
    net: Net,
    images: Images,
    maps: Maps,
    target: AnyTarget = None,
    *,
    key: PRNGKeyArray,
    steps: int = 28,
    fill: Fill = "blur",
    chunk: int = 64,
) -> Curve:
    """Put back the most important pixels first, from an image without them: the faster the score rises, the better.

    Arguments are those of `deletion_curve`. RISE begins with a blurred image, as single pixels on a plain ground make
    shapes of their own.
    """
    net, images, target = _prepare(net, images, target)
    start = _fill(images, fill)
    return _curve(net, start, images, _ranks(key, images, maps), target, steps, chunk)


def blurred(
    images: Float[Array, "batch height width channels"], sigma: float | None = None
) -> Float[Array, "batch height width channels"]:
    """Return images blurred by a Gaussian of σ pixels, cut at the borders.

    None: an eighth of the shorter side, 28 pixels at 224. RISE's 5 pixels at 224 would leave a digit of 28 legible.
    """
    sigma = min(images.shape[1:3]) / 8 if sigma is None else sigma

    def weights(size: int) -> Array:
        distance = np.subtract.outer(np.arange(size), np.arange(size))
        return jax.nn.softmax(jnp.asarray(-((distance / sigma) ** 2) / 2, jnp.float32), axis=1)

    return jnp.einsum("nyxc,ay,bx->nabc", images, *map(weights, images.shape[1:3]))


def randomization_cascade(
    net: Any, method: Callable[[Any, Images], Maps], images: Images, *, key: PRNGKeyArray
) -> Cascade:
    """Draw a net's layers anew, from the last to the first, and compare each net's maps with the trained net's.

    A map that stays as it is does not tell of what the net has learned. Layers are those of the parameters' first
    level, each with its parameters and running statistics. A layer that the classes' scores do not depend on, as a
    decoder, is left out.

    Args:
        net: a Network, or a `models.forward.Forward`.
        method: (net, images) → maps, of the same targets each time.
        images: pixels in [0, 1], or bytes.
        key: of the fresh parameters.

    Source: Adebayo et al. 2018 (arXiv:1810.03292), cascading randomisation, with Spearman's rank correlation.
    """
    forward = getattr(net, "forward", net)
    if not isinstance(forward, Forward):
        raise ConfigError("only a Network or a Forward has layers to draw anew; make one by models.forward.from_flax")
    pixels = prepare(forward, images)[1]
    fresh = _fresh(forward.module, key, pixels[:1])
    trained, scores = method(net, images), _scores(forward, pixels)
    layers, absolute, signed = [], [], []
    for layer in reversed(_layers(forward, pixels)):
        variables = {
            name: held | {layer: fresh[name][layer]} if layer in held else held
            for name, held in forward.variables.items()
        }
        forward, before = dataclasses.replace(forward, variables=variables), scores
        scores = _scores(forward, pixels)
        if jnp.array_equal(scores, before):
            continue
        maps = method(_with(net, forward), images)
        layers.append(layer)
        absolute.append(rank_correlation(_summed(np.abs(trained)), _summed(np.abs(maps))))
        signed.append(rank_correlation(_summed(trained), _summed(maps)))
    return Cascade(layers, np.stack(absolute), np.stack(signed))


def rank_correlation(
    a: Float[Array | np.ndarray, "batch height width"], b: Float[Array | np.ndarray, "batch height width"]
) -> Float[np.ndarray, "batch"]:
    """Return Spearman's rank correlation of two maps of each image; 0 where one is constant, as it has no order."""
    from scipy.stats import rankdata  # takes a second

    ranks = [rankdata(np.asarray(x).reshape(len(x), -1), axis=1) for x in (a, b)]
    left, right = (x - x.mean(axis=1, keepdims=True) for x in ranks)
    norm = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.sum(left * right, axis=1) / np.where(norm > 0, norm, np.inf)


def _prepare(net: Net, images: Images, target: AnyTarget) -> tuple[Any, Array, Target]:
    """Prepare a method's arguments, with a probability in place of a class's score."""
    net, images, prepared = prepare(net, images, target)
    is_class = not callable(target) and prepared.index.shape[-1]
    return net, images, dataclasses.replace(prepared, score=_probability) if is_class else prepared


def _probability(outputs: Outputs, _: Any, index: Array) -> Array:
    scores = scores_of(outputs)
    if scores is outputs.get("lengths"):
        shares = scores / jnp.maximum(scores.sum(axis=-1, keepdims=True), 1e-12)
    else:
        shares = jax.nn.softmax(scores)
    return jnp.take_along_axis(shares, index, axis=-1)[:, 0]


def _fill(images: Array, fill: Fill) -> Array:
    if isinstance(fill, str):
        check_word("fill", fill, FILLS)
        fill = images.mean(axis=(1, 2), keepdims=True) if fill == "mean" else blurred(images)
    return jnp.broadcast_to(like_pixels(fill, images), images.shape)


def _ranks(key: PRNGKeyArray, images: Array, maps: Maps) -> Int[Array, "batch height width"]:
    """Return the numbers of each image's pixels from the most important one on; equal ones at random."""
    if maps.shape[:3] != images.shape[:3]:
        raise ConfigError(f"maps are {list(maps.shape)}; images of {list(images.shape)} need a value for each pixel")
    values = jnp.asarray(_summed(maps)).reshape(len(maps), -1)
    noise = jax.random.uniform(key, values.shape)
    order = jnp.lexsort((noise, -jnp.nan_to_num(values)), axis=-1)
    return jnp.argsort(order, axis=-1).reshape(images.shape[:3])


def _curve(net: Any, start: Array, end: Array, ranks: Array, target: Target, steps: int, chunk: int) -> Curve:
    pixels = ranks[0].size
    counts = np.round(np.linspace(0, pixels, steps + 1)).astype(int)
    return Curve(counts / pixels, _follow(net, start, end, ranks, target, jnp.asarray(counts), chunk=chunk))


@partial(jax.jit, static_argnames="chunk")
def _follow(
    net: Any, start: Array, end: Array, ranks: Array, target: Target, counts: Array, *, chunk: int
) -> Float[Array, "batch points"]:
    """Score every image with so many pixels of `end`, the first ones in rank, and the others of `start`."""

    def evaluate(image: Array, point: Array) -> Array:
        changed = ranks[image] < counts[point][:, None, None]
        return score(net, target.of_images(image), jnp.where(changed[..., None], end[image], start[image]))

    return map_chunks(evaluate, len(start), len(counts), chunk)


def _summed(maps: Maps) -> Float[Array | np.ndarray, "batch height width"]:
    return maps if maps.ndim == 3 else maps.sum(axis=-1)


@partial(jax.jit, static_argnames="module")
def _fresh(module: nn.Module, key: PRNGKeyArray, images: Array) -> Any:
    return module.init(key, images)


@jax.jit
def _scores(forward: Forward, images: Array) -> Array:
    return map_chunks(lambda which, _: scores_of(forward(images[which])), len(images), 1, SCORED)[:, 0]


def _layers(forward: Forward, images: Array) -> list[str]:
    """Return the parameters' first level in the order in which the net runs its layers."""
    found: dict[str, None] = {}

    def note(call: Any, arguments: Any, keywords: Any, context: nn.module.InterceptorContext) -> Any:
        found.update(dict.fromkeys(context.module.path[:1]))
        return call(*arguments, **keywords)

    with nn.intercept_methods(note):
        jax.eval_shape(forward, images)
    return [layer for layer in found if layer in forward.variables["params"]]


def _with(net: Any, forward: Forward) -> Any:
    """Return a net with other parameters."""
    if not isinstance(net, Network):
        return forward
    return dataclasses.replace(net, params=forward.variables["params"], stats=forward.variables["batch_stats"])
