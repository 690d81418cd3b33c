import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.config import ConfigError
from capsnet_jax.interpret import targets
from capsnet_jax.interpret.examples import like_pixels
from capsnet_jax.interpret.targets import prepare


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (targets.capsule_length(4), "has 4 capsules, counted from 0, and no 4"),
        (targets.capsule_dimension(3, 5), "has 5 dimensions, counted from 0, and no 5"),
        (targets.unit("capsules", 5), "has 5 units, counted from 0, and no 5"),
        (targets.unit_at("capsules", 0, 0, 0), "capsules is 4×5 and has no rows and columns and channels to name"),
    ],
)
def test_numbers_count_what_the_target_reads(target, message):
    net = lambda images: {"capsules": jnp.ones((len(images), 4, 5)) * images.mean()}  # noqa: E731
    with pytest.raises(ConfigError, match=message):
        prepare(net, np.zeros((2, 3, 3, 1), np.float32), target)


def test_any_capsule_can_be_a_target():
    capsules = np.random.default_rng(0).normal(size=(2, 4, 5)).astype(np.float32)
    outputs = {"primary": jnp.asarray(capsules)}
    length = targets.capsule_length([1, 3], layer="primary")(outputs)
    np.testing.assert_allclose(length, np.linalg.norm(capsules[[0, 1], [1, 3]], axis=1), rtol=1e-6)
    dimension = targets.capsule_dimension([1, 3], 2, layer="primary")(outputs)
    np.testing.assert_array_equal(dimension, capsules[[0, 1], [1, 3], 2])


def test_the_nets_own_classes_are_found_some_images_at_a_time():
    images = np.random.default_rng(0).random((70, 2, 2, 1), np.float32)
    sizes = []

    def net(images):
        sizes.append(len(images))
        return {"logits": images.reshape(len(images), 4)}

    _, _, target = prepare(net, images)
    np.testing.assert_array_equal(target.index[:, 0], images.reshape(70, 4).argmax(axis=1))
    assert sorted(set(sizes)) == [24, 70]  # 70: shapes alone


@pytest.mark.parametrize(
    ("images", "target", "message"),
    [
        (np.zeros((0, 2, 2, 1), np.float32), 0, "give at least one, as"),
        (np.zeros((8, 2, 2, 1), np.float32), [0, 1, 2, 3], "4 targets for 8 images; give one, or one for each image"),
        (np.zeros((8, 2, 2, 1), np.int64), 0, "images are int.*; give bytes, uint8, or floats"),
    ],
)
def test_images_and_targets_that_do_not_fit(images, target, message):
    with pytest.raises(ConfigError, match=message):
        prepare(lambda images: {"logits": images.reshape(len(images), 4)}, images, target)


def test_what_stands_beside_pixels_may_be_bytes():
    pixels = jnp.zeros((2, 2, 2, 1))
    np.testing.assert_allclose(like_pixels(np.full((2, 2, 1), 51, np.uint8), pixels), 0.2, rtol=1e-6)
    np.testing.assert_allclose(like_pixels(np.full((2, 2, 1), 0.2), pixels), 0.2, rtol=1e-6)
    assert like_pixels(1, pixels) == 1
