import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.interpret import crop_receptive_field, receptive_field, top_images
from capsnet_jax.ops.conv import conv2d

IMAGES = np.random.default_rng(0).random((23, 8, 7, 1)).astype(np.float32)
IMAGES[17] = IMAGES[4]  # of equals, the first
WEIGHTS = jax.random.normal(jax.random.key(0), (3, 3, 1, 4))


def net(images):
    conv = conv2d(images, WEIGHTS, strides=2, padding=1)
    return {"conv": conv, "capsules": conv.reshape(len(images), -1, 8), "logits": conv[:, 1, 2]}


def sorted_images(values, k):
    """[images, units] → the values and numbers of the greatest, by a whole sort."""
    order = np.argsort(-values, axis=0, kind="stable")[:k]
    return np.take_along_axis(values, order, axis=0).T, order.T


@pytest.mark.parametrize("chunk", [1, 5, 23, 100])
@pytest.mark.parametrize("k", [4, 23])
def test_they_are_those_of_a_whole_sort(k, chunk):
    conv = np.asarray(net(jnp.asarray(IMAGES))["conv"])
    values, order = sorted_images(conv.max(axis=(1, 2)), k)
    found = top_images(net, IMAGES, "conv", k, chunk=chunk)
    np.testing.assert_array_equal(found.images, order)
    np.testing.assert_allclose(found.values, values, rtol=1e-5, atol=1e-6)
    there = [
        [conv[i, *position, unit] for i, position in zip(images, positions, strict=True)]
        for unit, (images, positions) in enumerate(zip(found.images, found.positions, strict=True))
    ]
    np.testing.assert_allclose(there, values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "by_length", "units"),
    [
        ("logits", True, lambda out: out["logits"]),
        ("capsules", True, lambda out: jnp.linalg.norm(out["capsules"], axis=-1)),
        ("capsules", False, lambda out: out["capsules"].reshape(23, -1)),
    ],
)
def test_layers_without_positions(layer, by_length, units):
    values, order = sorted_images(np.asarray(units(net(jnp.asarray(IMAGES)))), 3)
    found = top_images(net, IMAGES, layer, 3, by_length=by_length, chunk=10)
    np.testing.assert_array_equal(found.images, order)
    np.testing.assert_allclose(found.values, values, rtol=1e-5)
    assert not found.positions.any()


def test_k_is_no_more_than_there_are_images():
    assert top_images(net, IMAGES[:2], "conv").images.shape == (4, 2)


def test_what_is_cut_out_makes_the_activation():
    """A convolution of the crop alone, whose border is 0 in place of grey, is the activation."""
    found = top_images(net, IMAGES, "conv", 5)
    field = receptive_field(net, IMAGES.shape[1:], "conv")
    for unit in range(4):
        shown = IMAGES[found.images[unit]]
        crops = crop_receptive_field(shown, found.positions[unit], field)
        outside = crop_receptive_field(0 * shown, found.positions[unit], field)
        np.testing.assert_array_equal(np.unique(outside[outside != 0]), [0.5] if (outside != 0).any() else [])
        values = conv2d(jnp.asarray(crops - outside), WEIGHTS)[:, 0, 0, unit]
        np.testing.assert_allclose(values, found.values[unit], rtol=1e-4, atol=1e-5)


def test_a_field_as_large_as_the_image_cuts_nothing_off():
    images = (255 * IMAGES[:2]).astype(np.uint8)
    field = receptive_field(lambda x: {"mean": x.mean(axis=(1, 2))}, IMAGES.shape[1:], "mean")
    np.testing.assert_array_equal(crop_receptive_field(images, np.zeros((2, 2), int), field), images)
    corner = crop_receptive_field(images, np.zeros((2, 2), int), receptive_field(net, IMAGES.shape[1:], "conv"))
    assert corner.dtype == np.uint8
    assert (corner[:, 0] == 127).all()
    np.testing.assert_array_equal(corner[:, 1:, 1:], images[:, :2, :2])
