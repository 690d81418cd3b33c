from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.ops.squash import SQUASHES
from capsnet_jax.routing import ROUTERS
from capsnet_jax.routing.dynamic import Dynamic, dynamic_routing
from tests.routing.loops import couple, loop_routing, parts, softmax

SHAPE = (6, 4, 3)  # inputs, outputs, dim


def make_votes(*shape: int, seed: int = 0, scale: float = 1.0) -> jax.Array:
    return jnp.asarray(scale * np.random.default_rng(seed).standard_normal(shape or SHAPE), jnp.float32)


uniform_routing = ROUTERS["uniform"]
WEIGHTS = np.arange(1.0, 13).reshape(SHAPE[1:])  # no two components of the capsules with the same


@cache
def compiled(iterations=3, gradient="full"):
    """(votes, temperature) → routing."""

    def route(votes, temperature=1.0):
        return dynamic_routing(votes, iterations=iterations, gradient=gradient, temperature=temperature)

    return jax.jit(route)


@cache
def slope(iterations=3, gradient="full"):
    """(votes, temperature) → Σ WEIGHTS · capsules and its gradient."""
    route = compiled(iterations, gradient)

    def scalar(votes, temperature=1.0):
        capsules = route(votes, temperature).capsules
        return jnp.sum(jnp.asarray(WEIGHTS, capsules.dtype) * capsules)

    return jax.jit(jax.value_and_grad(scalar))


@pytest.mark.parametrize("iterations", [1, 2, 3, 4])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("gradient", ["full", "stop"])
def test_is_procedure_1(iterations, temperature, gradient):
    votes = make_votes()
    routing = compiled(iterations, gradient)(votes, temperature)
    for got, expected in zip(parts(routing), loop_routing(votes, iterations, temperature), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)  # float32, a few sums of ten terms


@pytest.mark.parametrize("iterations", [1, 2, 4])
def test_the_softmax_can_be_taken_over_the_inputs_as_some_do(iterations):
    votes = make_votes()
    routing = jax.jit(lambda v: dynamic_routing(v, iterations=iterations, softmax_over="inputs"))(votes)
    for got, expected in zip(parts(routing), loop_routing(votes, iterations, softmax_over="inputs"), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jnp.sum(routing.couplings, axis=0), np.ones(4), atol=1e-6)


def test_without_jit_and_with_defaults_it_is_three_iterations():
    votes = make_votes()
    for got, expected in zip(parts(dynamic_routing(votes)), loop_routing(votes, 3), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_one_iteration_is_uniform_routing():
    votes = make_votes()
    jax.tree.map(np.testing.assert_array_equal, compiled(1)(votes), jax.jit(uniform_routing)(votes))
    weights = jnp.asarray(WEIGHTS, jnp.float32)
    expected = jax.jit(jax.grad(lambda v: jnp.sum(weights * uniform_routing(v).capsules)))(votes)
    assert float(jnp.abs(expected).max()) > 0.1
    for gradient in ("full", "stop"):
        np.testing.assert_allclose(slope(1, gradient)(votes)[1], expected, rtol=1e-6)


def test_permuting_inputs_or_outputs_permutes_the_routing():
    votes = make_votes()
    rows, columns = np.random.default_rng(2).permutation(6), np.random.default_rng(3).permutation(4)
    route = compiled()
    plain, permuted = route(votes), route(votes[rows][:, columns])
    # Sums in another order: float32 rounding.
    np.testing.assert_allclose(permuted.capsules, plain.capsules[columns], atol=1e-6)
    np.testing.assert_allclose(permuted.couplings, plain.couplings[rows][:, columns], atol=1e-6)
    np.testing.assert_allclose(permuted.logits, plain.logits[rows][:, columns], atol=1e-5)


def test_rotating_all_votes_rotates_the_capsules():
    votes = make_votes()
    rotation = jnp.asarray(np.linalg.qr(np.random.default_rng(4).standard_normal((3, 3)))[0], jnp.float32)
    route = compiled()
    plain, rotated = route(votes), route(votes @ rotation[None])
    np.testing.assert_allclose(rotated.capsules, plain.capsules @ rotation, atol=1e-6)
    np.testing.assert_allclose(rotated.couplings, plain.couplings, atol=1e-6)


def test_examples_of_a_batch_do_not_see_each_other():
    batch = make_votes(5, *SHAPE)
    together = jax.jit(jax.vmap(dynamic_routing))(batch)
    alone = compiled()
    for index, votes in enumerate(batch):
        for got, expected in zip(parts(together), parts(alone(votes)), strict=True):
            np.testing.assert_allclose(got[index], expected, atol=1e-6)


@pytest.mark.parametrize("iterations", [2, 3, 4])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_full_gradient_is_the_finite_difference(iterations, temperature):
    with jax.enable_x64(True):
        votes = np.asarray(make_votes(), np.float64)
        got = np.asarray(slope(iterations)(jnp.asarray(votes), jnp.float64(temperature))[1])
    assert got.dtype == np.float64
    h = 1e-5  # of the float64 loops: error about h² · f''' ≈ 1e-9
    for index in np.ndindex(SHAPE):
        step = np.zeros(SHAPE)
        step[index] = h
        ahead, behind = (loop_routing(votes + s * step, iterations, temperature)[0] for s in (1, -1))
        expected = np.sum(WEIGHTS * (ahead - behind)) / (2 * h)
        assert got[index] == pytest.approx(expected, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("iterations", [2, 3])
def test_stopped_gradient_holds_the_couplings_constant(iterations):
    votes = np.asarray(make_votes(), np.float64)
    _, couplings, _ = loop_routing(votes, iterations)
    got, full = (slope(iterations, gradient)(make_votes())[1] for gradient in ("stop", "full"))
    expected, h = np.zeros(SHAPE), 1e-5
    for index in np.ndindex(SHAPE):
        step = np.zeros(SHAPE)
        step[index] = h
        ahead, behind = (couple(votes + sign * step, couplings) for sign in (1, -1))
        expected[index] = np.sum(WEIGHTS * (ahead - behind)) / (2 * h)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)  # entries are of order 1, float32
    assert np.abs(full - expected).max() > 0.1


def test_stopped_gradient_reaches_what_is_learned_by_the_last_iteration_only():
    """A bias, which every iteration adds, moves the capsules as if the couplings were constant."""
    votes, start = make_votes(), 0.1 * jnp.ones(SHAPE[1:])

    def capsules(bias, gradient):
        return dynamic_routing(votes, iterations=3, gradient=gradient, bias=True, parameters={"bias": bias})

    def slope_of(capsules):
        return jax.grad(lambda bias: jnp.sum(WEIGHTS * capsules(bias)))(start)

    total = jnp.einsum("io,iod->od", capsules(start, "stop").couplings, votes)
    stopped, full = (slope_of(lambda bias, g=g: capsules(bias, g).capsules) for g in ("stop", "full"))
    constant = slope_of(lambda bias: SQUASHES["sabour"](total + bias))
    np.testing.assert_allclose(stopped, constant, rtol=1e-5, atol=1e-6)
    assert np.abs(full - constant).max() > 1e-3


@pytest.mark.parametrize("gradient", ["full", "stop"])
@pytest.mark.parametrize("iterations", [1, 3])
def test_gradient_at_zero_votes_is_finite(gradient, iterations):
    value, gradients = slope(iterations, gradient)(jnp.zeros(SHAPE))
    assert value == 0
    assert np.isfinite(gradients).all()


@pytest.mark.parametrize("scale", [1e-20, 1e3])
def test_extreme_votes_are_finite(scale):
    value, gradients = slope()(make_votes(scale=scale))
    assert np.isfinite(value)
    assert np.isfinite(gradients).all()


def test_coupling_grows_to_the_parent_that_the_votes_agree_on():
    votes = make_votes(seed=5, scale=0.3).at[:, 1].set(jnp.array([[1.0, -1.0, 0.5]]))
    shares = np.array([compiled(r)(votes).couplings[:, 1] for r in (1, 2, 3, 4)])
    np.testing.assert_array_equal(shares[0], np.full(6, 0.25))
    assert (np.diff(shares, axis=0) > 0).all()
    assert (shares[-1] > 0.8).all()


def test_high_temperature_is_uniform_and_low_is_all_or_nothing():
    votes = make_votes()
    hot, cold = compiled()(votes, 1e8), compiled()(votes, 1e-3)
    np.testing.assert_allclose(hot.couplings, np.full((6, 4), 0.25), atol=1e-6)
    np.testing.assert_allclose(hot.capsules, uniform_routing(votes).capsules, atol=1e-6)
    np.testing.assert_allclose(np.asarray(cold.couplings).max(axis=1), 1, atol=1e-3)


def test_votes_turned_around_turn_the_parents_around_and_change_nothing_else():
    """Without a bias routing cannot tell x from −x (Peer et al. 2019, arXiv:1905.08744): lengths, so classes, stay."""
    votes = make_votes()
    routing, turned = compiled()(votes), compiled()(-votes)
    np.testing.assert_array_equal(turned.capsules, -routing.capsules)
    np.testing.assert_array_equal(turned.couplings, routing.couplings)


def test_a_traced_temperature_varies_in_one_program():
    votes = make_votes()
    temperatures = jnp.array([0.5, 1.0, 4.0])
    routing = jax.jit(jax.vmap(lambda t: dynamic_routing(votes, temperature=t)))(temperatures)
    for index, temperature in enumerate([0.5, 1.0, 4.0]):
        expected = loop_routing(votes, 3, temperature)[1]
        np.testing.assert_allclose(routing.couplings[index], expected, rtol=1e-5, atol=1e-6)


def test_the_trace_is_what_the_loops_say_of_every_iteration():
    votes = make_votes()
    trace = jax.jit(lambda v: dynamic_routing(v, iterations=4, trace=True))(votes).trace
    for t in range(4):
        step = jax.tree.map(lambda leaf, t=t: leaf[t], trace)
        for got, expected in zip(parts(step), loop_routing(votes, t + 1), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(step.activations, np.linalg.norm(step.capsules, axis=1), rtol=1e-6)


def test_a_batch_is_not_one_examples_votes():
    with pytest.raises(TypeError, match="Type-check error"):
        dynamic_routing(make_votes(2, *SHAPE))


@pytest.mark.parametrize("iterations", [1, 3])
def test_leaky_couplings_leave_a_share_to_the_orphan(iterations):
    votes = np.random.default_rng(5).standard_normal((5, 3, 2))
    routing = dynamic_routing(jnp.float32(votes), iterations=iterations, leaky=True)
    logits = np.zeros((5, 3))
    for iteration in range(iterations):
        couplings = np.array([[np.exp(b) / (1 + sum(np.exp(row))) for b in row] for row in logits])
        capsules = couple(votes, couplings)
        if iteration < iterations - 1:
            logits += np.array([[votes[i, o] @ capsules[o] for o in range(3)] for i in range(5)])
    np.testing.assert_allclose(routing.couplings, couplings, rtol=1e-5)
    np.testing.assert_allclose(routing.capsules, capsules, rtol=1e-5, atol=1e-6)
    assert (np.sum(routing.couplings, axis=1) < 1).all()


def test_one_leaky_iteration_makes_no_votes():
    fixed = ROUTERS["dynamic"].fixed_couplings(4, 3, Dynamic(iterations=1, leaky=True), None)
    np.testing.assert_allclose(fixed.couplings, np.full((4, 3), 1 / 4))
    assert ROUTERS["dynamic"].fixed_couplings(4, 3, Dynamic(iterations=1, bias=True), None) is None


def test_a_bias_takes_part_in_every_iteration_and_breaks_the_symmetry_of_signs():
    votes, bias = np.random.default_rng(6).standard_normal((5, 3, 2)), np.full((3, 2), 0.1)
    logits = np.zeros((5, 3))
    for iteration in range(3):
        couplings = np.array([softmax(row) for row in logits])
        s = np.array([sum(couplings[i, o] * votes[i, o] for i in range(5)) + bias[o] for o in range(3)])
        norms = np.linalg.norm(s, axis=-1, keepdims=True)
        capsules = norms**2 / (1 + norms**2) * s / norms
        if iteration < 2:
            logits += np.array([[votes[i, o] @ capsules[o] for o in range(3)] for i in range(5)])
    route = partial(dynamic_routing, bias=True, parameters={"bias": jnp.float32(bias)})
    np.testing.assert_allclose(route(jnp.float32(votes)).capsules, capsules, rtol=1e-5)
    votes = jnp.float32(votes)
    np.testing.assert_allclose(dynamic_routing(-votes).capsules, -dynamic_routing(votes).capsules, rtol=1e-6)
    assert float(jnp.abs(route(-votes).capsules + route(votes).capsules).max()) > 0.01
    start = ROUTERS["dynamic"].initial_parameters(
        jax.random.key(0), 5, 3, 2, primary_dim=4, settings=Dynamic(bias=True)
    )
    np.testing.assert_array_equal(start["bias"], np.float32(bias))
