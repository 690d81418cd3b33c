"""What is true of every entry of ROUTERS, whatever it computes."""

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.config import Choice
from capsnet_jax.ops.squash import length
from capsnet_jax.routing import ROUTERS, Router, Routing
from capsnet_jax.routing.layer import route_batch

INPUTS, OUTPUTS, DIM, PRIMARY_DIM = 7, 3, 4, 2  # all different: an axis is known by its size
POSITIVE = set(ROUTERS) - {"self_attention"}  # a learned number is added to couplings
SHARING = POSITIVE - {"max_min"}  # couplings of an input sum to 1
# Parents are as long as they are active; the others say it in another way.
SQUASHING = set(ROUTERS) - {"inverted_attention", "self_routing", "em", "variational"}
# The couplings are a softmax of the logits, and those of one iteration are uniform.
BY_SOFTMAX = {"dynamic", "inverted_attention", "self_routing", "uniform", "learned", "random"}
TRACING = [name for name, router in ROUTERS.items() if router.traces]


def make_votes(*shape: int, seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape or (INPUTS, OUTPUTS, DIM))


def parameters_of(name: str, inputs: int = INPUTS, outputs: int = OUTPUTS, dim: int = DIM, **settings) -> dict | None:
    """As a router draws them, and moved a little, as if it had learned."""
    chosen = dataclasses.replace(ROUTERS[name].settings, **settings)
    start = ROUTERS[name].initial_parameters(
        jax.random.key(1), inputs, outputs, dim, primary_dim=PRIMARY_DIM, settings=chosen
    )
    return jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(2), leaf.shape), start) or None


def poses_of(inputs: int = INPUTS) -> jax.Array:
    return jax.random.normal(jax.random.key(5), (inputs, PRIMARY_DIM))


def activations_of(inputs: int = INPUTS) -> jax.Array:
    return jax.random.uniform(jax.random.key(3), (inputs,), minval=0.1)


def route(name: str, votes: jax.Array, parameters: dict | None, activations: jax.Array, **more) -> Routing:
    poses = more.pop("poses", poses_of(len(votes)))
    return compiled(name, tuple(sorted(more.items())))(votes, activations, parameters, poses)


@cache
def compiled(name: str, settings: tuple[tuple[str, Any], ...]) -> Callable[..., Routing]:
    def run(votes, activations, parameters, poses):
        chosen = dict(settings)
        return ROUTERS[name](votes, poses=poses, activations=activations, parameters=parameters, **chosen)

    return jax.jit(run)


@cache
def with_gradients(name: str) -> Callable[..., Any]:
    weights = jnp.arange(1.0, 1 + OUTPUTS * DIM).reshape(OUTPUTS, DIM)

    def value(votes, parameters, poses, activations):
        routing = ROUTERS[name](votes, poses=poses, activations=activations, parameters=parameters)
        return jnp.vdot(weights, routing.capsules) + jnp.sum(routing.activations)

    return jax.jit(jax.value_and_grad(value, argnums=(0, 1, 2, 3)))


@pytest.mark.parametrize("name", ROUTERS)
@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
def test_couplings_are_shares_among_the_parents(name, scale):
    routing = route(name, scale * make_votes(), parameters_of(name), activations_of())
    assert routing.capsules.shape == (OUTPUTS, DIM)
    assert routing.activations.shape == (OUTPUTS,)
    assert routing.couplings.shape == routing.logits.shape == (INPUTS, OUTPUTS)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(routing))
    if name in POSITIVE:
        assert float(routing.couplings.min()) >= 0
    if name in SHARING:
        np.testing.assert_allclose(jnp.sum(routing.couplings, axis=1), np.ones(INPUTS), atol=1e-6)
    if name in BY_SOFTMAX:  # at temperature 1
        np.testing.assert_allclose(routing.couplings, jax.nn.softmax(routing.logits, axis=1), atol=1e-6)


@pytest.mark.parametrize("name", sorted(SQUASHING))
@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
def test_parents_are_squashed_and_their_activations_are_their_lengths(name, scale):
    routing = route(name, scale * make_votes(), parameters_of(name), activations_of())
    assert float(routing.activations.max()) < 1 + 1e-6
    np.testing.assert_allclose(routing.activations, np.linalg.norm(routing.capsules, axis=-1), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ROUTERS)
@pytest.mark.parametrize("inputs", [1, INPUTS])
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_values_and_gradients_are_finite_at_zero_votes_and_with_one_input(name, inputs, scale):
    votes = scale * make_votes(inputs, OUTPUTS, DIM)
    active = scale * activations_of(inputs)  # all capsules absent, as well as their votes 0
    results = with_gradients(name)(votes, parameters_of(name, inputs), scale * poses_of(inputs), active)
    for leaf in jax.tree.leaves(results):
        assert jnp.isfinite(leaf).all()


@pytest.mark.parametrize("name", ROUTERS)
def test_permuting_inputs_or_parents_permutes_the_routing(name):
    votes, activations, parameters = make_votes(), activations_of(), parameters_of(name)
    rows, columns = np.random.default_rng(2).permutation(INPUTS), np.random.default_rng(3).permutation(OUTPUTS)
    assert (rows != np.arange(INPUTS)).any()
    assert (columns != np.arange(OUTPUTS)).any()

    def permute(leaf):
        for axis, size in enumerate(leaf.shape):
            order = {INPUTS: rows, OUTPUTS: columns}.get(size)
            leaf = leaf if order is None else jnp.take(leaf, order, axis=axis)
        return leaf

    own = jax.tree.map(permute, parameters)
    plain = route(name, votes, parameters, activations)
    permuted = route(name, votes[rows][:, columns], own, activations[rows], poses=poses_of()[rows])
    # Sums in another order: float32 rounding.
    np.testing.assert_allclose(permuted.capsules, plain.capsules[columns], atol=1e-6)
    np.testing.assert_allclose(permuted.activations, plain.activations[columns], atol=1e-6)
    np.testing.assert_allclose(permuted.couplings, plain.couplings[rows][:, columns], atol=1e-6)
    np.testing.assert_allclose(permuted.logits, plain.logits[rows][:, columns], atol=1e-5)


@pytest.mark.parametrize("name", ROUTERS)
def test_the_layer_is_the_router_mapped_over_its_votes_whatever_the_batch(name):
    keys = jax.random.split(jax.random.key(4), 2)
    primary = jax.random.normal(keys[0], (5, INPUTS, PRIMARY_DIM))
    weights = jax.random.normal(keys[1], (INPUTS, OUTPUTS, PRIMARY_DIM, DIM))
    parameters, choice = parameters_of(name), Choice(name, ROUTERS[name].settings)
    layer = jax.jit(lambda primary: route_batch(primary, weights, choice, parameters))
    votes = jnp.einsum("bik,iokd->biod", primary, weights)

    def mapped(votes, poses, activations):
        return ROUTERS[name](votes, poses=poses, activations=activations, parameters=parameters)

    together, expected = layer(primary), jax.jit(jax.vmap(mapped))(votes, primary, length(primary))
    jax.tree.map(lambda got, wanted: np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6), together, expected)
    for index in range(5):
        alone = layer(primary[index : index + 1])
        jax.tree.map(
            lambda a, b, i=index: np.testing.assert_allclose(a[0], b[i], rtol=1e-5, atol=1e-6), alone, together
        )


@pytest.mark.parametrize("name", [name for name in sorted(BY_SOFTMAX) if hasattr(ROUTERS[name].settings, "iterations")])
def test_one_iteration_is_no_routing(name):
    votes = make_votes()
    once = route(name, votes, parameters_of(name), activations_of(), iterations=1, squash="sabour")
    jax.tree.map(np.testing.assert_array_equal, once, jax.jit(ROUTERS["uniform"])(votes))


def test_some_router_traces():
    assert TRACING


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACING)
@pytest.mark.parametrize("total", [1, 4])
def test_step_t_of_a_trace_is_a_run_of_t_iterations_and_the_last_is_the_result(name, total):
    arguments = make_votes(), parameters_of(name), activations_of()
    traced = route(name, *arguments, iterations=total, trace=True)
    assert traced.trace.couplings.shape == (total, INPUTS, OUTPUTS)
    plain = route(name, *arguments, iterations=total)
    for iterations in range(1, total + 1):
        run = route(name, *arguments, iterations=iterations)
        for field in ("capsules", "activations", "couplings", "logits"):
            np.testing.assert_allclose(getattr(traced.trace, field)[iterations - 1], getattr(run, field), atol=1e-6)
    for field in ("capsules", "activations", "couplings", "logits"):
        np.testing.assert_array_equal(getattr(traced, field), getattr(traced.trace, field)[-1])
        np.testing.assert_allclose(getattr(traced, field), getattr(plain, field), atol=1e-6)
    assert plain.trace is None


@pytest.mark.parametrize("name", ROUTERS)
def test_settings_are_the_routers_own_and_no_others(name):
    votes = make_votes()
    with pytest.raises(TypeError, match="nothing"):
        ROUTERS[name](votes, activations=activations_of(), parameters=parameters_of(name), nothing=1)


def test_a_router_gets_what_its_signature_names():
    offered = {"activations": activations_of(), "parameters": {"a": jnp.zeros(())}, "trace": True}
    got = {}

    def note(votes, **arguments):
        got.update(arguments)
        return ROUTERS["uniform"](votes)

    def named(votes, *, activations, parameters, trace):
        return note(votes, activations=activations, parameters=parameters, trace=trace)

    def frugal(votes, *, parameters):
        return note(votes, parameters=parameters)

    for function, names in ((named, set(offered)), (frugal, {"parameters"})):
        got.clear()
        router = Router(function)
        router(make_votes(), **offered)
        assert got.keys() == names
        assert all(got[name] is offered[name] for name in names)
        assert (router.takes("activations"), router.traces) == ("activations" in names, "trace" in names)


def test_a_router_without_a_route_or_couplings_is_a_mistake():
    with pytest.raises(ValueError, match="without `route` needs couplings from `fixed`"):
        Router(fixed=lambda inputs, outputs: None)(make_votes())


def test_implicit_rank_promotion_is_an_error_of_guests_too():
    def careless(votes):
        capsules = jnp.sum(votes, axis=0) + jnp.ones(DIM)
        return Routing(capsules, length(capsules), jnp.zeros(votes.shape[:2]), jnp.zeros(votes.shape[:2]))

    assert jax.config.jax_numpy_rank_promotion == "raise"
    with pytest.raises(ValueError, match="rank_promotion"):
        Router(careless)(make_votes())
