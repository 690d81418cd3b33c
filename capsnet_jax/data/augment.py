"""What happens to images on the device, inside jit: gathering a batch, conversion, random shifts."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float32, Int, PRNGKeyArray, Shaped, UInt8

from capsnet_jax.data.dataset import Examples


def take(examples: Examples, indices: Int[Array, " batch"]) -> Examples:
    """Gathers a batch from examples that live on the device.

    Args:
        examples: the split to take from.
        indices: places in the split. As in all of jitted JAX, one out of bounds is clamped, not an error.

    Returns:
        The examples at `indices`, in their order.
    """
    return jax.tree.map(lambda leaf: leaf[indices], examples)


def batch_of(examples: Examples, number: Int[Array, ""], size: int) -> tuple[Examples, Bool[Array, " size"]]:
    """The `number`-th batch of so many examples in their order, and which of them count.

    The last batch is filled up with the last example, which does not count again.
    """
    last = examples.labels.shape[0] - 1
    indices = number * size + jnp.arange(size)
    return take(examples, jnp.minimum(indices, last)), indices <= last


def to_float(images: UInt8[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """Scales bytes to [0, 1].

    Raises:
        TypeError: the images are not uint8, so that they may have been scaled before.
    """
    if images.dtype != jnp.uint8:
        raise TypeError(f"to_float takes uint8 images, not {images.dtype}")
    return images.astype(jnp.float32) / 255


def random_flip(
    key: PRNGKeyArray, images: Shaped[Array, "batch height width channels"]
) -> Shaped[Array, "batch height width channels"]:
    """Mirrors each image left to right with probability ½."""
    flipped = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(flipped, images[:, :, ::-1], images)


def random_shift(
    key: PRNGKeyArray, images: Shaped[Array, "batch height width channels"], pixels: int
) -> Shaped[Array, "batch height width channels"]:
    """Moves each image by its own random number of whole pixels in both directions.

    The augmentation of "Dynamic Routing Between Capsules" (https://arxiv.org/abs/1710.09829, §5), with
    `pixels=2`.

    Args:
        key: the source of the shifts.
        images: of any type; it is kept.
        pixels: the largest shift. Each image's is uniform in [-pixels, pixels], horizontally and vertically
            independent. Static: it sets the shape of the padding. 0 returns the images as they are.

    Returns:
        The moved images. What moves in is zero, what moves out is lost; nothing wraps around.

    Raises:
        ValueError: `pixels` is negative.
    """
    if pixels < 0:
        raise ValueError(f"pixels must not be negative, but is {pixels}")
    if pixels == 0:
        return images
    batch, *shape = images.shape
    margin = (pixels, pixels)
    padded = jnp.pad(images, ((0, 0), margin, margin, (0, 0)))
    corners = jax.random.randint(key, (batch, 2), 0, 2 * pixels + 1)

    def crop(image: Array, corner: Array) -> Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), shape)

    return jax.vmap(crop)(padded, corners)
