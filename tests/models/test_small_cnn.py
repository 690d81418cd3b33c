import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.models.small_cnn import SmallCNN
from tests.models.random_params import random_params

IMAGE = (8, 9, 1)


def convolved(x, kernel, bias, stride):
    """ReLU of a 3×3 convolution with "SAME" zeros, in loops over pixels."""
    height, width, _ = x.shape
    rows, columns = -(-height // stride), -(-width // stride)
    # TensorFlow's and XLA's "SAME": the odd zero lies at the far end.
    need = [max((out - 1) * stride + 3 - n, 0) for out, n in ((rows, height), (columns, width))]
    x = np.pad(x, [(n // 2, n - n // 2) for n in need] + [(0, 0)])
    out = np.zeros((rows, columns, kernel.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            window = x[i * stride : i * stride + 3, j * stride : j * stride + 3]
            out[i, j] = np.einsum("hwc,hwcf->f", window, kernel) + bias
    return np.maximum(out, 0)


def pooled(x):
    height, width, channels = x.shape
    x = x[: height // 2 * 2, : width // 2 * 2]
    return x.reshape(height // 2, 2, width // 2, 2, channels).max(axis=(1, 3))


@pytest.mark.slow
@pytest.mark.parametrize("pooling", [True, False])
def test_every_activation_is_what_the_loops_say(pooling):
    model = SmallCNN(classes=3, pooling=pooling, hidden=5)
    params = random_params(model, IMAGE)
    image = np.random.default_rng(0).uniform(size=IMAGE).astype(np.float32)
    out = model.apply({"params": params}, jnp.asarray(image)[None])
    x = image
    for index in range(3):
        layer = jax.tree.map(np.asarray, params[f"conv{index + 1}"])
        if index and pooling:
            x = pooled(x)
        x = convolved(x, layer["kernel"], layer["bias"], 1 if pooling or not index else 2)
        np.testing.assert_allclose(out[f"conv{index + 1}"][0], x, rtol=1e-4, atol=1e-4)
    hidden = np.maximum(x.ravel() @ params["hidden"]["kernel"] + params["hidden"]["bias"], 0)
    np.testing.assert_allclose(out["hidden"][0], hidden, rtol=1e-4, atol=1e-4)
    logits = hidden @ params["classes"]["kernel"] + params["classes"]["bias"]
    np.testing.assert_allclose(out["logits"][0], logits, rtol=1e-4, atol=1e-4)


def test_hidden_units_are_dropped_in_training_alone():
    model = SmallCNN(classes=3, hidden=64)
    params = random_params(model, IMAGE)
    image = jnp.ones((1, *IMAGE))
    still = model.apply({"params": params}, image)["logits"]
    dropped = [model.apply({"params": params}, image, train=True, rngs={"dropout": jax.random.key(k)}) for k in (0, 1)]
    assert np.abs(dropped[0]["logits"] - dropped[1]["logits"]).max() > 1e-3
    assert np.abs(dropped[0]["logits"] - still).max() > 1e-3
