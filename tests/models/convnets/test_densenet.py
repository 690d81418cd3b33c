import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import models
from capsnet_jax.models.convnets.densenet import DenseBlock, DenseLayer, DenseNet, Transition
from tests.ops.conv.loops import loop_conv


def counted_by_hand(depths: tuple[int, ...], growth: int = 32, classes: int = 1000) -> int:
    channels = 2 * growth
    total = 7 * 7 * 3 * channels + 2 * channels
    for index, depth in enumerate(depths):
        for _ in range(depth):
            total += 2 * channels + channels * 4 * growth + 2 * 4 * growth + 9 * 4 * growth * growth
            channels += growth
        if index < len(depths) - 1:
            total += 2 * channels + channels * (channels // 2)
            channels //= 2
    return total + 2 * channels + channels * classes + classes


def test_parameters_are_counted_by_hand():
    """Published for 121; for 264 this is what the suite over all models compares with."""
    assert counted_by_hand((6, 12, 24, 16)) == 7_978_856
    assert models.MODELS["densenet264"]().depths == (6, 12, 64, 48)
    assert counted_by_hand((6, 12, 64, 48)) == 33_337_704


def for_cifar(depths: tuple[int, ...], growth: int) -> int:
    """For 32×32×3 images and 10 classes: 3×3 filters at the start, and no batch norm behind them."""
    first = 2 * growth
    return counted_by_hand(depths, growth, classes=10) - (7 * 7 - 3 * 3) * 3 * first - 2 * first


@pytest.mark.slow
# L = 100: 0.8 million in the paper's table 2. A depth of L has three blocks of (L − 4) / 6 layers.
@pytest.mark.parametrize(
    ("name", "depths", "growth", "count"),
    [
        ("densenet_bc100", (16, 16, 16), 12, 769_162),
        ("densenet_bc40", (6, 6, 6), 12, None),
        ("densenet_bc22_k7", (3, 3, 3), 7, None),
    ],
)
def test_the_nets_for_cifar_are_counted_by_hand_and_as_published(name, depths, growth, count):
    model = models.MODELS[name](classes=10)
    assert (model.depths, model.growth) == (depths, growth)
    params = jax.eval_shape(lambda: models.init(model, jax.random.key(0), models.MODELS[name].image_shape))[0]
    assert models.count_parameters(params) == for_cifar(depths, growth)
    assert count in (None, for_cifar(depths, growth))


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True])
def test_a_block_keeps_its_input_and_adds_to_it(train):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 4, 6)), jnp.float32)
    block = DenseBlock(3, growth=4)
    variables = jax.jit(lambda key: block.init(key, x, train=False))(jax.random.key(0))
    applied = jax.jit(lambda v: block.apply(v, x, train=train, mutable=["batch_stats"])[0])
    out, (mean, variance), added = applied(variables)
    assert out.shape == (2, 5, 4, 18)
    np.testing.assert_array_equal(out[..., :6], x)
    np.testing.assert_allclose(mean, np.mean(out, axis=(0, 1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance, np.var(out, axis=(0, 1, 2)), rtol=1e-5)
    for index in range(3):
        np.testing.assert_array_equal(out[..., 6 + 4 * index : 10 + 4 * index], added[f"layer{index + 1}"])
        kernel = variables["params"][f"layer{index + 1}"]["conv1"]["kernel"]
        assert kernel.shape == (1, 1, 6 + 4 * index, 16)  # it sees all before it


def test_a_layer_normalises_before_each_of_its_convolutions():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 4, 6)), jnp.float32)
    layer = DenseLayer(4, "float32")
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), x, train=False))
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda leaf: rng.uniform(0.2, 1.5, leaf.shape).astype(np.float32) - 0.1, shapes)
    params, stats = variables["params"], variables["batch_stats"]

    def norm(x, name):
        scaled = (x - stats[name]["mean"]) / np.sqrt(stats[name]["var"] + 1e-5)
        return np.maximum(scaled * params[name]["scale"] + params[name]["bias"], 0)

    params["conv1"]["kernel"] -= 0.7  # of both signs, so that a ReLU matters
    params["norm1"]["bias"] -= 0.7
    params["norm2"]["bias"] -= 0.7
    squeezed = norm(np.asarray(x), "norm1") @ params["conv1"]["kernel"][0, 0]
    expected = loop_conv(norm(squeezed, "norm2"), params["conv2"]["kernel"], (1, 1), ((1, 1), (1, 1)))
    got = jax.jit(lambda v: layer.apply(v, x, train=False))(variables)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_a_transition_halves_everything():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 4, 6, 4)), jnp.float32)
    transition = Transition("float32")
    variables = transition.init(jax.random.key(0), x, train=False)
    out = transition.apply(variables, x, train=False)
    kernel = np.asarray(variables["params"]["conv"]["kernel"])[0, 0]
    values = np.maximum(0, np.asarray(x) / np.sqrt(1 + 1e-5)) @ kernel
    np.testing.assert_allclose(out, values.reshape(1, 2, 2, 3, 2, 2).mean(axis=(2, 4)), atol=1e-6)


def test_sizes_of_table_1_and_of_the_small_form():
    for side, sides in {224: (56, 28, 14, 7), 32: (32, 16, 8, 4)}.items():
        model = DenseNet(10, (1, 1, 1, 1))
        shape = (side, side, 3)
        params, stats = jax.eval_shape(lambda m=model, s=shape: models.init(m, jax.random.key(0), s))
        images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        out = jax.eval_shape(lambda p, s, x, m=model: models.apply(m, p, s, x), params, stats, images)
        assert tuple(out[f"block{i}"].shape[1] for i in range(1, 5)) == sides
        assert out["block1.layer1"].shape[3] == 32
        assert ("pool1" in out) == (side == 224)
