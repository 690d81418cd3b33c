"""Distortions of known size, to measure what a network does not mind: shifts, rotations, scales, shears, elastic ones.

Unlike augmentation these are not drawn at random for training: every image of a batch is distorted by the same amount.
Pixels are interpolated linearly, and what comes in from outside is zero.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


def affine(
    images: Float[Array, "batch height width channels"],
    *,
    shift: float = 0.0,
    rotation: float = 0.0,
    scale: float = 1.0,
    shear: float = 0.0,
) -> Float[Array, "batch height width channels"]:
    """Move, turn, stretch or slant pictures about their centre; several at once act as scale, shear, rotation, shift.

    Args:
        images: pictures of any range.
        shift: pixels to the right.
        rotation: degrees, counter-clockwise as seen.
        scale: 2 makes everything twice as large.
        shear: how far a row moves to the right for each pixel that it lies above the centre.
    """
    angle = math.radians(rotation)
    # From a place in the result back to its place in the picture, with y downwards.
    turn = jnp.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])  # rows: y, x
    slant = jnp.array([[1.0, 0.0], [shear, 1.0]])
    back = slant @ turn / scale
    height, width = images.shape[1:3]
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2])[:, None, None]
    places = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")) - centre
    places = places - jnp.array([0.0, shift])[:, None, None]
    return _sample(images, jnp.einsum("ij,jhw->ihw", back, places) + centre)


def elastic(
    key: PRNGKeyArray, images: Float[Array, "batch height width channels"], *, strength: float, smoothness: float = 4.0
) -> Float[Array, "batch height width channels"]:
    """Warp each picture by its own smooth random field.

    Args:
        key: the source of the fields.
        images: pictures of any range.
        strength: root mean square of the displacement, pixels.
        smoothness: σ of the Gaussian that smooths the field, pixels.

    Source: Simard, Steinkraus and Platt 2003, "Best Practices for Convolutional Neural Networks Applied to Visual
    Document Analysis", section 2; there the field is scaled before, here after it is smoothed.
    """
    batch, height, width, _ = images.shape
    noise = jax.random.normal(key, (batch, 2, height, width))
    field = jnp.einsum("ih,jw,bchw->bcij", _gaussian(height, smoothness), _gaussian(width, smoothness), noise)
    field = strength * field / jnp.sqrt(jnp.mean(field**2, axis=(2, 3), keepdims=True))
    places = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"))
    return jax.vmap(lambda image, moved: _sample(image[None], places + moved)[0])(images, field)


def _sample(images: Float[Array, "batch height width channels"], places: Float[Array, "2 height width"]) -> Array:
    """The pictures' values at places (y, x) between pixels."""

    def of_one(plane: Array) -> Array:
        return jax.scipy.ndimage.map_coordinates(plane, list(places), order=1, mode="constant")

    planes = images.transpose(0, 3, 1, 2)
    return jax.vmap(jax.vmap(of_one))(planes).transpose(0, 2, 3, 1)


def _gaussian(size: int, sigma: float) -> Float[Array, "size size"]:
    """Row i: the weights of a mean around i."""
    place = jnp.arange(size)
    weights = jnp.exp(-((place[:, None] - place[None]) ** 2) / (2 * sigma**2))
    return weights / jnp.sum(weights, axis=1, keepdims=True)
