import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.routing import ROUTERS
from tests.routing.loops import couple, softmax

GENERATOR = np.random.default_rng(0)
VOTES = jnp.asarray(GENERATOR.standard_normal((6, 4, 3)), jnp.float32)
PRIOR = jnp.asarray(GENERATOR.standard_normal((6, 4)), jnp.float32)


@pytest.mark.parametrize("name", ["learned", "random"])
def test_couplings_are_the_softmax_of_the_prior(name):
    routing = jax.jit(ROUTERS[name])(VOTES, parameters={"prior": PRIOR})
    couplings = np.array([softmax(row) for row in np.asarray(PRIOR, np.float64)])
    np.testing.assert_allclose(routing.couplings, couplings, rtol=1e-5)
    np.testing.assert_allclose(routing.capsules, couple(np.float64(VOTES), couplings), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(routing.logits, PRIOR)


@pytest.mark.parametrize("name", ["learned", "random"])
def test_zero_prior_is_uniform(name):
    routing = jax.jit(ROUTERS[name])(VOTES, parameters={"prior": jnp.zeros((6, 4))})
    expected = jax.jit(ROUTERS["uniform"])(VOTES)
    jax.tree.map(lambda got, wanted: np.testing.assert_allclose(got, wanted, atol=1e-6), routing, expected)


def test_prior_learns_only_where_it_is_learned():
    def slopes(name):
        loss = jax.grad(lambda v, p: jnp.sum(ROUTERS[name](v, parameters={"prior": p}).capsules ** 2), (0, 1))
        return jax.jit(loss)(VOTES, PRIOR)

    (to_votes, to_prior), (same, none) = slopes("learned"), slopes("random")
    assert float(jnp.abs(to_prior).max()) > 1e-3
    assert not none.any()
    np.testing.assert_allclose(same, to_votes, rtol=1e-5, atol=1e-7)
    # A constant added to all of one input's logits changes no coupling.
    np.testing.assert_allclose(jnp.sum(to_prior, axis=1), np.zeros(6), atol=1e-6)


def test_priors_begin_as_their_routers_say():
    def start(name, inputs):
        return ROUTERS[name].parameters(jax.random.key(0), inputs, 10, 16)["prior"]

    assert not start("learned", 40).any()
    drawn = np.asarray(start("random", 400))
    # Standard normal; 4,000 draws know mean and deviation to 0.016 and 0.011.
    assert abs(drawn.mean()) < 0.08
    assert abs(drawn.std() - 1) < 0.06
