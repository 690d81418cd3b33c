import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import models
from capsnet_jax.models.convnets.alexnet import AlexNet
from capsnet_jax.ops.conv import conv2d
from tests.models.random_params import random_params


def outputs(side: int, **form):
    """Shapes of parameters and outputs at 1000 classes."""
    model = AlexNet(**form)
    params = jax.eval_shape(lambda: models.init(model, jax.random.key(0), (side, side, 3)))[0]
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return params, jax.eval_shape(lambda p, x: models.apply(model, p, {}, x), params, images)


@pytest.mark.parametrize("side", [224, 227])
def test_the_papers_layers(side):
    params, out = outputs(side)
    assert {name: models.count_parameters(part) for name, part in params.items()} == {
        "conv1": 96 * (11 * 11 * 3 + 1),
        "conv2": 256 * (5 * 5 * 48 + 1),
        "conv3": 384 * (3 * 3 * 256 + 1),
        "conv4": 384 * (3 * 3 * 192 + 1),
        "conv5": 256 * (3 * 3 * 192 + 1),
        "fc1": 4096 * (6 * 6 * 256 + 1),
        "fc2": 4096 * (4096 + 1),
        "classes": 1000 * (4096 + 1),
    }
    sides = {"conv1": 55, "pool1": 27, "conv2": 27, "pool2": 13, "conv3": 13, "conv4": 13, "conv5": 13, "pool5": 6}
    assert {name: out[name].shape[1:3] for name in sides} == {name: (n, n) for name, n in sides.items()}


def test_the_single_column_at_other_sizes():
    """As many parameters at every size that gets the ImageNet form."""
    form = {"channels": (64, 192, 384, 256, 256), "split": 1, "normalize": False, "padding": 2}
    for side in (224, 300):
        params, out = outputs(side, **form)
        assert models.count_parameters(params) == 61_100_840
        assert out["conv1"].shape[1] == (side + 4 - 11) // 4 + 1
        assert "norm1" not in out


def test_the_small_form():
    _, out = outputs(32)
    sides = {"conv1": 32, "pool1": 15, "conv2": 15, "pool2": 7, "pool5": 3}
    assert {name: out[name].shape[1] for name in sides} == sides
    assert out["fc1"].shape == (1, 512)
    params, _ = outputs(64, stem="small")
    assert params["conv1"]["kernel"].shape == (3, 3, 3, 96)


def test_each_half_sees_its_own_channels():
    """The second convolution as two of their own, of what each half of the first gives."""
    model = AlexNet(3, (4, 6, 4, 4, 4), hidden=8)
    images = jax.random.uniform(jax.random.key(0), (2, 20, 18, 1))
    params = random_params(model, images.shape[1:])
    out = jax.jit(lambda: models.apply(model, params, {}, images))()
    kernel, bias = params["conv2"]["kernel"], params["conv2"]["bias"]
    halves = [conv2d(out["pool1"][..., 2 * i : 2 * i + 2], kernel[..., 3 * i : 3 * i + 3], padding=2) for i in range(2)]
    expected = np.maximum(0, np.concatenate(halves, axis=-1) + np.asarray(bias))
    np.testing.assert_allclose(out["conv2"], expected, atol=1e-6)
