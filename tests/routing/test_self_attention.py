import jax
import jax.numpy as jnp
import numpy as np

from capsnet_jax.routing import ROUTERS
from capsnet_jax.routing.self_attention import self_attention_routing
from tests.routing.loops import softmax

INPUTS, OUTPUTS, DIM = 6, 4, 3


def loop_self_attention(votes, bias):
    """The paper's equations in float64, with the whole matrix A of agreements between inputs."""
    votes = np.float64(votes)
    inputs, outputs, dim = votes.shape
    agreement = np.zeros((inputs, inputs, outputs))
    for i in range(inputs):
        for k in range(inputs):
            for n in range(outputs):
                agreement[i, k, n] = votes[i, n] @ votes[k, n] / np.sqrt(dim)
    scores = agreement.sum(axis=1)
    couplings = np.array([softmax(scores[i]) for i in range(inputs)]) + bias
    capsules = np.zeros((outputs, dim))
    for n in range(outputs):
        s = sum(couplings[i, n] * votes[i, n] for i in range(inputs))
        norm = np.sqrt(s @ s)
        capsules[n] = (1 - np.exp(-norm)) * s / norm
    return capsules, couplings, scores


def test_is_the_loop_with_the_whole_matrix():
    votes = jax.random.normal(jax.random.key(0), (INPUTS, OUTPUTS, DIM))
    bias = 0.3 * jax.random.normal(jax.random.key(1), (INPUTS, OUTPUTS))
    routing = jax.jit(self_attention_routing)(votes, parameters={"bias": bias})
    capsules, couplings, scores = loop_self_attention(votes, np.float64(bias))
    np.testing.assert_allclose(routing.capsules, capsules, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(routing.couplings, couplings, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(routing.logits, scores, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(routing.activations, np.linalg.norm(capsules, axis=1), rtol=1e-4)


def test_two_votes_by_hand():
    """Orthogonal votes for one parent, of lengths 1 and √2: scores 1/√2 and √2."""
    votes = jnp.array([[[1.0, 0], [1, 1]], [[0, 1], [1, -1]]])  # [inputs, outputs, dim]
    routing = jax.jit(self_attention_routing)(votes, parameters={"bias": jnp.zeros((2, 2))})
    np.testing.assert_allclose(routing.logits, [[0.70711, 1.41421]] * 2, atol=1e-5)
    np.testing.assert_allclose(routing.couplings, [[0.330238, 0.669762]] * 2, atol=1e-6)
    np.testing.assert_allclose(routing.activations, [0.373137, 0.738029], atol=1e-6)


def test_its_memory_grows_with_the_inputs_and_not_with_their_square():
    inputs = 1000
    votes, bias = jnp.zeros((inputs, 2, 2)), jnp.zeros((inputs, 2))
    program = jax.make_jaxpr(lambda votes: self_attention_routing(votes, parameters={"bias": bias}))(votes)
    assert max(v.aval.size for equation in program.eqns for v in equation.outvars) <= votes.size


def test_the_bias_starts_at_0_and_gets_a_gradient():
    start = ROUTERS["self_attention"].initial_parameters(
        jax.random.key(0), 3, 2, 4, primary_dim=5, settings=ROUTERS["self_attention"].settings
    )
    assert {name: leaf.shape for name, leaf in start.items()} == {"bias": (3, 2)}
    assert not start["bias"].any()
    votes = jax.random.normal(jax.random.key(1), (3, 2, 4))
    value = jax.grad(lambda p: self_attention_routing(votes, parameters=p).activations[0])
    gradient = jax.jit(value)(start)["bias"]
    assert jnp.abs(gradient[:, 0]).min() > 1e-4
    assert not gradient[:, 1].any()
