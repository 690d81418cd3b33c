from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.overrides import build
from capsnet_jax.routing import ROUTERS
from capsnet_jax.routing.inverted_attention import (
    attention_step,
    concurrent_routing,
    inverted_attention_routing,
)
from tests.routing.loops import softmax

SIZES = ((6, 4), (4, 3))  # inputs and outputs of two layers
DIM = 5


def make_parameters(seed=0):
    rng = np.random.default_rng(seed)
    squash = {"weights": rng.standard_normal(DIM), "bias": rng.standard_normal(1)}
    return {"gain": rng.uniform(0.5, 1.5, DIM), "bias": 0.3 * rng.standard_normal(DIM), "squash": squash}


PARAMETERS = [make_parameters(seed) for seed in (0, 1)]
WEIGHTS = [np.random.default_rng(2 + n).standard_normal((*size, DIM, DIM)) / 2 for n, size in enumerate(SIZES)]
POSES = np.random.default_rng(4).standard_normal((6, DIM))


def in_float32(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


def loop_votes(poses, weights):
    inputs, outputs = weights.shape[:2]
    return np.array([[poses[i] @ weights[i, j] for j in range(outputs)] for i in range(inputs)])


def loop_step(votes, parents, parameters):
    """Procedure 1 of the paper in float64: from the parents that there were to the new ones."""
    inputs, outputs, dim = votes.shape
    couplings = np.full((inputs, outputs), 1 / outputs)
    if parents is not None:
        for i in range(inputs):
            couplings[i] = softmax([parents[j] @ votes[i, j] / np.sqrt(dim) for j in range(outputs)])
    new = np.zeros((outputs, dim))
    for j in range(outputs):
        s = sum(couplings[i, j] * votes[i, j] for i in range(inputs))
        new[j] = (s - s.mean()) / np.sqrt(s.var() + 1e-7) * parameters["gain"] + parameters["bias"]
    return new, couplings


def loop_sequential(votes, parameters, iterations):
    parents, couplings = None, None
    for _ in range(iterations):
        parents, couplings = loop_step(votes, parents, parameters)
    return parents, couplings


def loop_concurrent(iterations):
    """Procedure 2: the first pass goes through the layers, later ones look at the pass before only."""
    poses, below = [], POSES
    for weights, parameters in zip(WEIGHTS, PARAMETERS, strict=True):
        poses.append(loop_step(loop_votes(below, weights), None, parameters)[0])
        below = poses[-1]
    for _ in range(iterations - 1):
        first = loop_step(loop_votes(POSES, WEIGHTS[0]), poses[0], PARAMETERS[0])[0]
        second = loop_step(loop_votes(poses[0], WEIGHTS[1]), poses[1], PARAMETERS[1])[0]
        poses = [first, second]
    return poses


def layers():
    def make(weights, parameters):
        def layer(poses, parents):
            votes = jnp.einsum("ik,iokd->iod", poses, weights)
            return attention_step(votes, parents, parameters=parameters)

        return layer

    return [make(in_float32(w), in_float32(parameters)) for w, parameters in zip(WEIGHTS, PARAMETERS, strict=True)]


@pytest.mark.parametrize("iterations", [1, 3])
def test_is_the_loop(iterations):
    votes, parameters = loop_votes(POSES, WEIGHTS[0]), PARAMETERS[0]
    route = jax.jit(partial(inverted_attention_routing, iterations=iterations))
    routing = route(in_float32(votes), parameters=in_float32(parameters))
    parents, couplings = loop_sequential(votes, parameters, iterations)
    np.testing.assert_allclose(routing.capsules, parents, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(routing.couplings, couplings, rtol=1e-3, atol=1e-5)
    present = 1 / (1 + np.exp(-(parents @ parameters["squash"]["weights"] + parameters["squash"]["bias"])))
    np.testing.assert_allclose(routing.activations, present, rtol=1e-3)


@pytest.mark.parametrize("iterations", [1, 3])
def test_two_layers_at_once_are_the_loop(iterations):
    routings = jax.jit(partial(concurrent_routing, layers(), iterations=iterations))(in_float32(POSES))
    for routing, expected in zip(routings, loop_concurrent(iterations), strict=True):
        np.testing.assert_allclose(routing.capsules, expected, rtol=1e-3, atol=1e-4)


def test_at_once_differs_from_one_after_the_other_in_the_second_layer_only():
    """By the loops, which the two tests above hold the code to."""
    below = loop_sequential(loop_votes(POSES, WEIGHTS[0]), PARAMETERS[0], 2)[0]
    above = loop_sequential(loop_votes(below, WEIGHTS[1]), PARAMETERS[1], 2)[0]
    at_once = loop_concurrent(2)
    np.testing.assert_array_equal(at_once[0], below)
    assert np.abs(at_once[1] - above).max() > 1e-2


def test_with_one_layer_both_schedules_are_the_same():
    layer, parameters = layers()[0], in_float32(PARAMETERS[0])
    votes = in_float32(loop_votes(POSES, WEIGHTS[0]))
    [alone] = jax.jit(partial(concurrent_routing, [layer], iterations=3))(in_float32(POSES))
    for schedule in ("sequential", "concurrent"):
        route = jax.jit(partial(inverted_attention_routing, iterations=3, schedule=schedule))
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), route(votes, parameters=parameters), alone)


def test_iterations_go_on_from_the_parents_that_are_given():
    votes, parameters = in_float32(loop_votes(POSES, WEIGHTS[0])), in_float32(PARAMETERS[0])
    route = partial(inverted_attention_routing, votes, parameters=parameters)
    twice = route(iterations=1, parents=route(iterations=2).capsules)
    np.testing.assert_allclose(twice.capsules, route(iterations=3).capsules, rtol=1e-5, atol=1e-6)


def test_a_gain_and_a_bias_are_layer_normalisations_only():
    def learned(squash):
        settings = build({"routing.name": "inverted_attention", "routing.squash": squash}).routing.settings
        start = partial(ROUTERS["inverted_attention"].initial_parameters, inputs=3, outputs=2, dim=DIM)
        drawn = jax.eval_shape(partial(start, primary_dim=4, settings=settings), jax.random.key(0))
        return jax.tree.map(lambda leaf: leaf.shape, drawn)

    direction = {"weights": (DIM,), "bias": (1,)}
    assert learned("layer_norm") == {"gain": (DIM,), "bias": (DIM,), "squash": direction}
    assert learned("decoupled") == {"squash": direction}
    assert learned("sabour") == {}
