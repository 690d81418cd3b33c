import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import models, overrides
from capsnet_jax.models.matrix_capsnet import COORDINATES

SMALL = {"model.name": "matrix_capsnet", "model.channels": 4, "model.capsule_types": (2, 3, 3)}
IMAGES = jax.random.uniform(jax.random.key(1), (3, 24, 24, 1))


def build(**changes):
    settings = {name.replace("__", "."): value for name, value in changes.items()}
    return models.build(overrides.build(SMALL | settings), 4)


def apply(model, params):
    return jax.jit(lambda params: models.apply(model, params, {}, IMAGES))(params)


def parameters(model):
    return jax.jit(lambda: models.init(model, jax.random.key(0), IMAGES.shape[1:])[0])()


@pytest.mark.parametrize(
    ("name", "classes", "shape", "weights", "betas"),
    [
        ("matrix_capsnet", 5, (32, 32, 2), 68_544, 74),
        ("matrix_capsnet", 10, (28, 28, 1), 68_224, 84),
        ("matrix_capsnet_full", 5, (32, 32, 2), 316_512, 138),
    ],
)
def test_parameters_are_as_many_as_published(name, classes, shape, weights, betas):
    """The published counts have one bias a channel of the first convolution, and none of the primary capsules."""
    model = models.build(overrides.build({"model.name": name}), classes)
    params = jax.eval_shape(lambda: models.init(model, jax.random.key(0), shape))[0]
    of_routing = sum(models.count_parameters(layer.get("routing", {})) for layer in params.values())
    primary_biases = sum(params[layer]["bias"].size for layer in ("primary_poses", "primary_activations"))
    assert of_routing == betas
    assert models.count_parameters(params) - of_routing - primary_biases == weights


def test_layers_are_as_large_as_published():
    model = models.build(overrides.build({"model.name": "matrix_capsnet"}), 5)
    params = jax.eval_shape(lambda: models.init(model, jax.random.key(0), (32, 32, 2)))[0]
    out = jax.eval_shape(lambda p: models.apply(model, p, {}, jnp.zeros((1, 32, 32, 2))), params)
    sides = [out[f"{name}_activations"].shape[1:] for name in ("primary", "capsules1", "capsules2")]
    assert sides == [(14, 14, 8), (6, 6, 16), (4, 4, 16)]
    assert out["capsules"].shape == (1, 5, 16)


def test_places_are_added_to_the_votes_for_the_classes_alone():
    """With W of the last layer 0 every vote is its place, so a class's pose is a mean of places."""
    model = build()
    params = parameters(model)
    params["classes"]["W"] = jnp.zeros_like(params["classes"]["W"])
    out = apply(model, params)
    # 2×2 positions of three types; places are (k + 0.5) / 2 − 0.5.
    places = np.array([[row, column] for row in (-0.25, 0.25) for column in (-0.25, 0.25) for _ in range(3)])
    expected = np.zeros((3, 4, 16))
    for image, (couplings, active) in enumerate(zip(out["couplings"], out["capsules2_activations"], strict=True)):
        weights = np.float64(couplings) * np.float64(active).reshape(-1, 1)
        for parent in range(4):
            mean = sum(w * place for w, place in zip(weights[:, parent], places, strict=True)) / sum(weights[:, parent])
            expected[image, parent, list(COORDINATES)] = mean
    np.testing.assert_allclose(out["capsules"], expected, atol=1e-5)
    assert np.abs(expected).max() > 0.01
    without = apply(build(model__coordinates=False), params)["capsules"]
    np.testing.assert_allclose(without, np.zeros((3, 4, 16)), atol=1e-6)


def test_all_layers_at_once_differ_above_the_first_only():
    """The lowest layer's children stand still, so that its second iteration is the same under both schedules."""
    outs = {}
    for schedule in ("sequential", "concurrent"):
        model = build(routing__name="inverted_attention", routing__schedule=schedule)
        outs[schedule] = apply(model, parameters(model))
    change = {
        name: float(jnp.abs(outs["sequential"][name] - outs["concurrent"][name]).max()) for name in outs["concurrent"]
    }
    assert change["capsules1_poses"] < 1e-5
    assert change["capsules2_poses"] > 1e-2
    assert change["capsules"] > 1e-2


@pytest.mark.slow
def test_the_gradient_is_finite_for_empty_images():
    model = build()
    params = parameters(model)
    loss = jax.jit(jax.grad(lambda p: jnp.sum(models.apply(model, p, {}, jnp.zeros_like(IMAGES))["lengths"])))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(loss(params)))
