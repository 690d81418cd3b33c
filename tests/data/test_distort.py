import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from capsnet_jax.data.distort import affine, elastic


def random_images(batch=2, height=9, width=9, channels=2):
    return np.random.default_rng(0).uniform(size=(batch, height, width, channels)).astype(np.float32)


def test_no_distortion_is_the_identity():
    images = random_images(height=7)
    np.testing.assert_allclose(affine(jnp.asarray(images)), images, atol=1e-6)
    still = elastic(jax.random.key(0), jnp.asarray(images), strength=0.0)
    np.testing.assert_allclose(still, images, atol=1e-6)


def test_a_shift_by_pixels_moves_zeros_in():
    images = random_images()
    moved = np.asarray(affine(jnp.asarray(images), shift=2.0))
    np.testing.assert_allclose(moved[:, :, 2:], images[:, :, :-2], atol=1e-5)
    np.testing.assert_allclose(moved[:, :, :2], 0, atol=1e-6)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_right_angles_equal_numpys(turns):
    images = random_images()
    turned = affine(jnp.asarray(images), rotation=90.0 * turns)
    np.testing.assert_allclose(turned, np.rot90(images, turns, axes=(1, 2)), atol=1e-4)


def test_twice_as_large_about_the_centre():
    images = np.zeros((1, 9, 9, 1), np.float32)
    images[0, 4, 4], images[0, 4, 5] = 1.0, 2.0
    large = np.asarray(affine(jnp.asarray(images), scale=2.0))[0, 4, :, 0]
    np.testing.assert_allclose(large, [0, 0, 0, 0.5, 1, 1.5, 2, 1, 0], atol=1e-5)


def test_a_shear_moves_each_row_by_its_height():
    images = np.zeros((1, 5, 9, 1), np.float32)
    images[0, :, 4] = 1.0
    slanted = np.asarray(affine(jnp.asarray(images), shear=1.0))[0, :, :, 0]
    assert slanted.argmax(axis=1).tolist() == [6, 5, 4, 3, 2]


def test_several_at_once_equal_scipys():
    images = random_images(1, 11, 11, 1)
    distorted = affine(jnp.asarray(images), rotation=20.0, scale=1.3, shear=0.2)
    a = np.deg2rad(20)
    # The forward map of (y, x): scale, then shear by 0.2 pixels for each pixel above the centre, then rotate.
    forward = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) @ np.array([[1, 0], [-0.2, 1]]) * 1.3
    inverse = np.linalg.inv(forward)
    centre = np.array([5.0, 5.0])
    expected = ndimage.affine_transform(images[0, :, :, 0], inverse, centre - inverse @ centre, order=1)
    np.testing.assert_allclose(distorted[0, :, :, 0], expected, atol=1e-4)


def test_an_elastic_field_is_smoothed_noise_of_its_strength_in_both_directions():
    """Images of rows and of columns show the displacement of each pixel."""
    rows, columns = np.mgrid[:40, :40].astype(np.float32)
    key, both = jax.random.key(1), np.broadcast_to(np.stack([rows, columns], axis=-1), (2, 40, 40, 2))
    warped = np.asarray(elastic(key, jnp.asarray(both), strength=0.7, smoothness=3.0))
    weights = np.exp(-((np.arange(40)[:, None] - np.arange(40)) ** 2) / (2 * 3.0**2))
    weights /= weights.sum(axis=1, keepdims=True)
    inner = slice(4, -4)
    for image, noise in zip(warped, np.float64(jax.random.normal(key, (2, 2, 40, 40))), strict=True):
        for axis in (0, 1):
            field = weights @ noise[axis] @ weights.T
            field *= 0.7 / np.sqrt(np.mean(field**2))
            moved = image[..., axis] - (rows, columns)[axis]
            np.testing.assert_allclose(moved[inner, inner], field[inner, inner], atol=1e-3)


def test_elastic_fields_have_their_strength_are_smooth_and_differ():
    ramp = np.broadcast_to(np.arange(40, dtype=np.float32)[None, None, :, None], (2, 40, 40, 1))
    warped = np.asarray(elastic(jax.random.key(1), jnp.asarray(ramp), strength=1.0))[..., 0]
    sideways = (warped - ramp[..., 0])[:, 8:-8, 8:-8]  # a ramp's values are the displacements
    assert 0.5 < np.sqrt(np.mean(sideways**2)) < 1.6
    assert np.abs(np.diff(sideways, axis=1)).max() < 0.6  # neighbours move together
    assert np.abs(sideways[0] - sideways[1]).max() > 0.5
