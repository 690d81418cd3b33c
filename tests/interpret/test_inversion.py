import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.config import ConfigError
from capsnet_jax.interpret import invert
from capsnet_jax.interpret.inversion import relative_distance, roughness

KEY = jax.random.key(0)
COARSE = jax.random.uniform(jax.random.key(1), (3, 4, 3, 1), minval=0.2, maxval=0.8)
IMAGES = jax.image.resize(COARSE, (3, 8, 7, 1), "linear")
ORTHOGONAL = jnp.linalg.qr(jax.random.normal(jax.random.key(2), (56, 56)))[0]


def rotated(images):
    """Nothing is lost in "all"; "rows" keeps the mean of every row alone."""
    pixels = images.reshape(len(images), -1)
    return {"all": pixels @ ORTHOGONAL, "rows": images.mean(axis=2, keepdims=True), "none": 0 * pixels}


def test_a_net_that_loses_nothing_is_inverted():
    found = invert(rotated, IMAGES, "all", key=KEY, smoothness=0.0, steps=200)
    np.testing.assert_allclose(found.images, IMAGES, atol=0.02)
    assert (found.errors < 1e-4).all()


def test_what_is_lost_is_not_seen():
    """Rows' means come back, and smoothness fills them evenly."""
    assert IMAGES.std(axis=2).max() > 0.1
    found = invert(rotated, IMAGES, "rows", key=KEY, smoothness=0.01, steps=500)
    np.testing.assert_allclose(found.images.mean(axis=2), IMAGES.mean(axis=2), atol=0.02)
    assert (found.images.std(axis=2) < 0.05).all()


@pytest.mark.slow
def test_images_are_inverted_one_by_one():
    together = invert(rotated, IMAGES, "all", key=KEY, steps=3)
    pieces = invert(rotated, IMAGES, "all", key=KEY, steps=3, chunk=2)
    np.testing.assert_allclose(together.images, pieces.images, atol=1e-5)
    np.testing.assert_allclose(together.errors, pieces.errors, rtol=1e-4)


def test_the_error_is_the_relative_distance():
    found = invert(rotated, IMAGES, "all", key=KEY, steps=3)
    for image, made, error in zip(np.float64(IMAGES), np.float64(found.images), found.errors, strict=True):
        assert error == pytest.approx(((made - image) ** 2).sum() / (image**2).sum(), rel=1e-4)  # as lengths stay
    assert relative_distance(jnp.zeros((1, 4)), jnp.ones((1, 4))) == pytest.approx(1)


def test_roughness_is_the_mean_squared_difference_of_neighbours():
    for image, value in zip(np.float64(IMAGES), roughness(IMAGES), strict=True):
        down = np.mean([(image[i + 1, j] - image[i, j]) ** 2 for i in range(7) for j in range(7)])
        right = np.mean([(image[i, j + 1] - image[i, j]) ** 2 for i in range(8) for j in range(6)])
        assert value == pytest.approx(down + right, rel=1e-5)


def test_the_smoothness_of_a_layer_is_a_quarter_of_how_far_its_positions_are_apart():
    """8×7 pixels and 8×1 positions."""
    found = invert(rotated, IMAGES, "rows", key=KEY, steps=3)
    expected = invert(rotated, IMAGES, "rows", key=KEY, steps=3, smoothness=math.sqrt(56 / 8) / 4)
    np.testing.assert_allclose(found.images, expected.images, rtol=1e-6)


def test_a_layer_of_zeros_gives_no_nan():
    found = invert(rotated, IMAGES, "none", key=KEY, steps=3)
    assert np.isfinite(found.images).all()
    assert (found.errors == 0).all()


def test_a_layer_that_is_not_there_is_told():
    with pytest.raises(ConfigError, match="did you mean 'rows'"):
        invert(rotated, IMAGES, "row", key=KEY)
