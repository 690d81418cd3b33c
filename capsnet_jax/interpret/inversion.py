"""What a layer keeps of an image: another image that gives the same activations."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Num, PRNGKeyArray

from capsnet_jax.interpret.chunks import map_chunks
from capsnet_jax.interpret.image_parameters import draw_spectrum, spectrum_to_values, to_logits
from capsnet_jax.interpret.program import Net
from capsnet_jax.interpret.targets import layer_energy, named_outputs, prepare

FLAT = 4.0  # from where on the sigmoid is

Images = Num[Array | np.ndarray, "batch height width channels"]


class Inversion(NamedTuple):
    """Images made from activations.

    Attributes:
        images: pixels in [0, 1].
        errors: ‖F(x) − F₀‖² / ‖F₀‖² of each: 0 where the activations are the same, 1 for those of nothing.
    """

    images: Float[Array, "batch height width channels"]
    errors: Float[Array, "batch"]


def invert(
    net: Net,
    images: Images,
    layer: str,
    *,
    key: PRNGKeyArray,
    steps: int = 512,
    learning_rate: float = 0.05,
    smoothness: float | None = None,
    chunk: int = 4,
) -> Inversion:
    """Return smooth images that a layer does not tell from the given ones.

    Adam on a spectrum, as in feature visualisation: with pixels as the parameters, as in the source, deep layers gave
    grey images here. The penalty on large pixels, Σx⁶, is on what the sigmoid squashes.

    Args:
        net: a network, or any function of images to {name: array}.
        images: pixels in [0, 1], or bytes.
        layer: whose activations are matched.
        key: the source of the first spectra.
        steps: of Adam.
        learning_rate: of Adam.
        smoothness: weight of the mean squared difference of neighbouring pixels beside the error. None: the deeper
            the layer the more, s / 4 for positions that are s pixels apart, and 1 for a layer without positions.
        chunk: images at a time.

    Raises:
        ConfigError: there is no such layer.

    Source: Mahendran and Vedaldi 2015 (arXiv:1412.0035).
    """
    net, images, _ = prepare(net, images, layer_energy(layer))
    if smoothness is None:
        like = jax.eval_shape(partial(named_outputs, net), images)[layer]
        apart = math.sqrt(math.prod(images.shape[1:3]) / math.prod(like.shape[1:3]))
        smoothness = apart / 4 if like.ndim == 4 else 1.0
    options = {"steps": steps, "learning_rate": learning_rate, "smoothness": smoothness, "chunk": chunk}
    return _invert(net, images, layer, key, **options)


@partial(jax.jit, static_argnames=("layer", "steps", "chunk"))
def _invert(
    net: Any,
    images: Array,
    layer: str,
    key: PRNGKeyArray,
    *,
    steps: int,
    learning_rate: float | Array,
    smoothness: float | Array,
    chunk: int,
) -> Inversion:
    _, height, width, channels = images.shape
    shape = (height, width, channels)
    optimizer = optax.adam(learning_rate)

    def render(spectra: Array) -> Array:
        return jax.vmap(lambda spectrum: to_logits(spectrum_to_values(spectrum, shape)))(spectra)

    def of_images(which: Array, _: Array) -> Inversion:
        wanted = named_outputs(net, images[which])[layer]

        def step(state: Any, _: Array) -> tuple[Any, None]:
            spectra, moments = state

            def loss(spectra: Array) -> Array:
                logits = render(spectra)
                pixels = jax.nn.sigmoid(logits)
                distance = relative_distance(named_outputs(net, pixels)[layer], wanted)
                # Where the sigmoid is flat a pixel that is wrong would stay.
                flat = jnp.mean((logits / FLAT) ** 6, axis=(1, 2, 3))
                return (distance + smoothness * roughness(pixels) + 0.01 * flat).sum()

            updates, moments = optimizer.update(jax.grad(loss)(spectra), moments)
            return (spectra + updates, moments), None

        keys = jax.vmap(partial(jax.random.fold_in, key))(which)
        spectra = jax.vmap(lambda key: draw_spectrum(key, shape))(keys)
        spectra = jax.lax.scan(step, (spectra, optimizer.init(spectra)), jnp.arange(steps))[0][0]
        found = jax.nn.sigmoid(render(spectra))
        return Inversion(found, relative_distance(named_outputs(net, found)[layer], wanted))

    return jax.tree.map(lambda x: x[:, 0], map_chunks(of_images, len(images), 1, chunk))


def relative_distance(activations: Array, wanted: Array) -> Float[Array, "batch"]:
    """Return ‖F − F₀‖² / ‖F₀‖² of each image."""
    axes = tuple(range(1, wanted.ndim))
    return jnp.sum((activations - wanted) ** 2, axes) / jnp.maximum(jnp.sum(wanted**2, axes), 1e-10)


def roughness(images: Float[Array, "batch height width channels"]) -> Float[Array, "batch"]:
    """Return the mean squared difference of neighbouring pixels of each image (total variation with β = 2)."""
    down, right = (jnp.mean(jnp.diff(images, axis=axis) ** 2, axis=(1, 2, 3)) for axis in (1, 2))
    return down + right
