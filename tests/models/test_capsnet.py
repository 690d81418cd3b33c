from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import models, overrides
from capsnet_jax.models.capsnet import ClassCapsules, route_again
from capsnet_jax.routing import ROUTERS
from tests.models.random_params import random_params
from tests.routing.loops import loop_routing

TINY = {
    "model.name": "capsnet",
    "model.channels": 4,
    "model.kernel": 3,
    "model.capsule_types": 2,
    "model.primary_dim": 4,
    "model.class_dim": 5,
    "model.decoder": (6,),
}
IMAGE = (10, 9, 1)
IMAGES = jax.random.uniform(jax.random.key(1), (4, *IMAGE))


def build(changes=None):
    return models.build(overrides.build(TINY | (changes or {})), 3)


@cache
def tiny():
    model = build()
    params = random_params(model, IMAGE)
    return params, jax.jit(lambda images, targets=None: model.apply({"params": params}, images, targets))


def test_parts_are_counted_as_published():
    model = models.build(overrides.build({"model.name": "capsnet"}), 10)
    params = jax.eval_shape(lambda: models.init(model, jax.random.key(0), (28, 28, 1)))[0]
    counts = {name: models.count_parameters(part) for name, part in params.items()}
    assert counts == {"conv1": 20_992, "primary": 5_308_672, "class_capsules": 1_474_560, "decoder": 1_411_344}
    assert sum(counts.values()) - counts["decoder"] == 6_804_224
    assert params["class_capsules"]["W"].shape == (1152, 10, 8, 16)


def test_class_capsules_are_the_loops():
    """From the primary capsules on: votes, three iterations of routing, lengths."""
    params, apply = tiny()
    out = apply(IMAGES)
    weights = np.float64(params["class_capsules"]["W"])
    for example, primary in enumerate(np.float64(out["primary"])):
        votes = np.array([[primary[i] @ weights[i, o] for o in range(3)] for i in range(len(primary))])
        capsules, couplings, logits = loop_routing(votes, 3)
        np.testing.assert_allclose(out["capsules"][example], capsules, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(out["couplings"][example], couplings, rtol=1e-4)
        np.testing.assert_allclose(out["routing_logits"][example], logits, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(out["lengths"][example], np.linalg.norm(capsules, axis=1), rtol=1e-4)


def test_a_primary_capsule_is_one_type_at_one_position():
    params, apply = tiny()
    out = apply(IMAGES)
    x = np.float64(out["conv1"][0])
    kernel, bias = (np.float64(params["primary"][name]) for name in ("kernel", "bias"))
    rows, columns = (x.shape[0] - 3) // 2 + 1, (x.shape[1] - 3) // 2 + 1
    capsules = []
    for i in range(rows):
        for j in range(columns):
            window = x[2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            flat = np.einsum("hwc,hwcf->f", window, kernel) + bias
            capsules += [flat[:4], flat[4:]]  # two types of four dimensions
    norms = np.linalg.norm(capsules, axis=1, keepdims=True)
    expected = norms / (1 + norms**2) * capsules
    np.testing.assert_allclose(out["primary"][0], expected, rtol=1e-4, atol=1e-6)


def test_the_decoder_sees_the_target_or_else_the_longest_capsule():
    _, apply = tiny()
    free = apply(IMAGES)
    longest = jnp.argmax(free["lengths"], axis=1)
    np.testing.assert_allclose(apply(IMAGES, jnp.eye(3)[longest])["reconstruction"], free["reconstruction"], atol=1e-6)
    others = apply(IMAGES, jnp.eye(3)[(longest + 1) % 3])
    assert float(jnp.abs(others["reconstruction"] - free["reconstruction"]).max()) > 1e-4
    np.testing.assert_allclose(others["lengths"], free["lengths"], atol=1e-6)  # targets go nowhere else


def test_the_reconstruction_is_made_of_the_targets_capsules_alone():
    params, apply = tiny()
    targets = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 1], [0, 0, 0]])  # the last two: two classes, and none
    out = apply(IMAGES, jnp.asarray(targets, jnp.float32))
    layers = jax.tree.map(np.float64, params["decoder"])
    for example, present in enumerate(targets):
        x = np.zeros((3, 5))
        for label in np.flatnonzero(present):
            x[label] = out["capsules"][example, label]
        hidden = np.maximum(0, x.reshape(-1) @ layers["hidden1"]["kernel"] + layers["hidden1"]["bias"])
        pixels = 1 / (1 + np.exp(-(hidden @ layers["pixels"]["kernel"] + layers["pixels"]["bias"])))
        np.testing.assert_allclose(out["reconstruction"][example], pixels.reshape(IMAGE), rtol=1e-5)


def test_without_reconstruction_there_is_no_decoder():
    model = build({"loss.reconstruction": False})
    params = jax.eval_shape(lambda: models.init(model, jax.random.key(0), IMAGE))[0]
    assert set(params) == {"conv1", "primary", "class_capsules"}
    out = jax.eval_shape(lambda p: model.apply({"params": p}, IMAGES), params)
    assert "reconstruction" not in out


@pytest.mark.parametrize("name", ROUTERS)
def test_every_router_has_the_parameters_it_asks_for(name):
    model = build({"routing.name": name, "loss.reconstruction": False})
    params = jax.eval_shape(lambda: models.init(model, jax.random.key(0), IMAGE))[0]
    own = params["class_capsules"]
    inputs, outputs, primary_dim, dim = own["W"].shape
    direction = {"weights": (dim,), "bias": (1,)}
    betas = {"beta_u": (outputs,), "beta_a": (outputs,)}
    expected = {
        "em": betas,
        "variational": betas,
        "learned": {"prior": (inputs, outputs)},
        "random": {"prior": (inputs, outputs)},
        "self_attention": {"bias": (inputs, outputs)},
        "inverted_attention": {"gain": (dim,), "bias": (dim,), "squash": direction},
        "self_routing": {"weights": (inputs, primary_dim, outputs), "bias": (inputs, outputs)},
    }
    learned = jax.tree.map(lambda leaf: leaf.shape, own.get("routing", {}))
    assert learned == expected.get(name, {})
    assert set(own) == ({"W", "routing"} if learned else {"W"})


def test_a_bias_and_squashes_that_learn_are_parameters_of_their_layer():
    model = build({"bias": True, "routing.squash": "decoupled", "model.squash": "layer_norm"})
    params = jax.eval_shape(lambda: models.init(model, jax.random.key(0), IMAGE))[0]
    own = jax.tree.map(jnp.shape, params["class_capsules"]["routing"], is_leaf=lambda leaf: hasattr(leaf, "shape"))
    dim = params["class_capsules"]["W"].shape[-1]
    primary_dim = params["class_capsules"]["W"].shape[2]
    assert own == {"bias": (3, dim), "squash": {"weights": (dim,), "bias": (1,)}}
    assert params["primary_squash"]["weights"].shape == (primary_dim,)


def test_weight_scale_scales_w_exactly():
    def weights(scale):
        layer = ClassCapsules(3, 5, scale, overrides.build({"routing.name": "uniform"}).routing)
        return layer.init(jax.random.key(0), jnp.zeros((1, 50, 4)), jnp.zeros((1, 50)))["params"]["W"]

    unit, double, none = np.asarray(jax.jit(jax.vmap(weights))(jnp.array([0.1, 0.2, 0.0])))  # traced, as in a sweep
    np.testing.assert_array_equal(double, 2 * unit)
    assert not none.any()
    assert 0.15 < np.abs(unit).max() <= 0.2  # a normal of deviation 0.1, truncated at two of them
    assert abs(unit.mean()) < 0.01


def test_conv_layer_adds_its_bias():
    params = dict(tiny()[0])
    params["conv1"] = {"kernel": jnp.zeros_like(params["conv1"]["kernel"]), "bias": jnp.array([-1.0, 0, 1, 2])}
    conv1 = jax.jit(lambda p: build().apply({"params": p}, IMAGES))(params)["conv1"]
    np.testing.assert_array_equal(conv1, np.broadcast_to([0.0, 0, 1, 2], conv1.shape))


@pytest.mark.slow
def test_w_that_is_shared_is_that_of_each_type_at_every_position():
    shared, plain = build({"model.share_weights": True}), build({})
    params, _ = models.init(shared, jax.random.key(0), IMAGE)
    full = models.init(plain, jax.random.key(0), IMAGE)[0]["class_capsules"]["W"]
    rows = params["class_capsules"]["W"]
    types = shared.capsule_types
    assert rows.shape == (types, *full.shape[1:])
    # Input p · types + t is type t at position p.
    repeated = jnp.stack([rows[i % types] for i in range(len(full))])
    each = params | {"class_capsules": {"W": repeated}}
    one, other = (models.apply(model, p, {}, IMAGES) for model, p in ((shared, params), (plain, each)))
    for name in ("primary", "capsules", "lengths", "couplings"):
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-6)
    again = route_again(shared, params, one["primary"], overrides.build(TINY).routing)
    np.testing.assert_allclose(again.capsules, one["capsules"], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_primary_capsules_that_share_conv1_have_an_nth_of_it_and_a_whole_bias():
    """As in the released code, where one iteration of routing shares conv1 between the types."""
    params = random_params(build(), IMAGE)
    models_of = [build({"model.divide_primary": divided}) for divided in (False, True)]

    def before_squash(kernel, bias):
        changed = {"params": params | {"primary": {"kernel": kernel, "bias": bias}}}
        for model in models_of:
            primary = np.float64(model.apply(changed, IMAGES)["primary"])
            length = np.linalg.norm(primary, axis=-1, keepdims=True)
            yield primary / length * np.sqrt(length / (1 - length))  # |v| = |s|² / (1 + |s|²)

    kernel, bias = params["primary"]["kernel"], params["primary"]["bias"]
    whole, shared = before_squash(kernel, jnp.zeros_like(bias))
    np.testing.assert_allclose(shared, whole / 2, rtol=1e-3, atol=1e-5)  # of two types
    whole, shared = before_squash(jnp.zeros_like(kernel), bias)
    np.testing.assert_array_equal(shared, whole)


@pytest.mark.slow
def test_the_released_start_is_of_cut_normals_and_small_biases():
    params, _ = models.init(build({"model.start": "released", "model.channels": 64}), jax.random.key(0), IMAGE)
    kernels = {"conv1": 0.05, "primary": 0.1}
    for name, scale in kernels.items():
        kernel = np.asarray(params[name]["kernel"]) / scale
        assert np.abs(kernel).max() <= 2
        assert kernel.std() == pytest.approx(0.8796, rel=0.1)  # of a unit normal that is cut at 2
        assert set(np.asarray(params[name]["bias"]).tolist()) == {np.float32(0.1)}
    for layer in params["decoder"].values():
        assert np.abs(layer["kernel"]).max() <= 0.2
        assert np.asarray(layer["kernel"]).std() == pytest.approx(0.088, rel=0.2)
        assert set(np.asarray(layer["bias"]).tolist()) == {np.float32(0.1)}
