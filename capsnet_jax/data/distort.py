"""Distortions of known size, to measure invariance: shifts, rotations, scales, shears, elastic distortions.

Unlike in augmentation, every image of a batch is distorted by the same amount. Pixels are interpolated linearly, and
pixels that come from outside the image are zero.
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
    """Move, rotate, scale or shear images about their centre. The order is scale, shear, rotation, shift.

    Args:
        images: images of any range.
        shift: pixels to the right.
        rotation: degrees, counter-clockwise as seen.
        scale: 2 makes everything twice as large.
        shear: pixels that a row moves to the right, for each pixel that it lies above the centre.
    """
    angle = math.radians(rotation)
    # The inverse map: from a position in the result to its position in the input, with y downwards.
    inverse_rotation = jnp.array(
        [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    )  # rows: y, x
    inverse_shear = jnp.array([[1.0, 0.0], [shear, 1.0]])
    inverse = inverse_shear @ inverse_rotation / scale
    height, width = images.shape[1:3]
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2])[:, None, None]
    positions = _grid(height, width) - centre - jnp.array([0.0, shift])[:, None, None]
    return _sample(images, jnp.einsum("ij,jhw->ihw", inverse, positions) + centre)


def elastic(
    key: PRNGKeyArray, images: Float[Array, "batch height width channels"], *, strength: float, smoothness: float = 4.0
) -> Float[Array, "batch height width channels"]:
    """Warp each image by a smooth random field, a different one for each image.

    Args:
        key: the source of the fields.
        images: images of any range.
        strength: root mean square of each coordinate of the displacement, pixels.
        smoothness: σ of the Gaussian that smooths the field, pixels.

    Source: Simard, Steinkraus and Platt 2003, "Best Practices for Convolutional Neural Networks Applied to Visual
    Document Analysis", section 2. There the field is scaled before it is smoothed, here after.
    """
    batch, height, width, _ = images.shape
    noise = jax.random.normal(key, (batch, 2, height, width))
    field = jnp.einsum("ih,jw,bchw->bcij", _gaussian(height, smoothness), _gaussian(width, smoothness), noise)
    field = strength * field / jnp.sqrt(jnp.mean(field**2, axis=(2, 3), keepdims=True))
    positions = _grid(height, width)
    return jax.vmap(lambda image, offset: _sample(image[None], positions + offset)[0])(images, field)


def _grid(height: int, width: int) -> Array:
    """Return the position (y, x) of every pixel: int[2, height, width]."""
    return jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"))


def _sample(images: Float[Array, "batch height width channels"], positions: Float[Array, "2 height width"]) -> Array:
    """Return the images' values at positions (y, x) between pixels."""

    def sample_channel(channel: Array) -> Array:
        return jax.scipy.ndimage.map_coordinates(channel, list(positions), order=1, mode="constant")

    channels_first = images.transpose(0, 3, 1, 2)
    return jax.vmap(jax.vmap(sample_channel))(channels_first).transpose(0, 2, 3, 1)


def _gaussian(size: int, sigma: float) -> Float[Array, "size size"]:
    """Return a smoothing matrix. Row i holds the weights of a mean around position i."""
    position = jnp.arange(size)
    weights = jnp.exp(-((position[:, None] - position[None]) ** 2) / (2 * sigma**2))
    return weights / jnp.sum(weights, axis=1, keepdims=True)
