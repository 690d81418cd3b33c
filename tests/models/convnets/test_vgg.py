import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import models
from capsnet_jax.models.convnets.vgg import VGG
from capsnet_jax.ops.normalization import local_response_norm
from tests.models.random_params import random_params, random_variables


def outputs(model, *image_shape):
    params, stats = jax.eval_shape(lambda: models.init(model, jax.random.key(0), image_shape))
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return params, jax.eval_shape(lambda p, s, x: models.apply(model, p, s, x), params, stats, images)


def test_configuration_c():
    """The column of table 1: the last convolution of the three deeper stages has 1×1 filters."""
    params, out = outputs(VGG(depths=(2, 2, 3, 3, 3), pointwise=True), 224, 224, 3)
    sizes = [[conv["kernel"].shape[0] for conv in params[f"stage{i}"].values()] for i in range(1, 6)]
    assert sizes == [[3, 3], [3, 3], [3, 3, 1], [3, 3, 1], [3, 3, 1]]
    assert [out[f"pool{i}"].shape[1:] for i in range(1, 6)] == [
        (112, 112, 64),
        (56, 56, 128),
        (28, 28, 256),
        (14, 14, 512),
        (7, 7, 512),
    ]
    assert params["fc1"]["kernel"].shape == (7 * 7 * 512, 4096)


@pytest.mark.parametrize(("shape", "last"), [((28, 28, 1), (1, 1)), ((32, 32, 3), (1, 1)), ((20, 60, 3), (1, 3))])
def test_small_images_are_pooled_while_there_is_something_to_pool(shape, last):
    params, out = outputs(VGG(10, depths=(1, 1, 2, 2, 2)), *shape)
    pools = [value.shape[1:3] for name, value in out.items() if name.startswith("pool")]
    assert pools[-1] == last
    assert params["fc1"]["kernel"].shape == (512, 512)


def test_other_sizes_have_as_many_parameters():
    params, _ = outputs(VGG(depths=(1, 1, 2, 2, 2)), 160, 200, 3)
    assert models.count_parameters(params) == 132_863_336


def test_a_lrn_normalises_the_first_activations_alone():
    model = VGG(3, depths=(1, 1), widths=(8, 8), lrn=True, hidden=8)
    images = jax.random.uniform(jax.random.key(0), (2, 8, 8, 1)) * 30
    params = random_params(model, (8, 8, 1))
    out = jax.jit(lambda: models.apply(model, params, {}, images))()
    np.testing.assert_allclose(out["stage1.lrn"], local_response_norm(out["stage1.conv1"]), atol=1e-6)
    assert float(jnp.abs(out["stage1.lrn"] / 2**-0.75 - out["stage1.conv1"]).max()) > 1e-3
    assert "stage2.lrn" not in out


def test_batch_norms_differ_in_training_and_evaluation():
    """In training an image's outputs depend on its batch, and the statistics move; otherwise neither."""
    model = VGG(3, depths=(1, 1), widths=(4, 4), norm=True, hidden=8, dropout=0.0)
    images = jax.random.uniform(jax.random.key(0), (4, 8, 8, 1))
    targets = jnp.eye(3)[:2]
    params, stats = random_variables(model, (8, 8, 1))

    @jax.jit
    def run(images):
        out, moved = models.apply_in_training(model, params, stats, images, targets, dropout=jax.random.key(1))
        return out, moved, models.apply(model, params, stats, images)

    (first, moved, plain), (second, _, again) = run(images[:2]), run(images[jnp.array([0, 3])])
    np.testing.assert_allclose(plain["logits"][0], again["logits"][0], atol=1e-6)
    assert float(jnp.abs(first["logits"][0] - second["logits"][0]).max()) > 1e-4

    # Of the first layer, by hand: convolution, then the batch's moments.
    kernel, bias = (np.float64(params["stage1"]["conv1"][name]) for name in ("kernel", "bias"))
    padded = np.pad(np.float64(images[:2]), ((0, 0), (1, 1), (1, 1), (0, 0)))
    values = np.array(
        [np.einsum("nhwc,hwcf->nf", padded[:, i : i + 3, j : j + 3], kernel) + bias for i in range(8) for j in range(8)]
    ).reshape(-1, 4)
    old, new = stats["stage1"]["norm1"], moved["stage1"]["norm1"]
    np.testing.assert_allclose(new["mean"], 0.9 * old["mean"] + 0.1 * values.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(new["var"], 0.9 * old["var"] + 0.1 * values.var(axis=0, ddof=1), rtol=1e-4)


def test_a_frozen_layers_batch_norms_stand_still():
    model = VGG(3, depths=(1, 1), widths=(4, 4), norm=True, hidden=8, dropout=0.0)
    images, targets = jax.random.uniform(jax.random.key(0), (2, 8, 8, 1)), jnp.eye(3)[:2]
    params, stats = random_variables(model, (8, 8, 1))

    @jax.jit
    def run():
        key = jax.random.key(1)
        out, moved = models.apply_in_training(model, params, stats, images, targets, dropout=key, frozen=["stage1"])
        return out, moved, models.apply(model, params, stats, images)

    out, moved, plain = run()
    jax.tree.map(np.testing.assert_array_equal, moved["stage1"], stats["stage1"])
    np.testing.assert_allclose(out["pool1"], plain["pool1"], atol=1e-6)
    assert float(jnp.abs(moved["stage2"]["norm1"]["mean"] - stats["stage2"]["norm1"]["mean"]).min()) > 0
    assert float(jnp.abs(out["pool2"] - plain["pool2"]).max()) > 1e-3


@pytest.mark.slow
def test_the_gradient_through_norms_and_poolings_is_the_slope():
    """As users compile it: optimised, XLA computes what is pooled a second time, rounded otherwise."""
    optimised = {"xla_backend_optimization_level": 3}
    with jax.enable_x64(True):
        net = VGG(
            classes=3,
            depths=(1, 1),
            widths=(8, 8),
            norm=True,
            hidden=8,
            stem="imagenet",
            dropout=0.0,
            precision="float64",
        )
        params, stats = models.init(net, jax.random.key(0), (12, 12, 3))
        params = jax.tree.map(lambda leaf: leaf.astype(float), params)
        images = jax.random.uniform(jax.random.key(1), (2, 12, 12, 3))
        targets, key = jnp.eye(3)[:2], jax.random.key(0)

        def objective(params):
            out, _ = models.apply_in_training(net, params, stats, images, targets, dropout=key)
            return jnp.sum(out["logits"] @ jnp.arange(3.0))

        gradient = jax.jit(jax.grad(objective), compiler_options=optimised)(params)
        value = jax.jit(objective)
        for layer in ("stage1", "stage2", "fc1"):
            way = {
                layer: jax.tree.map(
                    lambda leaf: 1e-6 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), params[layer]
                )
            }
            ahead, behind = (
                params | {layer: jax.tree.map(op, params[layer], way[layer])} for op in (jnp.add, jnp.subtract)
            )
            slope = (value(ahead) - value(behind)) / 2
            along = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient[layer], way[layer])))
            assert float(along) == pytest.approx(float(slope), rel=1e-5)
