"""Heat maps from gradients: how much each pixel of an image counts for a target.

All take a network or any function of images to {name: array}, images in [0, 1] or bytes, and a target: a class, one
class an image, a `targets.Target`, a function of the outputs to scores[batch], or None for the class that the net
itself chooses. `chunk` images are evaluated at a time. What they return has the images' shape, and is signed.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num, PRNGKeyArray

from capsnet_jax.interpret.chunks import check_count, map_chunks, sum_chunks
from capsnet_jax.interpret.examples import like_pixels
from capsnet_jax.interpret.program import Net, ReluRule, with_relu_gradient
from capsnet_jax.interpret.targets import AnyTarget, Target, named_outputs, prepare, score

Images = Num[Array | np.ndarray, "batch height width channels"]
Maps = Float[Array, "batch height width channels"]


def gradient(net: Net, images: Images, target: AnyTarget = None, *, chunk: int = 32) -> Maps:
    """Return the gradient of the target by each pixel.

    Source: Simonyan, Vedaldi and Zisserman 2014 (arXiv:1312.6034).
    """
    return _gradient(*prepare(net, images, target), chunk=chunk)


def smooth_grad(
    net: Net,
    images: Images,
    target: AnyTarget = None,
    *,
    key: PRNGKeyArray,
    samples: int = 50,
    sigma: float = 0.15,
    chunk: int = 32,
) -> Maps:
    """Return the mean gradient over images with noise.

    Args:
        net: see this module, as for the other arguments.
        images: the same.
        target: the same.
        key: of the noise; each image and sample has its own, whatever the chunk.
        samples: how many noisy images of each.
        sigma: of the normal noise, relative to the image's greatest value less its least.
        chunk: images at a time.

    Source: Smilkov et al. 2017 (arXiv:1706.03825).
    """
    check_count("samples", samples)
    return _smooth_grad(*prepare(net, images, target), key, sigma, samples=samples, chunk=chunk)


def integrated_gradients(
    net: Net,
    images: Images,
    target: AnyTarget = None,
    *,
    baseline: float | Float[Array | np.ndarray, "..."] = 0.0,
    steps: int = 50,
    chunk: int = 32,
) -> Maps:
    """Return (x − x₀) · ∫₀¹ ∂score(x₀ + α (x − x₀))/∂x dα.

    Summed over pixels, it is the score of the image less that of the baseline (completeness).

    Args:
        net: see this module, as for the other arguments.
        images: the same.
        target: the same; None: the class that the net chooses for the image itself.
        baseline: x₀, a number or what broadcasts to the images; black by default.
        steps: nodes of the Gauss-Legendre quadrature.
        chunk: images at a time.

    Source: Sundararajan, Taly and Yan 2017 (arXiv:1703.01365).
    """
    net, pixels, target = prepare(net, images, target)
    start = jnp.broadcast_to(like_pixels(baseline, pixels), pixels.shape)
    nodes, weights = np.polynomial.legendre.leggauss(check_count("steps", steps))  # over [−1, 1]
    path = jnp.asarray([(nodes + 1) / 2, weights / 2], pixels.dtype)
    return _integrated_gradients(net, pixels, target, start, path, chunk=chunk)


def guided_backprop(net: Net, images: Images, target: AnyTarget = None, *, chunk: int = 32) -> Maps:
    """Return the gradient in which every ReLU passes on only what is positive, where it was on: (g > 0)(x > 0) g.

    It shows edges whatever the net has learned: randomised nets give nearly the same maps (Adebayo et al. 2018).

    Source: Springenberg et al. 2014 (arXiv:1412.6806).
    """
    return _gradient(*prepare(net, images, target), chunk=chunk, rule=_guided)


def deconvnet(net: Net, images: Images, target: AnyTarget = None, *, chunk: int = 32) -> Maps:
    """Return the gradient in which every ReLU passes on what is positive, whether it was on or not: (g > 0) g.

    Source: Zeiler and Fergus 2013 (arXiv:1311.2901).
    """
    return _gradient(*prepare(net, images, target), chunk=chunk, rule=_deconv)


def _guided(x: Array, gradient: Array) -> Array:
    return jnp.where((x > 0) & (gradient > 0), gradient, 0)


def _deconv(x: Array, gradient: Array) -> Array:
    del x  # whether it was on makes no difference
    return jnp.maximum(gradient, 0)


def pixel_gradient(net: Net, target: Target, which: Array, pixels: Array) -> Array:
    """Return the gradient by pixels of the target's score, of those images that `which` counts."""
    chosen = target.of_images(which)
    return jax.grad(lambda x: score(net, chosen, x).sum())(pixels)


def normal_noise(key: Array, image: Array, sample: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return the noise [chunk, …] of these images and samples, the same whatever the chunk."""

    def draw(image: Array, sample: Array) -> Array:
        own = jax.random.fold_in(jax.random.fold_in(key, image), sample)
        return jax.random.normal(own, shape, dtype)

    return jax.vmap(draw)(image, sample)


@partial(jax.jit, static_argnames=("chunk", "rule"))
def _gradient(net: Any, images: Array, target: Target, *, chunk: int, rule: ReluRule | None = None) -> Array:
    ruled = net if rule is None else with_relu_gradient(lambda pixels: named_outputs(net, pixels), rule)

    def evaluate(image: Array, _: Array) -> Array:
        return pixel_gradient(ruled, target, image, images[image])

    return map_chunks(evaluate, len(images), 1, chunk)[:, 0]


@partial(jax.jit, static_argnames=("samples", "chunk"))
def _smooth_grad(
    net: Any, images: Array, target: Target, key: Array, sigma: Array, *, samples: int, chunk: int
) -> Array:
    spread = sigma * jnp.ptp(images, axis=(1, 2, 3), keepdims=True)

    def evaluate(image: Array, sample: Array) -> Array:
        noisy = images[image] + spread[image] * normal_noise(key, image, sample, images.shape[1:], images.dtype)
        return pixel_gradient(net, target, image, noisy)

    return sum_chunks(evaluate, len(images), samples, chunk) / samples


@partial(jax.jit, static_argnames="chunk")
def _integrated_gradients(net: Any, images: Array, target: Target, start: Array, path: Array, *, chunk: int) -> Array:
    nodes, weights = path

    def evaluate(image: Array, step: Array) -> Array:
        alpha, weight = (values[step].reshape(-1, 1, 1, 1) for values in (nodes, weights))
        between = start[image] + alpha * (images[image] - start[image])
        return weight * pixel_gradient(net, target, image, between)

    return (images - start) * sum_chunks(evaluate, len(images), nodes.size, chunk)
