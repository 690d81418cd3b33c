import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.routing.max_min import max_min_couplings, max_min_routing
from capsnet_jax.routing.result import weighted_parents
from tests.routing.loops import couple


def loop_max_min(votes, iterations):
    """The paper's algorithm, one number after the other in float64."""
    votes = np.float64(votes)
    inputs, outputs, _ = votes.shape
    logits = np.zeros((inputs, outputs))
    for iteration in range(iterations):
        couplings = np.ones((inputs, outputs))
        if iteration:
            for i in range(inputs):
                least, greatest = min(logits[i]), max(logits[i])
                couplings[i] = [(b - least) / (greatest - least) for b in logits[i]]
        capsules = couple(votes, couplings)
        if iteration < iterations - 1:
            for i in range(inputs):
                for o in range(outputs):
                    logits[i, o] += votes[i, o] @ capsules[o]
    return capsules, couplings, logits


@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
def test_is_the_loop(iterations):
    votes = jax.random.normal(jax.random.key(0), (6, 4, 3))
    routing = jax.jit(max_min_routing, static_argnames="iterations")(votes, iterations=iterations)
    for got, expected in zip(routing[:4:2], loop_max_min(votes, iterations)[:2], strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(routing.activations, np.linalg.norm(routing.capsules, axis=-1), rtol=1e-5)


def test_by_hand():
    couplings = max_min_couplings(jnp.array([[1.0, 2.0, 5.0], [3.0, 3.0, 3.0]]))
    np.testing.assert_allclose(couplings, [[0, 0.25, 1], [1, 1, 1]])


@pytest.mark.parametrize("span", [1e-38, 1e-25, 1e-13, 1e-11, 1e-3])
def test_the_gradient_is_finite_however_little_logits_differ(span):
    value, slope = jax.value_and_grad(lambda logits: max_min_couplings(logits)[0, 1])(
        jnp.array([[0.0, span / 4, span]])
    )
    assert float(value) == pytest.approx(0.25 if span > 1e-12 else 1)
    np.testing.assert_allclose(slope, [[-0.75 / span, 1 / span, -0.25 / span] if span > 1e-12 else [0] * 3], rtol=1e-4)


def test_each_input_has_a_parent_of_coupling_1_and_one_of_0():
    couplings = max_min_routing(jax.random.normal(jax.random.key(1), (9, 5, 4))).couplings
    np.testing.assert_allclose(np.asarray(couplings).max(axis=1), np.ones(9), rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(couplings).min(axis=1), np.zeros(9))


@pytest.mark.slow
def test_the_gradient_does_not_pass_through_couplings_that_are_stopped():
    votes = jax.random.normal(jax.random.key(2), (4, 3, 2))
    direction = jax.random.normal(jax.random.key(3), (3, 2))

    def value(votes, **settings):
        return jnp.vdot(direction, max_min_routing(votes, **settings).capsules)

    couplings = max_min_routing(votes).couplings
    fixed = jax.grad(lambda votes: jnp.vdot(direction, weighted_parents(votes, couplings)))(votes)
    np.testing.assert_allclose(jax.grad(value)(votes, gradient="stop"), fixed, rtol=1e-5, atol=1e-6)
    assert float(jnp.abs(jax.grad(value)(votes) - fixed).max()) > 1e-3
