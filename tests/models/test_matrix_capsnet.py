import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import models, overrides
from capsnet_jax.config import ConfigError
from capsnet_jax.models.matrix_capsnet import CapsuleLayer
from capsnet_jax.routing import ROUTERS
from tests.models.random_params import random_params

TINY = {"model.name": "matrix_capsnet", "model.channels": 4, "model.kernel": 3, "model.capsule_types": (2, 3, 4)}
IMAGE = (17, 19, 1)  # grids of 8×9, 3×4 and 1×2 capsules


def build(changes=None, classes=3):
    return models.build(overrides.build(TINY | (changes or {})), classes)


def shapes(name="matrix_capsnet", image=(32, 32, 2), classes=5, **changes):
    model = models.build(overrides.build({"model.name": name} | changes), classes)
    return jax.eval_shape(lambda: models.init(model, jax.random.key(0), image))[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "image", "classes", "kernels", "betas"),
    [
        ("matrix_capsnet_full", (32, 32, 2), 5, 316_512, 138),
        ("matrix_capsnet", (32, 32, 2), 5, 68_544, 74),
        ("matrix_capsnet", (28, 28, 1), 10, 68_224, 84),
    ],
)
def test_parameters_are_counted_as_published(name, image, classes, kernels, betas):
    """Published counts leave the primary capsules' biases out, and have the first convolution's in."""
    params = shapes(name, image, classes)
    learned = sum(models.count_parameters(layer.get("routing", {})) for layer in params.values())
    biases = sum(params[f"primary_{part}"]["bias"].size for part in ("poses", "activations"))
    assert learned == betas
    assert models.count_parameters(params) - learned - biases == kernels


@pytest.mark.slow
def test_every_kernel_is_as_figure_1_says():
    params = shapes()
    assert params["conv1"]["kernel"].shape == (5, 5, 2, 64)
    assert params["primary_poses"]["kernel"].shape == (1, 1, 64, 8 * 16)
    assert params["primary_activations"]["kernel"].shape == (1, 1, 64, 8)
    weights = {name: params[name]["W"].shape for name in ("capsules1", "capsules2", "classes")}
    assert weights == {"capsules1": (72, 16, 4, 4), "capsules2": (144, 16, 4, 4), "classes": (16, 5, 4, 4)}
    vectors = shapes(**{"model.pose": "vector"})
    assert vectors["capsules1"]["W"].shape == (72, 16, 16, 16)


def test_grids_of_capsules_are_those_of_the_paper():
    model = models.build(overrides.build({"model.name": "matrix_capsnet"}), 5)
    out = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), jnp.zeros((2, 32, 32, 2)))[0])
    assert [out[f"{name}_activations"].shape[1:3] for name in ("primary", "capsules1", "capsules2")] == [
        (14, 14), (6, 6), (4, 4)
    ]  # fmt: skip
    assert out["capsules"].shape == (2, 5, 16)
    assert out["couplings"].shape == (2, 4 * 4 * 16, 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROUTERS)
def test_routes_by_every_router(name):
    model = build({"routing.name": name})
    out = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), jnp.zeros((2, *IMAGE)))[0])
    assert (out["lengths"].shape, out["capsules2_activations"].shape) == ((2, 3), (2, 1, 2, 4))


@pytest.mark.slow
def test_coordinates_are_where_a_capsule_is():
    """One iteration of EM has mean votes as capsules; of equal capsules with W = 1, only their places differ."""
    routing = overrides.build(TINY | {"routing.iterations": 1}).routing
    layer = CapsuleLayer(2, everywhere=True, coordinates=True, weight_scale=0.0, routing=routing)
    poses, active = jnp.ones((1, 3, 4, 1, 16)), np.zeros((12, 3, 4, 1), np.float32)
    places = list(itertools.product(range(3), range(4)))
    for index, (row, column) in enumerate(places):
        active[index, row, column] = 1
    params = layer.init(jax.random.key(0), poses, jnp.asarray(active[:1]))
    got = jax.jit(layer.apply)(params, jnp.tile(poses, (12, 1, 1, 1, 1)), jnp.asarray(active)).capsules[:, 0, 0, 0]
    expected = np.ones((12, 16))
    expected[:, [3, 7]] += [((row + 0.5) / 3 - 0.5, (column + 0.5) / 4 - 0.5) for row, column in places]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_capsules_vote_is_its_matrix_times_w_and_where_it_is():
    """One iteration of EM has mean votes as capsules: of one active capsule its vote."""
    routing = overrides.build(TINY | {"routing.iterations": 1}).routing
    layer = CapsuleLayer(2, everywhere=True, coordinates=True, routing=routing)
    poses = np.random.default_rng(0).standard_normal((3, 4, 2, 16)).astype(np.float32)
    places = list(np.ndindex(3, 4, 2))
    active = np.zeros((len(places), 3, 4, 2), np.float32)
    for index, place in enumerate(places):
        active[(index, *place)] = 1
    params = layer.init(jax.random.key(0), jnp.asarray(poses)[None], jnp.asarray(active[:1]))
    weights = np.asarray(params["params"]["W"])
    many = jnp.tile(poses, (len(places), 1, 1, 1, 1))
    got = np.asarray(jax.jit(layer.apply)(params, many, jnp.asarray(active)).capsules[:, 0, 0])
    for index, (row, column, kind) in enumerate(places):
        for parent in range(2):
            vote = (poses[row, column, kind].reshape(4, 4) @ weights[kind, parent]).ravel()
            vote[[3, 7]] += (row + 0.5) / 3 - 0.5, (column + 0.5) / 4 - 0.5
            np.testing.assert_allclose(got[index, parent], vote, atol=1e-5)


def test_primary_capsules_are_matrices_and_activations_of_the_first_layer():
    model = build()
    params = random_params(model, IMAGE)
    names = ("conv1", "primary_poses", "primary_activations")  # all else is not computed
    outputs = jax.jit(lambda images: [models.apply(model, params, {}, images)[name] for name in names])
    first, *found = map(np.asarray, outputs(jax.random.uniform(jax.random.key(1), (2, *IMAGE))))
    for part, got in zip(("poses", "activations"), found, strict=True):
        kernel, bias = (np.asarray(params[f"primary_{part}"][name]) for name in ("kernel", "bias"))
        expected = first @ kernel[0, 0] + bias
        expected = expected if part == "poses" else 1 / (1 + np.exp(-expected))
        np.testing.assert_allclose(got.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_w_starts_as_the_identity_and_noise_of_the_given_scale():
    layer = CapsuleLayer(8, weight_scale=0.3)
    weights = layer.init(jax.random.key(0), jnp.ones((1, 3, 3, 4, 16)), jnp.ones((1, 3, 3, 4)))["params"]["W"]
    noise = np.asarray(weights) - np.eye(4)
    assert 0.5 < np.abs(noise).max() <= 0.6 + 1e-6  # cut at 2σ
    assert abs(noise.mean()) < 0.02


@pytest.mark.slow
def test_too_few_capsules_for_a_window_are_told():
    with pytest.raises(ConfigError, match="images are too small: 2×2 capsules are fewer than a 3×3 kernel"):
        models.shapes(overrides.build({"model.name": "matrix_capsnet"}), (16, 16, 1), 10)


def test_it_routes_by_em_unless_asked_otherwise():
    assert overrides.build({"model.name": "matrix_capsnet"}).routing.name == "em"
    assert overrides.build({"model.name": "matrix_capsnet", "routing.name": "dynamic"}).routing.name == "dynamic"
    assert overrides.build({"model.name": "capsnet"}).routing.name == "dynamic"
    assert overrides.build({"model.name": "matrix_capsnet"}).loss.name == "spread"


@pytest.mark.slow
def test_all_layers_at_once_differ_above_the_first_only():
    """The lowest layer's children stand still, so that its second iteration is the same under both schedules."""
    images, outs = jax.random.uniform(jax.random.key(1), (3, *IMAGE)), {}
    for schedule in ("sequential", "concurrent"):
        model = build({"routing.name": "inverted_attention", "routing.schedule": schedule})
        outs[schedule] = jax.jit(lambda model=model: model.init_with_output(jax.random.key(0), images)[0])()
    at_once, in_turn = outs["concurrent"], outs["sequential"]
    change = {name: float(jnp.abs(in_turn[name] - at_once[name]).max()) for name in at_once}
    assert change["capsules1_poses"] < 1e-5
    assert change["capsules2_poses"] > 1e-2
    assert change["capsules"] > 1e-2
