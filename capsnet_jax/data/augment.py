"""What happens to examples on the device, inside jit: batches, conversion to floats, random shifts, turns and flips."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float32, Int, Int32, PRNGKeyArray, PyTree, Shaped, UInt8

from capsnet_jax.data.arrays import Examples


def gather(examples: Examples, indices: Int[Array, " batch"]) -> Examples:
    """Gather a batch from examples that lie on the device.

    Args:
        examples: the split that the batch is of.
        indices: positions in the split. As in all of jitted JAX, one out of bounds is clamped and no error.

    Returns:
        The examples at `indices`, in their order.
    """
    return jax.tree.map(lambda leaf: leaf[indices], examples)


def gather_shifted(examples: Examples, records: Int[Array, " batch"], max_shift: int, background: int = 0) -> Examples:
    """Gather a batch from a file that has every image once for each of its shifts, one behind the other.

    Args:
        examples: the split that the file is of.
        records: positions in the file. Record r is image r // n moved by shift r mod n. There are
          n = (2 · `max_shift` + 1)² shifts, row by row.
        max_shift: the largest shift, pixels.
        background: what moves in.
    """
    side = 2 * max_shift + 1
    batch, turn = gather(examples, records // side**2), records % side**2
    moves = jnp.stack([turn // side, turn % side], axis=1) - max_shift
    return batch._replace(images=shift(batch.images, moves, max_shift, background))


def batch_of(examples: Examples, index: Int[Array, ""], size: int) -> tuple[Examples, Bool[Array, " size"]]:
    """Return one of the batches that the examples form in their order.

    The last batch is filled up with copies of the last example.

    Args:
        examples: the split that the batch is of.
        index: which batch, from 0.
        size: number of examples of a batch. Static: it sets the shapes.

    Returns:
        The batch, and for each of its examples whether it counts: copies do not.
    """
    last = examples.labels.shape[0] - 1
    indices = index * size + jnp.arange(size)
    return gather(examples, jnp.minimum(indices, last)), indices <= last


def map_batches(
    function: Callable[[Examples, Bool[Array, " size"]], Any], examples: Examples, size: int
) -> PyTree[Shaped[Array, "batches ..."]]:
    """Apply a function to each batch of the examples, one after the other, and stack what it returns.

    Args:
        function: of a batch, and of which of its examples count, as `batch_of` returns them.
        examples: at least one.
        size: number of examples of a batch.
    """
    batches = -(-examples.labels.shape[0] // size)
    return jax.lax.map(lambda index: function(*batch_of(examples, index, size)), jnp.arange(batches))


def to_float(images: UInt8[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """Scale bytes to [0, 1].

    Raises:
        TypeError: the images are not uint8. They may have been scaled before.
    """
    if images.dtype != jnp.uint8:
        raise TypeError(f"to_float takes uint8 images, not {images.dtype}")
    return images.astype(jnp.float32) / 255


def to_targets(
    labels: Int32[Array, " batch"] | UInt8[Array, "batch classes"], classes: int
) -> Float32[Array, "batch classes"]:
    """Convert labels of either kind to targets: 1 for each class that an image shows, else 0.

    Args:
        labels: class numbers, which become one-hot rows, or multi-hot rows.
        classes: number of classes. Static: it sets the shape.

    Raises:
        ValueError: multi-hot labels are of another number of classes.
    """
    if labels.ndim == 1:
        return jax.nn.one_hot(labels, classes, dtype=jnp.float32)
    if labels.shape[-1] != classes:
        raise ValueError(f"multi-hot labels of {labels.shape[-1]} classes, where there are {classes}")
    return labels.astype(jnp.float32)


def augment(
    key: PRNGKeyArray,
    images: UInt8[Array, "batch height width channels"],
    *,
    max_shift: int,
    max_rotation: float,
    flip: bool,
    background: int = 0,
) -> UInt8[Array, "batch height width channels"]:
    """Turn, move and mirror each image at random, as far as that is asked for; `background` moves in."""
    images = random_rotation(jax.random.fold_in(key, 2), images, max_rotation, background)
    images = random_shift(key, images, max_shift, background)
    return random_flip(jax.random.fold_in(key, 1), images) if flip else images


def random_flip(
    key: PRNGKeyArray, images: Shaped[Array, "batch height width channels"]
) -> Shaped[Array, "batch height width channels"]:
    """Mirror each image left to right with probability ½."""
    flipped = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(flipped, images[:, :, ::-1], images)


def random_shift(
    key: PRNGKeyArray, images: Shaped[Array, "batch height width channels"], max_shift: int, background: int = 0
) -> Shaped[Array, "batch height width channels"]:
    """Move each image by a random number of whole pixels in both directions.

    The augmentation of "Dynamic Routing Between Capsules" (https://arxiv.org/abs/1710.09829, §5), with
    `max_shift=2`.

    Args:
        key: the source of the shifts.
        images: of any type, which does not change.
        max_shift: the largest shift, pixels. Each image has a horizontal and a vertical shift, which are independent
            and uniform in [-max_shift, max_shift]. Static: it sets the shape of the padding. 0 returns the images as
            they are.
        background: the value of pixels that move in.

    Returns:
        The moved images. Pixels that move out are lost; nothing wraps around.

    Raises:
        ValueError: `max_shift` is negative.
    """
    if max_shift < 0:
        raise ValueError(f"max_shift must not be negative, but is {max_shift}")
    if max_shift == 0:
        return images
    moves = max_shift - jax.random.randint(key, (len(images), 2), 0, 2 * max_shift + 1)
    return shift(images, moves, max_shift, background)


def shift(
    images: Shaped[Array, "batch height width channels"],
    shifts: Int[Array, "batch 2"],
    max_shift: int,
    background: int = 0,
) -> Shaped[Array, "batch height width channels"]:
    """Move each image by whole pixels (down, right), each of at most `max_shift`; `background` moves in."""
    margin = (max_shift, max_shift)
    padded = jnp.pad(images, ((0, 0), margin, margin, (0, 0)), constant_values=background)

    def crop(image: Array, move: Array) -> Array:
        return jax.lax.dynamic_slice(image, (max_shift - move[0], max_shift - move[1], 0), images.shape[1:])

    return jax.vmap(crop)(padded, shifts)


def random_rotation(
    key: PRNGKeyArray, images: UInt8[Array, "batch height width channels"], max_rotation: float, background: int = 0
) -> UInt8[Array, "batch height width channels"]:
    """Turn each image about its centre by a random angle, uniform in [-max_rotation, max_rotation] degrees.

    Pixels are interpolated bilinearly and rounded; those from outside the image are `background`. `max_rotation` is
    static: 0 returns the images as they are.
    """
    if max_rotation == 0:
        return images
    angles = jax.random.uniform(key, (len(images),), minval=-max_rotation, maxval=max_rotation)
    return rotate(images, jnp.deg2rad(angles), background)


def rotate(
    images: UInt8[Array, "batch height width channels"], angles: Float32[Array, "batch"], background: int = 0
) -> UInt8[Array, "batch height width channels"]:
    """Turn each image about its centre by its angle in radians, counter-clockwise as seen."""
    height, width = images.shape[1:3]
    y = (jnp.arange(height) - (height - 1) / 2)[None, :, None]
    x = (jnp.arange(width) - (width - 1) / 2)[None, None, :]
    cos, sin = (f(angles)[:, None, None] for f in (jnp.cos, jnp.sin))
    # The pixel at (y, x) was at (y cos + x sin, x cos − y sin) before, with y downwards; a border is around.
    rows = jnp.clip(y * cos + x * sin + (height + 1) / 2, 0, height + 1)
    columns = jnp.clip(x * cos - y * sin + (width + 1) / 2, 0, width + 1)
    top, left = (jnp.minimum(jnp.floor(at).astype(jnp.int32), size) for at, size in ((rows, height), (columns, width)))
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=background)

    def at(down: int, right: int) -> Array:
        return jax.vmap(lambda image, i, j: image[i + down, j + right])(padded, top, left).astype(jnp.float32)

    above = at(0, 0) * (1 - right) + at(0, 1) * right
    below = at(1, 0) * (1 - right) + at(1, 1) * right
    return jnp.round(above * (1 - down) + below * down).astype(jnp.uint8)
