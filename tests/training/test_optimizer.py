"""Updates against plain NumPy: Adam's rule, and what a matrix with equal singular values is."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from capsnet_jax import models, overrides
from capsnet_jax.training import optimizer, step

ADAM, MUON = (overrides.build({"train.optimizer": name}).train for name in ("adam", "muon"))
HEADS = ("class_capsules", "classes")


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def after_steps(settings, gradients):
    """The last update of a sequence of gradients."""
    transform = optimizer.gradient_transform(settings, HEADS)
    state = transform.init(gradients[0])
    for gradient in gradients:
        updates, state = transform.update(gradient, state, gradients[0])
    return updates


def adams(gradients, decay=0.9, decay_of_squares=0.999):
    """Kingma and Ba's algorithm 1, without its learning rate."""
    first = second = 0.0
    for gradient in gradients:
        first = decay * first + (1 - decay) * gradient
        second = decay_of_squares * second + (1 - decay_of_squares) * gradient**2
    steps = len(gradients)
    return first / (1 - decay**steps) / (np.sqrt(second / (1 - decay_of_squares**steps)) + 1e-8)


TREE = {
    "conv1": {"kernel": random(3, 3, 1, 4), "bias": random(4)},
    "primary": {"kernel": random(3, 3, 4, 8), "bias": random(8)},
    "class_capsules": {"W": random(6, 5, 4, 3)},
    "classes": {"kernel": random(8, 5), "bias": random(5)},
}
GRADIENTS = [jax.tree.map(lambda leaf, i=i: leaf * (1 + 0.1 * i) + 0.05 * i, TREE) for i in range(4)]


def test_adam_is_its_algorithm():
    got = after_steps(ADAM, GRADIENTS)
    for leaf, *of_steps in zip(*map(jax.tree.leaves, (got, *GRADIENTS)), strict=True):
        np.testing.assert_allclose(leaf, adams([np.asarray(g, np.float64) for g in of_steps]), rtol=1e-4)


def test_muon_moves_the_kernels_between_layers_and_adam_the_rest():
    got, alone = after_steps(MUON, GRADIENTS), after_steps(ADAM, GRADIENTS)
    same = jax.tree.map(lambda a, b: bool(jnp.all(a == b)), got, alone)
    assert same == {
        "conv1": {"kernel": True, "bias": True},
        "primary": {"kernel": False, "bias": True},
        "class_capsules": {"W": True},
        "classes": {"kernel": True, "bias": True},
    }


@pytest.mark.parametrize("shape", [(3, 3, 4, 8), (40, 24), (16, 48)])
def test_muon_s_updates_keep_the_singular_vectors_and_level_the_values(shape):
    gradient = random(*shape)
    update = after_steps(MUON, [{"hidden": {"kernel": gradient}}])["hidden"]["kernel"]
    rows, columns = gradient.size // shape[-1], shape[-1]
    left, values, right = np.linalg.svd(np.asarray(gradient, np.float64).reshape(rows, columns), full_matrices=False)
    rotated = left.T @ np.asarray(update, np.float64).reshape(rows, columns) @ right.T
    levelled = np.diag(rotated) / (optimizer.MUON_RMS * np.sqrt(max(rows, columns)))
    np.testing.assert_allclose(rotated, np.diag(np.diag(rotated)), atol=2e-4 * rotated.max())
    assert values.max() / values.min() > 2  # what is levelled
    assert 0.65 < levelled.min() <= levelled.max() < 1.25  # five steps of that iteration come so near to 1, no nearer


@pytest.mark.parametrize("shape", [(3, 3, 4, 8), (40, 24), (16, 48)])
def test_muon_is_the_orthogonalised_momentum_at_adams_scale(shape):
    """As Liu et al. 2025 write it: 0.2 √max(fan in, fan out) times what `optax.contrib.scale_by_muon` makes."""
    gradients = [{"hidden": {"kernel": random(*shape, seed=seed)}} for seed in range(4)]

    def rows_and_columns(kernels):
        return jax.tree.map(lambda k: MuonDimensionNumbers(tuple(range(k.ndim - 1)), k.ndim - 1), kernels)

    plain = scale_by_muon(weight_dimension_numbers=rows_and_columns)
    state = plain.init(gradients[0])
    for gradient in gradients:
        updates, state = plain.update(gradient, state, gradients[0])
    scale = 0.2 * math.sqrt(max(math.prod(shape[:-1]), shape[-1]))
    expected = scale * np.asarray(updates["hidden"]["kernel"])
    got = after_steps(MUON, gradients)["hidden"]["kernel"]
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_weight_decay_is_decoupled_and_leaves_vectors_biases_and_priors_alone():
    """A router's bias has a row for each parent; random couplings stay as they are."""
    shapes = {"kernel": (3, 4), "scale": (4,), "bias": (5, 4), "prior": (6, 5)}
    params, updates = (
        {"layer": {name: random(*shape, seed=seed) for name, shape in shapes.items()}} for seed in (1, 2)
    )
    got = optimizer.add_weight_decay(updates, params, 0.25)["layer"]
    np.testing.assert_allclose(got.pop("kernel"), updates["layer"]["kernel"] + 0.25 * params["layer"]["kernel"])
    for name, update in got.items():
        np.testing.assert_array_equal(update, updates["layer"][name])


@pytest.mark.parametrize("name", ["capsnet_small", "resnet8", "densenet_bc22_k7", "cnn_small"])
def test_muon_s_state_is_that_of_kernels_between_layers(name):
    settings = overrides.build({"train.optimizer": "muon", "model.name": name})
    state = jax.eval_shape(lambda seed: step.init_state(settings, seed, (28, 28, 1), 10), jnp.int32(0))
    kernels = state.opt_state.inner_states["muon"].inner_state.inner_states
    assert not [leaf for leaf in jax.tree.leaves(kernels["adam"]) if leaf.ndim], "optax's own Adam has nothing to move"
    momentum = kernels["muon"].inner_state[0].mu
    held = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(momentum)]
    assert held
    assert all(path.endswith("['kernel']") for path in held)
    assert not any(path.startswith(("['conv1']", "['stem']", "['classes']")) for path in held)
    assert models.count_parameters(momentum) > 0.3 * models.count_parameters(state.params)


@pytest.mark.parametrize(("clip", "factor"), [(0.0, 1), (10.0, 1), (2.5, 0.5)])
def test_gradient_descent_goes_along_the_gradient_of_at_most_the_norm_asked_for(clip, factor):
    settings = overrides.build({"train.optimizer": "sgd", "train.clip": clip}).train
    gradient = {"a": {"kernel": jnp.array([[3.0]]), "bias": jnp.array([-4.0])}}  # of norm 5
    updates = after_steps(settings, [gradient])
    np.testing.assert_allclose(updates["a"]["kernel"], [[3 * factor]], rtol=1e-6)
    np.testing.assert_allclose(updates["a"]["bias"], [-4 * factor], rtol=1e-6)


def test_adam_sees_clipped_gradients():
    gradients = [{"a": {"bias": jnp.array([size])}} for size in (1.0, 100.0)]
    clipped = after_steps(overrides.build({"train.clip": 2.0}).train, gradients)
    expected = adams([np.array([1.0]), np.array([2.0])])
    np.testing.assert_allclose(clipped["a"]["bias"], expected, rtol=1e-4)
