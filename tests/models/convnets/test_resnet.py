import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import models
from capsnet_jax.models.convnets import resnet
from capsnet_jax.models.convnets.resnet import BasicBlock, Bottleneck, ResNet
from tests.models.random_params import random_params

X = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (2, 4, 4, 8)), jnp.float32)


def block_variables(block, **scales):
    """Random parameters of a block, batch norms that pass everything on, with some scales replaced."""
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), X, train=False))
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        known = {"scale": 1.0, "var": 1.0, "bias": 0.0, "mean": 0.0}
        value = known.get(path[-1].key)
        return jnp.asarray(0.1 * rng.standard_normal(leaf.shape) if value is None else np.full(leaf.shape, value), "f4")

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    for name, scale in scales.items():
        variables["params"][name]["scale"] *= scale
    return variables


def apply(block, variables):
    return np.asarray(jax.jit(lambda v: block.apply(v, X, train=False))(variables))


def test_the_slides_block():
    """The example in the docstring."""
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder(recurse=False).find(BasicBlock, "BasicBlock", globs=vars(resnet).copy()):
        runner.run(test)
    assert (runner.failures, runner.tries) == (0, 3)


@pytest.mark.parametrize(("block", "last"), [(BasicBlock(8), "norm2"), (Bottleneck(2), "norm3")])
def test_without_its_last_scale_a_block_is_its_shortcut(block, last):
    np.testing.assert_array_equal(apply(block, block_variables(block, **{last: 0})), X)
    assert "shortcut" not in block_variables(block)["params"]
    assert np.abs(apply(block, block_variables(block)) - X).max() > 1e-3


@pytest.mark.parametrize(("block", "last"), [(BasicBlock(6, 2), "norm2"), (Bottleneck(3, 2), "norm3")])
def test_a_projection_takes_every_other_pixel(block, last):
    variables = block_variables(block, **{last: 0})
    kernel = variables["params"]["shortcut"]["conv"]["kernel"]
    expected = np.maximum(0, np.asarray(X)[:, ::2, ::2] @ np.asarray(kernel[0, 0])) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(apply(block, variables), expected, atol=1e-6)


def test_a_shortcut_without_weights_takes_every_other_pixel_and_adds_zeros():
    block = BasicBlock(11, 2, projections=False)
    variables = block_variables(block, norm2=0)
    assert set(variables["params"]) == {"conv1", "norm1", "conv2", "norm2"}
    out = apply(block, variables)
    np.testing.assert_array_equal(out[..., :8], X[:, ::2, ::2])
    assert out.shape == (2, 2, 2, 11)
    assert not out[..., 8:].any()


def counted_by_hand(n: int) -> int:
    """Section 4.2: 6n + 1 convolutions, a batch norm behind each, and the classes; 32×32×3 images, 10 classes."""
    total = 9 * 3 * 16 + 2 * 16
    channels = 16
    for width in (16, 32, 64):
        for layer in range(2 * n):
            total += 9 * (channels if layer == 0 else width) * width + 2 * width
        channels = width
    return total + 64 * 10 + 10


@pytest.mark.slow
# Layers → millions of parameters, table 6 of the paper.
@pytest.mark.parametrize(("layers", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_the_nets_for_cifar_have_the_published_parameters(layers, millions):
    entry = models.MODELS[f"resnet{layers}"]
    model = entry(classes=10)
    assert model.depths == ((layers - 2) // 6,) * 3
    params = jax.eval_shape(lambda: models.init(model, jax.random.key(0), entry.image_shape))[0]
    count = models.count_parameters(params)
    assert count == counted_by_hand((layers - 2) // 6)
    assert round(count / 1e6, 1 if layers == 110 else 2) == millions


def test_the_nets_for_cifar_halve_odd_images_too():
    model = models.MODELS["resnet20"](classes=10).clone(depths=(1, 1, 1))
    params, stats = jax.eval_shape(lambda: models.init(model, jax.random.key(0), (27, 25, 1)))
    images = jax.ShapeDtypeStruct((1, 27, 25, 1), jnp.float32)
    out = jax.eval_shape(lambda p, s, x: models.apply(model, p, s, x), params, stats, images)
    assert [out[f"stage{i}.block1"].shape[1:] for i in (1, 2, 3)] == [(27, 25, 16), (14, 13, 32), (7, 7, 64)]


def test_the_bottlenecks_stride_is_in_its_3x3():
    """A 3×3 filter that looks at its last place only sees a pixel that a strided 1×1 would have left out."""
    block = Bottleneck(2, 2)
    variables = block_variables(block, **{"norm3": 1})
    params = variables["params"]
    params["shortcut"]["norm"]["scale"] *= 0
    params["conv1"]["kernel"] = jnp.zeros((1, 1, 8, 2)).at[0, 0, 0, 0].set(1.0)
    params["conv2"]["kernel"] = jnp.zeros((3, 3, 2, 2)).at[2, 2, 0, 0].set(1.0)
    params["conv3"]["kernel"] = jnp.zeros((1, 1, 2, 8)).at[0, 0, 0, 5].set(1.0)
    out = apply(block, variables)
    np.testing.assert_allclose(out[..., 5], X[:, 1::2, 1::2, 0], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("bottleneck", [False, True])
def test_zero_init_starts_every_block_as_its_shortcut(bottleneck):
    model = ResNet(3, (1, 1), bottleneck=bottleneck, zero_init=True)
    params = jax.jit(lambda key: models.init(model, key, (8, 8, 1)))(jax.random.key(0))[0]
    last = "norm3" if bottleneck else "norm2"
    for stage in ("stage1", "stage2"):
        block = params[stage]["block1"]
        assert not block[last]["scale"].any()
        assert (block["norm1"]["scale"] == 1).all()


@pytest.mark.slow
def test_sizes_of_table_1_and_of_the_small_form():
    sides = {
        224: {"conv1": 112, "pool1": 56, "stage1.block1": 56, "stage4.block1": 7},
        32: {"conv1": 32, "stage4.block1": 4},
    }
    for side, expected in sides.items():
        model = ResNet(10, (1, 1, 1, 1))
        shape = (side, side, 3)
        params, stats = jax.eval_shape(lambda m=model, s=shape: models.init(m, jax.random.key(0), s))
        images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        out = jax.eval_shape(lambda p, s, x, m=model: models.apply(m, p, s, x), params, stats, images)
        assert {name: out[name].shape[1] for name in expected} == expected
        assert ("pool1" in out) == (side == 224)
        assert out["average"].shape == (1, 2048)


def test_blocks_are_named_as_they_are_read():
    params = random_params(ResNet(10, (2, 1), bottleneck=False), (8, 8, 1))
    assert set(params) == {"conv1", "norm1", "stage1", "stage2", "classes"}
    assert set(params["stage1"]["block2"]) == {"conv1", "norm1", "conv2", "norm2"}
    assert set(params["stage2"]["block1"]["shortcut"]) == {"conv", "norm"}
