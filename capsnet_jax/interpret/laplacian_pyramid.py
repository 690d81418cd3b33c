"""An image as what each halving of its size loses: details of one size each, which can be made equally strong."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LEVELS = 4
SMALLEST = 1e-10  # of what is divided by: a gradient of zeros stays zeros


def split_bands(image: Float[Array, "height width channels"], levels: int) -> list[Array]:
    """Return an image's Laplacian pyramid: what each halving loses, and what is left, the smallest first."""
    bands = []
    for _level in range(levels):
        height, width, _ = image.shape
        low = resize(image[None], (-(-height // 2), -(-width // 2)))
        bands.append(image - resize(low, (height, width))[0])
        image = low[0]
    return [image, *reversed(bands)]


def merge_bands(bands: list[Array]) -> Float[Array, "height width channels"]:
    """Return the image that `split_bands` split."""
    image, *rest = bands
    for band in rest:
        height, width, _ = band.shape
        image = resize(image[None], (height, width))[0] + band
    return image


def normalize_bands(gradient: Float[Array, "height width channels"]) -> Float[Array, "height width channels"]:
    """Scale every band of the Laplacian pyramid to a root mean square of 1; bands of zeros stay zeros."""
    bands = split_bands(gradient, LEVELS)
    return merge_bands([band / jnp.maximum(jnp.sqrt(jnp.mean(band**2)), SMALLEST) for band in bands])


def resize(images: Array, size: tuple[int, int]) -> Array:
    """Resize linearly between the centres of pixels, smoothed where they become fewer."""
    return jax.image.resize(images, (len(images), *size, images.shape[-1]), "linear")
