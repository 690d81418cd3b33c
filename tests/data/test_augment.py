import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from capsnet_jax.data import Examples
from capsnet_jax.data.augment import (
    augment,
    batch_of,
    gather,
    random_flip,
    random_rotation,
    random_shift,
    rotate,
    to_float,
    to_targets,
)
from capsnet_jax.data.transform import background
from capsnet_jax.overrides import build
from capsnet_jax.training.step import augmentation


def shifted(image, dy, dx):
    """Return the image moved down by dy and right by dx, pixel by pixel."""
    moved = np.zeros_like(image)
    height, width = image.shape[:2]
    for y in range(height):
        for x in range(width):
            if 0 <= y - dy < height and 0 <= x - dx < width:
                moved[y, x] = image[y - dy, x - dx]
    return moved


def shift_of(image, moved, max_shift):
    """Return the only (dy, dx) that turns image into moved."""
    span = range(-max_shift, max_shift + 1)
    (shift,) = [(dy, dx) for dy in span for dx in span if np.array_equal(shifted(image, dy, dx), moved)]
    return shift


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize(("max_shift", "shape"), [(1, (5, 4, 1)), (2, (6, 7, 3)), (4, (3, 3, 1))])
def test_each_image_moves_by_whole_pixels_into_zeros(dtype, max_shift, shape):
    images = np.random.default_rng(0).integers(1, 256, (16, *shape)).astype(dtype)
    moved = random_shift(jax.random.key(1), jnp.asarray(images), max_shift=max_shift)
    assert moved.dtype == dtype
    assert moved.shape == images.shape
    allowed = range(-max_shift, max_shift + 1)
    for before, after in zip(images, np.asarray(moved), strict=True):
        # only a shift with zero padding passes here, and none that wraps around
        assert any(np.array_equal(shifted(before, dy, dx), after) for dy in allowed for dx in allowed)


def test_shifts_are_uniform_and_independent():
    image = np.random.default_rng(0).integers(1, 256, (5, 5, 1)).astype(np.uint8)
    images = jnp.asarray(np.broadcast_to(image, (900, 5, 5, 1)))
    moved = np.asarray(random_shift(jax.random.key(0), images, 1))
    shifts = np.array([shift_of(image, after, 1) for after in moved])
    counts = np.zeros((3, 3))
    np.add.at(counts, (shifts[:, 0] + 1, shifts[:, 1] + 1), 1)
    chi_square = np.sum((counts - 100) ** 2 / 100)
    assert chi_square < 26  # 8 degrees of freedom: one key in a thousand would exceed it
    assert abs(np.corrcoef(shifts[:-1, 0], shifts[1:, 0])[0, 1]) < 0.1  # neighbours in the batch


def test_the_key_decides_and_jit_changes_nothing():
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (32, 6, 6, 1), dtype=np.uint8))
    jitted = jax.jit(random_shift, static_argnums=2)
    once = random_shift(jax.random.key(0), images, 2)
    np.testing.assert_array_equal(once, jitted(jax.random.key(0), images, 2))
    assert not np.array_equal(once, jitted(jax.random.key(1), images, 2))


def test_no_shift_is_the_identity_and_a_negative_one_an_error():
    images = jnp.ones((2, 3, 3, 1), jnp.uint8)
    assert random_shift(jax.random.key(0), images, 0) is images
    with pytest.raises(ValueError, match="negative"):
        random_shift(jax.random.key(0), images, -1)


def test_what_moves_into_an_inverted_image_is_what_moves_into_the_image_inverted():
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (32, 9, 8, 1), dtype=np.uint8))
    for settings in ({"max_shift": 3, "max_rotation": 0.0}, {"max_shift": 3, "max_rotation": 40.0}):
        moved, inverted = (
            np.asarray(augment(jax.random.key(0), shown, flip=True, background=black, **settings)).astype(int)
            for shown, black in ((images, background("none")), (~images, background("inverted")))
        )
        np.testing.assert_allclose(inverted, 255 - moved, atol=1 if settings["max_rotation"] else 0)
    assert background("rotated") == 0


def test_images_are_turned_and_mirrored_where_that_is_asked_for():
    key, shown = jax.random.key(3), np.random.default_rng(0).integers(1, 256, (400, 5, 4, 1), np.uint8)
    got = np.asarray(augment(key, jnp.asarray(shown), max_shift=0, max_rotation=0.0, flip=True))
    mirrored = (got == shown[:, :, ::-1]).all(axis=(1, 2, 3))
    assert 160 < mirrored.sum() < 240
    np.testing.assert_array_equal(got[~mirrored], shown[~mirrored])
    turned = np.asarray(augment(key, jnp.asarray(shown), max_shift=0, max_rotation=40.0, flip=False))
    np.testing.assert_array_equal(turned, random_rotation(jax.random.fold_in(key, 2), jnp.asarray(shown), 40.0))
    assert (turned != shown).mean() > 0.5
    asked = build({"data.flip": True, "data.max_rotation": 15.0, "data.max_shift": 1})
    assert augmentation(asked) == {"max_shift": 1, "max_rotation": 15.0, "flip": True}


def test_to_float_scales_bytes_once():
    floats = jax.jit(to_float)(jnp.arange(256, dtype=jnp.uint8))
    assert floats.dtype == jnp.float32
    np.testing.assert_allclose(floats, np.arange(256) / 255, rtol=1e-6)
    assert (floats[0], floats[255]) == (0, 1)
    with pytest.raises(TypeError, match=r"(?i)uint8"):
        to_float(floats)


def test_gather_returns_images_with_their_labels():
    examples = Examples(jnp.arange(5, dtype=jnp.uint8).reshape(5, 1, 1, 1), jnp.arange(5) * 10)
    batch = jax.jit(gather)(examples, jnp.array([3, 0, 3]))
    assert batch.images[:, 0, 0, 0].tolist() == [3, 0, 3]
    assert batch.labels.tolist() == [30, 0, 30]


def test_flips_mirror_about_half_of_the_images_left_to_right():
    image = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    moved = np.asarray(jax.jit(random_flip)(jax.random.key(0), jnp.asarray(np.broadcast_to(image, (400, 2, 3, 1)))))
    mirrored = (moved == image[:, ::-1]).all(axis=(1, 2, 3))
    assert ((moved == image).all(axis=(1, 2, 3)) | mirrored).all()
    assert 160 < mirrored.sum() < 240  # four standard deviations of a fair coin


@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_batches_in_order_count_every_example_once(size):
    examples = Examples(jnp.zeros((5, 1, 1, 1), jnp.uint8), jnp.arange(5) * 10)
    counted = []
    for index in range(-(-5 // size)):
        batch, counts = jax.jit(batch_of, static_argnums=2)(examples, jnp.int32(index), size)
        assert batch.labels.shape == (size,)
        counted += batch.labels[counts].tolist()
    assert counted == [0, 10, 20, 30, 40]


MULTI_HOT = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 1]], np.uint8)


def test_gather_and_batches_take_multi_hot_labels_by_row():
    examples = Examples(jnp.zeros((5, 1, 1, 1), jnp.uint8), jnp.asarray(MULTI_HOT))
    assert gather(examples, jnp.array([3, 0])).labels.tolist() == [[1, 1, 1], [1, 0, 1]]
    batch, counts = batch_of(examples, jnp.int32(1), 3)
    assert batch.labels.tolist() == [[1, 1, 1], [0, 0, 1], [0, 0, 1]]
    assert counts.tolist() == [True, True, False]


def test_targets_of_class_numbers_are_one_hot():
    labels = np.random.default_rng(0).integers(0, 7, 20).astype(np.int32)
    targets = jax.jit(to_targets, static_argnums=1)(jnp.asarray(labels), 7)
    assert targets.dtype == jnp.float32
    expected = [[float(label == c) for c in range(7)] for label in labels]
    np.testing.assert_array_equal(targets, expected)


def test_targets_of_multi_hot_labels_are_their_values():
    targets = jax.jit(to_targets, static_argnums=1)(jnp.asarray(MULTI_HOT), 3)
    assert targets.dtype == jnp.float32
    np.testing.assert_array_equal(targets, MULTI_HOT.astype(np.float32))
    with pytest.raises(ValueError, match="3 classes, where there are 4"):
        to_targets(jnp.asarray(MULTI_HOT), 4)


@pytest.mark.parametrize("shape", [(7, 7, 1), (6, 9, 3)])
def test_turned_images_are_scipys(shape):
    """By bilinear interpolation with zeros around; positive angles are counter-clockwise, as scipy has them."""
    images = np.random.default_rng(0).integers(0, 256, (12, *shape), np.uint8)
    degrees = np.linspace(-180, 180, 12).astype(np.float32)
    turned = np.asarray(jax.jit(rotate)(jnp.asarray(images), jnp.deg2rad(degrees)))
    for image, angle, got in zip(images.astype(np.float64), degrees, turned, strict=True):
        expected = ndimage.rotate(image, angle, reshape=False, order=1, mode="grid-constant")
        assert np.abs(got - expected).max() < 0.51


def test_angles_are_uniform_and_none_turns_nothing():
    bar = np.zeros((400, 33, 33, 1), np.uint8)
    bar[:, 16, 16:] = 255  # from the centre to the right
    images = jnp.asarray(bar)
    assert random_rotation(jax.random.key(0), images, 0.0) is images
    turned = np.asarray(random_rotation(jax.random.key(0), images, 40.0)).astype(float)[..., 0]
    mass = turned.sum(axis=(1, 2))
    up = -np.einsum("nhw,h->n", turned, np.arange(33) - 16) / mass
    right = np.einsum("nhw,w->n", turned, np.arange(33) - 16) / mass
    angles = np.rad2deg(np.arctan2(up, right))
    assert np.abs(angles).max() < 41
    assert stats.kstest(angles, stats.uniform(-40, 80).cdf).pvalue > 1e-3
