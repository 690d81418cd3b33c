import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import models
from capsnet_jax.models.sabour_cnn import SabourCNN
from tests.models.random_params import random_params

IMAGES = jax.random.uniform(jax.random.key(1), (2, 5, 4, 1))
MODEL = SabourCNN(classes=3)


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL, (5, 4, 1))


def test_parts_are_counted_by_hand():
    params = jax.eval_shape(lambda: models.init(SabourCNN(), jax.random.key(0), (28, 28, 1)))[0]
    assert {name: models.count_parameters(part) for name, part in params.items()} == {
        "conv1": 25 * 256 + 256,
        "conv2": 25 * 256 * 256 + 256,
        "conv3": 25 * 256 * 128 + 128,
        "fc1": 28 * 28 * 128 * 328 + 328,
        "fc2": 328 * 192 + 192,
        "classes": 192 * 10 + 10,
    }


def test_every_layer_is_a_product_and_a_relu(params):
    out = jax.tree.map(np.asarray, jax.jit(lambda: MODEL.apply({"params": params}, IMAGES))())
    x = np.asarray(IMAGES)
    for name in ("conv1", "conv2", "conv3"):
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0))), (5, 5), (1, 2))
        kernel, bias = (np.asarray(params[name][part]) for part in ("kernel", "bias"))
        x = np.maximum(np.einsum("bhwcij,ijco->bhwo", windows, kernel) + bias, 0)
        np.testing.assert_allclose(out[name], x, rtol=1e-3, atol=1e-4)
    x = x.reshape(len(x), -1)
    for name in ("fc1", "fc2", "logits"):
        layer = params["classes" if name == "logits" else name]
        x = x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        x = x if name == "logits" else np.maximum(x, 0)
        np.testing.assert_allclose(out[name], x, rtol=1e-3, atol=1e-4)


def test_drops_half_of_the_last_hidden_units_in_training_only(params):
    # With weights 1 and no bias the logit is the sum of what was not dropped, doubled.
    params = params | {"classes": {"kernel": jnp.ones((192, 3)), "bias": jnp.zeros(3)}}

    @jax.jit
    def run(key):
        return MODEL.apply({"params": params}, IMAGES, train=True, rngs={"dropout": key})

    plain = jax.jit(lambda: MODEL.apply({"params": params}, IMAGES))()
    whole = np.asarray(plain["fc2"]).sum(axis=1)
    np.testing.assert_allclose(plain["logits"][:, 0], whole, rtol=1e-5)
    logits = np.array([run(jax.random.key(seed))["logits"][:, 0] for seed in range(50)])
    assert logits.std(axis=0).min() > 0
    # Each unit has variance x² about its value x: the mean of 50 draws is within 4 standard errors.
    deviation = np.sqrt((np.asarray(plain["fc2"]) ** 2).sum(axis=1) / 50)
    assert (np.abs(logits.mean(axis=0) - whole) < 4 * deviation).all()
