import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import overrides
from capsnet_jax.config import ConfigError
from capsnet_jax.interpret import OBSERVATIONS
from capsnet_jax.interpret.capsule_dimensions import move_dimensions


@pytest.fixture(scope="module")
def observed(net):
    return OBSERVATIONS["capsule_dimensions"](net)


def test_what_is_observed(observed):
    kinds = {name: (array.dtype, array.shape) for name, array in observed.items() if name != "names"}
    assert kinds["images"] == kinds["reconstructions"] == (np.uint8, (20, 28, 28, 1))
    assert kinds["moved"] == (np.uint8, (10, 4, 11, 28, 28, 1))
    assert observed["labels"].tolist() == [*range(10)] * 2
    np.testing.assert_allclose(observed["offsets"], np.arange(-5, 6) * 0.05, atol=1e-7)
    assert observed["names"].tolist() == [str(k) for k in range(10)]


def test_images_are_of_the_classes_they_were_chosen_for(net, observed):
    validation = net.data.validation
    for image, label in zip(observed["images"], observed["labels"], strict=True):
        same = np.all(np.asarray(validation.images) == image, axis=(1, 2, 3))
        assert label in np.asarray(validation.labels)[same]


@pytest.mark.slow
def test_in_the_middle_nothing_is_moved_and_the_decoder_sees_the_true_class(net, observed):
    images, labels = observed["images"][:10], observed["labels"][:10]
    out = net.model.apply({"params": net.params}, jnp.asarray(images) / 255, jax.nn.one_hot(labels, 10))
    middle = np.asarray(out["reconstruction"]) * 255
    for dimension in range(4):
        np.testing.assert_allclose(observed["moved"][:, dimension, 5], middle, atol=0.51)  # rounded to bytes


def test_one_move_by_hand(net, observed):
    """The decoder's layers in NumPy, dimension 2 of class 7 moved by 0.25."""
    capsules = net.outputs(observed["images"][7:8])["capsules"][0]
    masked = np.zeros((10, 4), np.float32)
    masked[7] = np.asarray(capsules)[7]
    masked[7, 2] += 0.25
    layers = net.params["decoder"]
    x = masked.ravel() @ np.asarray(layers["hidden1"]["kernel"]) + np.asarray(layers["hidden1"]["bias"])
    x = np.maximum(x, 0) @ np.asarray(layers["pixels"]["kernel"]) + np.asarray(layers["pixels"]["bias"])
    expected = 1 / (1 + np.exp(-x))
    moved = move_dimensions(net, capsules, 7, [0.0, 0.25])
    assert moved.shape == (4, 2, 28, 28, 1)
    np.testing.assert_allclose(moved[2, 1].ravel(), expected, rtol=1e-4)
    np.testing.assert_allclose(observed["moved"][7, 2, 10].ravel(), 255 * expected, atol=0.51)


def test_a_network_without_a_decoder(net):
    bare = dataclasses.replace(net, config=overrides.override(net.config, {"loss.reconstruction": False}))
    with pytest.raises(ConfigError, match=r"decoder is needed: leave out loss\.reconstruction=false"):
        OBSERVATIONS["capsule_dimensions"](bare)
    other = dataclasses.replace(net, config=overrides.build({"model.name": "cnn_small"}))
    with pytest.raises(ConfigError, match=r"cnn_small has none; use --set model\.name=capsnet_small"):
        OBSERVATIONS["capsule_dimensions"](other)
