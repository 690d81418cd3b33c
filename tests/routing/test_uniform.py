import jax
import jax.numpy as jnp
import numpy as np

from capsnet_jax.routing import ROUTERS
from tests.routing.loops import couple


def test_every_parent_gets_an_equal_share():
    votes = np.random.default_rng(0).standard_normal((7, 5, 3))
    routing = jax.jit(ROUTERS["uniform"])(jnp.asarray(votes, jnp.float32))
    np.testing.assert_array_equal(routing.couplings, np.full((7, 5), np.float32(0.2)))
    np.testing.assert_allclose(routing.capsules, couple(votes, np.full((7, 5), 0.2)), rtol=1e-5, atol=1e-7)
    assert not routing.logits.any()


def test_hand_worked():
    # Two inputs, two parents: s = ((3, 4) + (3, 4)) / 2, length 5 → 25/26; the other parent's votes cancel.
    votes = jnp.array([[[3.0, 4.0], [1.0, 0.0]], [[3.0, 4.0], [-1.0, 0.0]]])
    capsules = jax.jit(ROUTERS["uniform"])(votes).capsules
    np.testing.assert_allclose(capsules, [[15 / 26, 20 / 26], [0, 0]], rtol=1e-6)
