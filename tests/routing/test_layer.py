import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import overrides
from capsnet_jax.config import Choice
from capsnet_jax.ops.squash import length
from capsnet_jax.routing import ROUTERS, Router, Routing, layer
from tests.routing.loops import parts

BATCH, INPUTS, OUTPUTS, PRIMARY_DIM, DIM = 5, 7, 3, 4, 6


def choose(name, **settings) -> Choice:
    return overrides.build(
        {"routing.name": name, **{f"routing.{key}": value for key, value in settings.items()}}
    ).routing


SETTINGS = [
    choose("uniform"),
    choose("learned"),
    choose("random"),
    choose("dynamic", iterations=1),
    choose("dynamic", iterations=2, temperature=0.5),
    choose("dynamic", iterations=3),
    choose("dynamic", iterations=3, gradient="stop"),
    choose("dynamic", iterations=1, softmax_over="inputs"),
    choose("dynamic", iterations=3, softmax_over="inputs"),
]


def name_of(value) -> str | None:
    """A test's name for a choice."""
    if not isinstance(value, Choice):
        return None
    own = {k: v for k, v in vars(value.settings).items() if v != getattr(ROUTERS[value.name].settings, k)}
    return "-".join([value.name, *(f"{key}={text}" for key, text in own.items())])


def problem():
    """Primary capsules, weights, a prior, and a direction in which to look at each field of the result."""
    keys = iter(jax.random.split(jax.random.key(0), 6))
    shapes = [(BATCH, INPUTS, PRIMARY_DIM), (INPUTS, OUTPUTS, PRIMARY_DIM, DIM), (INPUTS, OUTPUTS)]
    fields = [(BATCH, OUTPUTS, DIM), (BATCH, INPUTS, OUTPUTS), (BATCH, INPUTS, OUTPUTS)]
    draws = [jax.random.normal(next(keys), shape) for shape in shapes + fields]
    return draws[:3], draws[3:]


def parameters_of(choice, prior):
    """A prior for routers that have parameters: all that are here have that one."""
    return {"prior": prior} if choice.name in {"learned", "random"} else None


def plainly(choice, primary, weights, prior):
    """All votes at once, and the router mapped over the images."""
    votes = jnp.einsum("bik,iokd->biod", primary, weights)
    return jax.vmap(partial(ROUTERS[choice.name], parameters=parameters_of(choice, prior), **vars(choice.settings)))(
        votes
    )


def routed(choice, primary, weights, prior):
    return layer.route_batch(primary, weights, choice, parameters_of(choice, prior))


def looked_at(route, settings, directions):
    """One number that depends on everything in the result."""

    def value(arguments):
        fields = parts(route(settings, *arguments))
        return sum(jnp.vdot(field, direction) for field, direction in zip(fields, directions, strict=True))

    return value


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "images"),
    [(settings, 2) for settings in SETTINGS] + [(SETTINGS[5], 1), (SETTINGS[6], 5), (SETTINGS[4], 9)],
    ids=name_of,
)
def test_any_number_of_images_at_a_time_is_the_router_mapped_over_all(settings, images, monkeypatch):
    """Value and gradients; two do not divide the five images, and nine are more than there are."""
    monkeypatch.setattr(layer, "CACHED_VOTES", images * INPUTS * OUTPUTS * DIM * 4)
    arguments, directions = problem()
    expected = plainly(settings, *arguments)
    got = jax.jit(partial(routed, settings))(*arguments)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), got, expected)
    wanted = jax.jit(jax.grad(looked_at(plainly, settings, directions)))(arguments)
    found = jax.jit(jax.grad(looked_at(routed, settings, directions)))(arguments)
    for got, gradient in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS[5:], ids=name_of)
def test_curvature_is_the_plain_one_in_both_orders_of_differentiation(settings, monkeypatch):
    monkeypatch.setattr(layer, "CACHED_VOTES", 2 * INPUTS * OUTPUTS * DIM * 4)
    arguments, directions = problem()
    along = jax.tree.map(jnp.ones_like, arguments)

    def forward_over_reverse(value):
        return jax.jvp(jax.grad(value), (arguments,), (along,))[1]

    def reverse_over_reverse(value):
        def slope(a):
            return sum(jnp.vdot(g, d) for g, d in zip(jax.grad(value)(a), along, strict=True))

        return jax.grad(slope)(arguments)

    expected = forward_over_reverse(looked_at(plainly, settings, directions))
    for order in (forward_over_reverse, reverse_over_reverse):
        found = jax.jit(lambda order=order: order(looked_at(routed, settings, directions)))()
        for got, field in zip(found, expected, strict=True):
            np.testing.assert_allclose(got, field, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_temperature_has_a_gradient():
    arguments, directions = problem()

    def value(route, temperature):
        settings = dataclasses.replace(ROUTERS["dynamic"].settings, temperature=temperature)
        return looked_at(route, Choice("dynamic", settings), directions)(arguments)

    wanted, found = (jax.grad(partial(value, route))(1.5) for route in (plainly, routed))
    assert abs(float(wanted)) > 0.1
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("on_cpu")  # others sum in another order for several runs
def test_runs_with_weights_of_their_own_are_mapped_over():
    (primary, weights, _), _ = problem()
    several = jnp.stack([weights, 2 * weights])
    settings = choose("dynamic", iterations=3)
    found = jax.vmap(lambda w: layer.route_batch(primary, w, settings))(several)
    for run, own in enumerate(several):
        np.testing.assert_allclose(found.capsules[run], layer.route_batch(primary, own, settings).capsules, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("on_cpu")
def test_memory_does_not_grow_with_the_iterations():
    """What the compiled gradient of a batch holds at once: with 7 iterations as much as with 2, but for 2 %."""
    shapes = (32, 200, 8), (200, 10, 8, 16)
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]

    def held(iterations):
        def value(primary, weights):
            return jnp.sum(layer.route_batch(primary, weights, choose("dynamic", iterations=iterations)).capsules ** 2)

        compiled = jax.jit(jax.grad(value, argnums=(0, 1))).lower(*arguments).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert held(7) < 1.02 * held(2)


@pytest.mark.slow
def test_a_coarser_precision_rounds_the_factors_alone():
    """Votes of bfloat16 factors, which are exact sums of few products here; routing of them in float32."""
    (primary, weights, _), _ = problem()
    settings = choose("dynamic", iterations=3)
    coarse_primary, coarse_weights = (x.astype("bfloat16").astype("float32") for x in (primary, weights))
    found = layer.route_batch(primary, weights, settings, precision="bfloat16")
    assert all(field.dtype == jnp.float32 for field in jax.tree.leaves(found))
    votes = jnp.einsum("bik,iokd->biod", coarse_primary, coarse_weights).astype("bfloat16").astype("float32")
    expected = jax.vmap(partial(ROUTERS["dynamic"], iterations=3))(votes)
    np.testing.assert_allclose(found.capsules, expected.capsules, rtol=0.02, atol=0.02)
    # Halves and their products have few digits: their votes are exact, and routing is as in float32.
    halves = [jnp.round(2 * x) / 2 for x in (primary, weights)]
    exact = layer.route_batch(*halves, settings, precision="bfloat16")
    expected = jax.vmap(partial(ROUTERS["dynamic"], iterations=3))(jnp.einsum("bik,iokd->biod", *halves))
    np.testing.assert_allclose(exact.capsules, expected.capsules, rtol=1e-5, atol=1e-6)
    assert float(jnp.abs(found.capsules - layer.route_batch(primary, weights, settings).capsules).max()) > 1e-5


@pytest.mark.parametrize("images", [2, 9])
@pytest.mark.parametrize("iterations", [1, 3])
def test_a_trace_is_the_routers_of_every_image(images, iterations, monkeypatch):
    monkeypatch.setattr(layer, "CACHED_VOTES", images * INPUTS * OUTPUTS * DIM * 4)
    (primary, weights, _), _ = problem()
    choice = choose("dynamic", iterations=iterations)
    got = jax.jit(lambda *a: layer.route_batch(*a, choice, trace=True))(primary, weights)
    votes = jnp.einsum("bik,iokd->biod", primary, weights)
    expected = jax.vmap(lambda v: ROUTERS["dynamic"](v, iterations=iterations, trace=True))(votes)
    assert got.trace.couplings.shape == (BATCH, iterations, INPUTS, OUTPUTS)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), got, expected)


def test_a_router_that_cannot_trace_is_asked_for_none():
    (primary, weights, prior), _ = problem()
    for choice in SETTINGS[:3]:
        assert layer.route_batch(primary, weights, choice, parameters_of(choice, prior), trace=True).trace is None


def weighted_mean(votes, *, activations) -> Routing:
    """Parents as means of the votes, weighed by the inputs' activations."""
    couplings = jnp.broadcast_to((activations / jnp.sum(activations))[:, None], votes.shape[:2])
    capsules = jnp.einsum("io,iod->od", couplings, votes)
    return Routing(capsules, length(capsules), couplings, jnp.log(couplings))


@pytest.mark.parametrize("images", [2, 9])
def test_activations_are_the_inputs_lengths_unless_they_are_given(images, monkeypatch):
    monkeypatch.setattr(layer, "CACHED_VOTES", images * INPUTS * OUTPUTS * DIM * 4)
    monkeypatch.setitem(ROUTERS, "mean", Router(weighted_mean))
    (primary, weights, _), _ = problem()
    votes = np.einsum("bik,iokd->biod", primary, weights)
    given = jnp.asarray(np.random.default_rng(0).uniform(0.1, 1, (BATCH, INPUTS)), jnp.float32)
    for activations in (None, given):
        routing = layer.route_batch(primary, weights, choose("mean"), activations=activations)
        shares = np.linalg.norm(primary, axis=-1) if activations is None else np.asarray(activations)
        shares = shares / shares.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(routing.capsules, np.einsum("bi,biod->bod", shares, votes), rtol=1e-4, atol=1e-5)


def test_fixed_couplings_make_no_votes(monkeypatch):
    monkeypatch.setattr(layer, "_route_votes", None)
    arguments, _ = problem()
    for choice in SETTINGS[:4]:
        routed(choice, *arguments)
    with pytest.raises(TypeError):
        routed(choose("dynamic", iterations=2), *arguments)
