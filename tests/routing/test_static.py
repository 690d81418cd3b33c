import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.routing import learned_routing, random_routing, uniform_routing
from tests.routing.loops import couple, softmax

GENERATOR = np.random.default_rng(0)
VOTES = jnp.asarray(GENERATOR.standard_normal((6, 4, 3)), jnp.float32)
PRIOR = jnp.asarray(GENERATOR.standard_normal((6, 4)), jnp.float32)


@pytest.mark.parametrize("router", [learned_routing, random_routing])
def test_couplings_are_the_softmax_of_the_prior(router):
    routing = jax.jit(router)(VOTES, prior=PRIOR)
    couplings = np.array([softmax(row) for row in np.asarray(PRIOR, np.float64)])
    np.testing.assert_allclose(routing.couplings, couplings, rtol=1e-5)
    np.testing.assert_allclose(routing.capsules, couple(np.float64(VOTES), couplings), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(routing.logits, PRIOR)


@pytest.mark.parametrize("router", [learned_routing, random_routing])
def test_zero_prior_is_uniform(router):
    routing = jax.jit(router)(VOTES, prior=jnp.zeros((6, 4)))
    for got, expected in zip(routing, jax.jit(uniform_routing)(VOTES), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_prior_learns_only_where_it_is_learned():
    def slopes(router):
        loss = jax.grad(lambda v, p: jnp.sum(router(v, prior=p).capsules ** 2), (0, 1))
        return jax.jit(loss)(VOTES, PRIOR)

    (to_votes, to_prior), (same, none) = slopes(learned_routing), slopes(random_routing)
    assert float(jnp.abs(to_prior).max()) > 1e-3
    assert not none.any()
    np.testing.assert_allclose(same, to_votes, rtol=1e-5, atol=1e-7)
    # A constant added to all of one input's logits changes no coupling.
    np.testing.assert_allclose(jnp.sum(to_prior, axis=1), np.zeros(6), atol=1e-6)
