"""Pairs of images of different classes, one over the other: MultiMNIST (Sabour et al. 2017, section 6, as released).

Training pairs are made in every step, on the device: each image of a batch gets a partner, anew in every epoch, so
nothing large is stored. Validation and test are fixed pairs, made once at load. Both are moved by up to `max_shift`
pixels, and their sum is cut at 255. The metric `error` asks for both classes: the two of highest score must be the two
that are there.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Int32, PRNGKeyArray, UInt8

from capsnet_jax.data.arrays import DataError, Examples, RawDataset
from capsnet_jax.data.augment import augment, shift

PAD = 4
_SEED = 20171026  # of the fixed pairs, as of `split`


class Pairs(NamedTuple):
    """A batch of overlapping pairs; a pytree.

    Attributes:
        images: what is seen, the sum of both, at most 255.
        labels: 1 for the two classes, else 0.
        originals: each alone, where it lies in the pair, the lower class first.
    """

    images: UInt8[Array, "batch height width channels"]
    labels: UInt8[Array, "batch classes"]
    originals: UInt8[Array, "batch 2 height width channels"]


class ByClass(NamedTuple):
    """Where the examples of each class are.

    Attributes:
        order: positions of the examples, sorted by their classes.
        starts: where each class begins in `order`.
        counts: how many examples it has.
    """

    order: Int[Array, "n"]
    starts: Int[Array, "classes"]
    counts: Int[Array, "classes"]


def load(base: RawDataset) -> RawDataset:
    """Return a set with a border of `PAD` pixels around its images, so that they can be moved; its pairs come later."""
    return pad(base, PAD)


def pad(raw: RawDataset, border: int) -> RawDataset:
    """Return a set with so many black pixels around its images."""
    around = ((0, 0), (border, border), (border, border), (0, 0))
    padded: dict[str, Any] = {
        name: Examples(np.pad(split.images, around), split.labels)  # type: ignore[arg-type]
        for name, split in raw.splits.items()
    }
    return raw._replace(**padded)


def by_class(labels: Int32[Array, "n"], classes: int) -> ByClass:
    """Sort examples by class."""
    counts = jnp.bincount(labels, length=classes)
    return ByClass(jnp.argsort(labels), jnp.cumsum(counts) - counts, counts)


def draw_partners(key: PRNGKeyArray, labels: Int32[Array, "batch"], where: ByClass) -> Int[Array, "batch"]:
    """Draw for each label the position of an example of another class, uniformly from all of these."""
    own = where.counts[labels]
    draw = jax.random.randint(key, labels.shape, 0, len(where.order) - own)
    return where.order[draw + jnp.where(draw >= where.starts[labels], own, 0)]  # the class's own block is skipped


def draw_pairs(
    key: PRNGKeyArray,
    base_key: PRNGKeyArray,
    examples: Examples,
    where: ByClass,
    indices: Int[Array, "batch"],
    *,
    max_shift: int,
    max_rotation: float = 0.0,
    flip: bool = False,
) -> Pairs:
    """Lay a random example of another class over each of a batch.

    Args:
        key: of partners and their shifts, new in every step.
        base_key: of the shifts of the batch's own images: each has one for all of its pairs, as in the released set.
        examples: the training split, of single images and class numbers.
        where: its examples by class.
        indices: the batch's, in the split.
        max_shift: the greatest shift of each of the two, pixels.
        max_rotation: as of `augment`; each of the two is augmented by itself.
        flip: as of `augment`.
    """
    partner_key, top_key, turn_key = jax.random.split(key, 3)
    partners = draw_partners(partner_key, examples.labels[indices], where)
    bases = augment(turn_key, examples.images[indices], max_shift=0, max_rotation=max_rotation, flip=flip)

    def fixed_shift(index: Array) -> Array:
        return jax.random.randint(jax.random.fold_in(base_key, index), (2,), -max_shift, max_shift + 1)

    bases = shift(bases, jax.vmap(fixed_shift)(indices), max_shift)
    tops = examples.images[partners]
    tops = augment(top_key, tops, max_shift=max_shift, max_rotation=max_rotation, flip=flip)
    labels = jnp.stack([examples.labels[indices], examples.labels[partners]], axis=1)
    originals = jnp.stack([bases, tops], axis=1)
    ordered = jnp.argsort(labels, axis=1)[:, :, None, None, None]
    present = jnp.any(labels[:, :, None] == jnp.arange(len(where.counts))[None, None], axis=1)
    merged = jnp.minimum(bases.astype(jnp.uint16) + tops, 255).astype(jnp.uint8)
    return Pairs(merged, present.astype(jnp.uint8), jnp.take_along_axis(originals, ordered, axis=1))


def fixed_pairs(examples: Examples, *, classes: int, max_shift: int, name: str) -> Examples:
    """Return as many fixed pairs as there are examples, each example in one as its base: the same on every machine.

    Args:
        examples: a split, of single images and class numbers.
        classes: number of classes.
        max_shift: the greatest shift of each of the two, pixels.
        name: the split's, for the error.

    Returns:
        The sums, and multi-hot labels.

    Raises:
        DataError: all examples are of one class.
    """
    images, labels = np.asarray(examples.images), np.asarray(examples.labels)
    # Unlike Generator's, the stream of RandomState is frozen across NumPy versions (NEP 19).
    random = np.random.RandomState(_SEED)
    others = [np.flatnonzero(labels != k) for k in range(classes)]
    if any(len(others[k]) == 0 for k in np.unique(labels)):
        raise DataError(f"{name} shows one class only, so there are no pairs; leave more images in it")
    partners = np.array([others[k][random.randint(len(others[k]))] for k in labels], int)
    bases, tops = (_shift(images[order], random, max_shift) for order in (slice(None), partners))
    merged = np.minimum(bases.astype(np.int16) + tops, 255).astype(np.uint8)
    present = np.eye(classes, dtype=np.uint8)
    two_hot: Any = present[labels] | present[labels[partners]]
    return Examples(merged, two_hot)


def shifted_once(examples: Examples, max_shift: int) -> Examples:
    """Return the examples with each image moved by up to so many pixels: the same on every machine."""
    images: Any = _shift(np.asarray(examples.images), np.random.RandomState(_SEED), max_shift)
    return examples._replace(images=images)


def _shift(images: np.ndarray, random: np.random.RandomState, max_shift: int) -> np.ndarray:
    """Move each image by random whole pixels down and right; zeros move in."""
    height, width = images.shape[1:3]
    corners = random.randint(0, 2 * max_shift + 1, (len(images), 2))
    margin = (max_shift, max_shift)
    padded = np.pad(images, ((0, 0), margin, margin, (0, 0)))
    moved = [image[top : top + height, left : left + width] for image, (top, left) in zip(padded, corners, strict=True)]
    return np.stack(moved) if moved else images
