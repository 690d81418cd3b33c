import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import models, overrides
from capsnet_jax.losses import total_loss
from capsnet_jax.models.convnets.googlenet import GoogLeNet, Inception
from capsnet_jax.ops.normalization import local_response_norm
from tests.models.random_params import random_params


def counts(name: str) -> dict[str, int]:
    model = models.build(overrides.build({"model.name": name}), 1000)
    params = jax.eval_shape(lambda: models.init(model, jax.random.key(0), (224, 224, 3)))[0]
    return {layer: models.count_parameters(part) for layer, part in params.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "without"), [("googlenet", 6_998_552), ("googlenet_bn", 6_624_904)])
def test_parameters_without_auxiliary_classifiers(name, without):
    parts = counts(name)
    assert sum(parts.values()) - parts["aux1"] - parts["aux2"] == without
    assert parts["classes"] == 1024 * 1000 + 1000  # no big fully connected layer
    if name == "googlenet":
        assert parts["aux1"] == 512 * 128 + 128 + 4 * 4 * 128 * 1024 + 1024 + 1024 * 1000 + 1000


@pytest.mark.slow
def test_table_1():
    """Output sizes, row by row, and which outputs there are in training."""
    model = GoogLeNet()
    params = jax.eval_shape(lambda: models.init(model, jax.random.key(0), (224, 224, 3)))[0]
    images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    out = jax.eval_shape(lambda p, x: models.apply(model, p, {}, x), params, images)
    rows = {
        "conv1": (112, 64),
        "pool1": (56, 64),
        "conv3": (56, 192),
        "pool2": (28, 192),
        "inception3a": (28, 256),
        "inception3b": (28, 480),
        "pool3": (14, 480),
        "inception4a": (14, 512),
        "inception4d": (14, 528),
        "inception4e": (14, 832),
        "pool4": (7, 832),
        "inception5b": (7, 1024),
    }
    assert {name: (out[name].shape[1], out[name].shape[3]) for name in rows} == rows
    assert "aux1_logits" not in out
    targets, key = jnp.eye(1000)[:2], jax.random.key(0)
    trained, _ = jax.eval_shape(
        lambda p, x: models.apply_in_training(model, p, {}, x, targets, dropout=key), params, images
    )
    assert trained["aux1_logits"].shape == trained["aux2_logits"].shape == (2, 1000)


def test_the_first_layer_is_normalised_across_channels():
    model = GoogLeNet(10, stem="small")
    params = random_params(model, (8, 8, 3))
    images = 30 * jax.random.normal(jax.random.key(0), (2, 8, 8, 3))  # so large that α counts
    names = ("conv1", "conv2")
    first, second = jax.jit(lambda x: [models.apply(model, params, {}, x)[name] for name in names])(images)
    kernel, bias = (np.asarray(params["conv2"]["conv"][part]) for part in ("kernel", "bias"))
    expected = np.maximum(np.asarray(local_response_norm(first)) @ kernel[0, 0] + bias, 0)
    np.testing.assert_allclose(second, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_small_form():
    model = GoogLeNet(10)
    params = jax.eval_shape(lambda: models.init(model, jax.random.key(0), (32, 32, 3)))[0]
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    out = jax.eval_shape(lambda p, x: models.apply(model, p, {}, x), params, images)
    sides = {"conv1": 32, "pool2": 16, "pool3": 8, "pool4": 4, "inception5b": 4}
    assert {name: out[name].shape[1] for name in sides} == sides
    assert "pool1" not in out


def test_a_branch_is_its_part_of_the_channels():
    """Without the weights of one branch, its channels and no others are 0."""
    module = Inception((2, 3, 4, 3, 5, 6))
    x = jax.random.uniform(jax.random.key(0), (2, 6, 5, 3))
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, train=False))["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.1, 1, leaf.shape), jnp.float32), shapes)
    run = jax.jit(lambda params: module.apply({"params": params}, x, train=False))
    whole = np.asarray(run(params))
    assert whole.shape == (2, 6, 5, 2 + 4 + 5 + 6)
    assert (whole > 0).all()
    start = 0
    for name, width in {"conv1x1": 2, "conv3x3": 4, "conv5x5": 5, "project": 6}.items():
        without = np.asarray(run(params | {name: jax.tree.map(jnp.zeros_like, params[name])}))
        expected = whole.copy()
        expected[..., start : start + width] = 0
        np.testing.assert_allclose(without, expected, rtol=1e-5)
        start += width
    # The last branch: the greatest of 3×3 pixels, each channel weighed.
    padded = np.pad(np.asarray(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    pooled = np.max([padded[:, i : i + 6, j : j + 5] for i in range(3) for j in range(3)], axis=0)
    weights = jax.tree.map(np.asarray, params["project"]["conv"])
    np.testing.assert_allclose(whole[..., 11:], pooled @ weights["kernel"][0, 0] + weights["bias"], rtol=1e-5)


def test_five_by_five_filters_in_the_papers_form_only():
    for norm, side in ((False, 5), (True, 3)):
        module = Inception((1, 1, 1, 1, 1, 1), norm)
        shapes = jax.eval_shape(
            lambda module=module: module.init(jax.random.key(0), jnp.zeros((1, 6, 6, 2)), train=False)
        )
        assert shapes["params"]["conv5x5"]["conv"]["kernel"].shape == (side, side, 1, 1)
        assert ("bias" in shapes["params"]["conv5x5"]["conv"]) == (not norm)


@pytest.mark.slow
def test_auxiliary_classifiers_learn():
    """Their gradient is 0.3 of what a classifier of its own would have; no image of the others' goes to them."""
    model = GoogLeNet(3, modules=("3a", "4a"), dropout=0.0)
    images = jax.random.uniform(jax.random.key(0), (2, 12, 12, 1))
    targets, settings = jnp.eye(3)[jnp.array([0, 2])], overrides.build({"model.name": "googlenet"})
    params = random_params(model, (12, 12, 1))

    def loss(bias):
        changed = params | {"aux1": params["aux1"] | {"classes": params["aux1"]["classes"] | {"bias": bias}}}
        out, _ = models.apply_in_training(model, changed, {}, images, targets, dropout=jax.random.key(1))
        return total_loss(out, images, targets, settings)[0], out["aux1_logits"]

    gradient, logits = jax.jit(jax.grad(loss, has_aux=True))(params["aux1"]["classes"]["bias"])
    wrong = np.asarray(jax.nn.softmax(logits)) - np.asarray(targets)
    np.testing.assert_allclose(gradient, 0.3 * wrong.mean(axis=0), rtol=1e-4, atol=1e-7)
