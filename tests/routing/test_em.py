import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.routing.em import EVEN_INPUTS, Clusters, em_routing
from tests.routing.loops import softmax

VOTES = np.array([[[1, 0], [0, 1]], [[1, 0.2], [2, -1]], [[0.9, -0.2], [-1, 3]]])
ACTIVE = np.array([1, 0.5, 1])


def loop_em(votes, activations, beta_u, beta_a, iterations, *, final=0.01, floor=1e-4, deviation=1.0, normalize=False):
    """Procedure 1 of Hinton 2018, one number after the other in float64: (means, activations, R, logits) by step."""
    votes = np.float64(votes)
    inputs, outputs, dim = votes.shape
    logits, steps = np.zeros((inputs, outputs)), []
    for t in range(iterations):
        shares = np.array([softmax(row) for row in logits])
        means, active, logits_after = np.zeros((outputs, dim)), np.zeros(outputs), np.zeros((inputs, outputs))
        scale = EVEN_INPUTS if normalize else 1
        for o in range(outputs):
            weights = [shares[i, o] * activations[i] for i in range(inputs)]
            count, cost, density = sum(weights), 0.0, np.zeros(inputs)
            for h in range(dim):
                means[o, h] = sum(w * votes[i, o, h] for i, w in enumerate(weights)) / count
                squares = [(votes[i, o, h] - means[o, h]) ** 2 for i in range(inputs)]
                variance = sum(w * square for w, square in zip(weights, squares, strict=True)) / count + floor
                cost += (
                    (beta_u[o] + np.log(np.sqrt(variance) / deviation)) * count * (outputs / inputs if normalize else 1)
                )
                density -= 0.5 * (np.log(2 * np.pi * variance) + np.array(squares) / variance)
            active[o] = 1 / (1 + np.exp(-scale * final * (1 - 0.95 ** (t + 1)) * (beta_a[o] - cost)))
            logits_after[:, o] = np.log(active[o]) + density
        steps.append((means, active, shares, logits))
        logits = logits_after
    return steps


def zeros(outputs):
    return {"beta_u": jnp.zeros(outputs), "beta_a": jnp.zeros(outputs)}


def golden(**settings):
    votes, active = jnp.asarray(VOTES, jnp.float32), jnp.asarray(ACTIVE, jnp.float32)
    return em_routing(
        votes, activations=active, parameters=zeros(2), normalize=False, trace=True, variance_floor=1e-4, **settings
    ).trace


def test_the_golden_values():
    trace = golden(iterations=3)
    np.testing.assert_allclose(trace.capsules[0], [[0.96, -0.04], [0, 1.4]], atol=5e-6)
    np.testing.assert_allclose(trace.activations[0], [0.5007645, 0.4999227], atol=6e-8)
    np.testing.assert_allclose(trace.couplings[1][:, 0], [0.993752, 0.99882, 0.993868], atol=2e-6)
    np.testing.assert_allclose(trace.capsules[2], [[0.96019, -0.03926], [-0.61775, 2.23588]], atol=1e-5)
    np.testing.assert_allclose(trace.activations[2], [0.5043226, 0.5000059], atol=2e-7)


@pytest.mark.parametrize("normalize", [True, False])
def test_is_the_loop(normalize):
    keys = jax.random.split(jax.random.key(0), 4)
    votes, active = jax.random.normal(keys[0], (6, 4, 3)), jax.random.uniform(keys[1], (6,), minval=0.1)
    betas = {name: jax.random.normal(key, (4,)) for name, key in zip(("beta_u", "beta_a"), keys[2:], strict=True)}
    settings = {"inverse_temperature": 0.05, "variance_floor": 0.01, "deviation": 0.3, "normalize": normalize}
    got = em_routing(votes, activations=active, parameters=betas, iterations=4, trace=True, **settings).trace
    expected = loop_em(votes, active, **betas, iterations=4, final=0.05, floor=0.01, deviation=0.3, normalize=normalize)
    for t, step in enumerate(expected):
        for found, wanted in zip(got, step, strict=True):
            np.testing.assert_allclose(found[t], wanted, rtol=3e-4, atol=3e-5)


def test_normalised_costs_do_not_depend_on_how_often_each_input_is_there():
    votes, active = jnp.asarray(VOTES, jnp.float32), jnp.asarray(ACTIVE, jnp.float32)
    betas = {"beta_u": jnp.array([0.3, -0.2]), "beta_a": jnp.array([0.1, 0.2])}
    once = em_routing(votes, activations=active, parameters=betas)
    thrice = em_routing(jnp.tile(votes, (3, 1, 1)), activations=jnp.tile(active, 3), parameters=betas)
    np.testing.assert_allclose(thrice.activations, once.activations, rtol=1e-4)
    np.testing.assert_allclose(thrice.capsules, once.capsules, rtol=1e-4, atol=1e-5)


def test_gradients_pass_through_every_iteration():
    """A finite difference of all iterations, in the direction of random votes."""
    direction, weights = (
        jax.random.normal(jax.random.key(key), shape) for key, shape in ((1, VOTES.shape), (2, (2, 2)))
    )
    betas = {"beta_u": np.array([0.3, -0.2]), "beta_a": np.array([0.1, 0.2])}

    def value(votes):
        active = jnp.asarray(ACTIVE, jnp.float32)
        routing = em_routing(votes, activations=active, parameters=betas, iterations=3, variance_floor=1e-4)
        return jnp.vdot(weights, routing.capsules) + jnp.sum(jnp.array([3.0, 5.0]) * routing.activations)

    def exact(votes):
        means, active, _, _ = loop_em(votes, ACTIVE, **betas, iterations=3, normalize=True)[-1]
        return np.vdot(weights, means) + active @ [3.0, 5.0]

    slope = jnp.vdot(jax.jit(jax.grad(value))(jnp.asarray(VOTES, jnp.float32)), direction)
    step = 1e-5 * np.float64(direction)
    expected = (exact(VOTES + step) - exact(VOTES - step)) / 2e-5
    assert float(slope) == pytest.approx(expected, rel=2e-3)


def test_a_parent_with_one_input_has_the_floor_as_variance():
    votes = jnp.array([[[3.0, -2.0]]])
    routing = em_routing(
        votes, activations=jnp.ones(1), parameters=zeros(1), variance_floor=0.25, inverse_temperature=1.0, iterations=1,
        normalize=False,
    )  # fmt: skip
    np.testing.assert_allclose(routing.capsules, [[3, -2]], rtol=1e-5)
    # cost = 2 ln 0.5, times λ₀ = 0.05.
    np.testing.assert_allclose(routing.activations, [1 / (1 + np.exp(0.05 * 2 * np.log(0.5)))], rtol=1e-5)


def test_parents_without_inputs_have_mean_0():
    routing = em_routing(jnp.ones((3, 2, 4)), activations=jnp.zeros(3), parameters=zeros(2))
    np.testing.assert_array_equal(routing.capsules, np.zeros((2, 4)))
    np.testing.assert_allclose(routing.activations, 0.5)


def test_moments_and_distances_do_not_depend_on_the_centre():
    votes, weights = jax.random.normal(jax.random.key(3), (9, 2, 3)), jax.random.uniform(jax.random.key(4), (9, 2))
    clusters = Clusters.around(votes + 10, weights)
    other = jax.random.uniform(jax.random.key(5), (9, 2))
    count, mean, scatter = clusters.fit(other)
    exact, shares = np.float64(votes) + 10, np.float64(other)
    np.testing.assert_allclose(count, shares.sum(axis=0), rtol=1e-6)
    expected = np.einsum("io,iod->od", shares, exact) / shares.sum(axis=0)[:, None]
    np.testing.assert_allclose(mean, expected, rtol=1e-5)
    np.testing.assert_allclose(scatter, np.einsum("io,iod->od", shares, (exact - expected) ** 2), rtol=1e-4)
    precision = jnp.arange(1.0, 7).reshape(2, 3)
    distances = np.einsum("iod,od->io", (exact - 9) ** 2, precision)
    np.testing.assert_allclose(clusters.distances(jnp.full((2, 3), 9.0), precision), distances, rtol=1e-4)
