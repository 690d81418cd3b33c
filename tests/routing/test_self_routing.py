import jax
import jax.numpy as jnp
import numpy as np

from capsnet_jax.routing import ROUTERS
from capsnet_jax.routing.self_routing import self_routing
from tests.routing.loops import softmax

INPUTS, OUTPUTS, DIM, PRIMARY_DIM = 6, 4, 3, 2


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


VOTES, POSES = draw(0, INPUTS, OUTPUTS, DIM), draw(1, INPUTS, PRIMARY_DIM)
ACTIVE = jax.random.uniform(jax.random.key(2), (INPUTS,))
PARAMETERS = {"weights": draw(3, INPUTS, PRIMARY_DIM, OUTPUTS), "bias": draw(4, INPUTS, OUTPUTS)}


@jax.jit
def route(active=ACTIVE, parameters=PARAMETERS):
    return self_routing(VOTES, poses=POSES, activations=active, parameters=parameters)


def loop_self_routing():
    """The paper's equations, one number after the other in float64."""
    votes, poses, active = np.float64(VOTES), np.float64(POSES), np.float64(ACTIVE)
    weights, bias = np.float64(PARAMETERS["weights"]), np.float64(PARAMETERS["bias"])
    couplings = np.array([softmax(poses[i] @ weights[i] + bias[i]) for i in range(INPUTS)])
    present, capsules = np.zeros(OUTPUTS), np.zeros((OUTPUTS, DIM))
    for j in range(OUTPUTS):
        received = sum(couplings[i, j] * active[i] for i in range(INPUTS))
        present[j] = received / sum(active)
        capsules[j] = sum(couplings[i, j] * active[i] * votes[i, j] for i in range(INPUTS)) / received
    return capsules, present, couplings


def test_is_the_loop():
    for got, expected in zip(route()[:3], loop_self_routing(), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_activations_sum_to_1_and_do_not_change_with_the_scale_of_the_inputs():
    np.testing.assert_allclose(jnp.sum(route().activations), 1, rtol=1e-6)
    np.testing.assert_allclose(route(0.01 * ACTIVE).activations, route().activations, rtol=1e-5)


def test_a_single_active_input_sends_its_votes_and_its_couplings():
    routing = route(jnp.zeros(INPUTS).at[2].set(0.7))
    np.testing.assert_allclose(routing.capsules, VOTES[2], rtol=1e-5)
    np.testing.assert_allclose(routing.activations, routing.couplings[2], rtol=1e-5)


def test_inputs_that_are_all_absent_have_absent_parents():
    gradient = jax.jit(jax.grad(lambda active: jnp.sum(route(active).capsules) + route(active).activations[0]))
    for scale in (0.0, 1e-30, 1e-13, 1e-11):
        absent = jnp.full(INPUTS, scale)
        assert jnp.isfinite(gradient(absent)).all()
        assert all(leaf.any() == (scale == 1e-11) for leaf in route(absent)[:2])


def test_starts_uniform_and_learns_from_its_poses():
    start = ROUTERS["self_routing"].initial_parameters(
        jax.random.key(0), INPUTS, OUTPUTS, DIM, primary_dim=PRIMARY_DIM, settings=ROUTERS["self_routing"].settings
    )
    assert jax.tree.map(jnp.shape, start) == jax.tree.map(jnp.shape, PARAMETERS)
    np.testing.assert_allclose(route(parameters=start).activations, np.full(OUTPUTS, 1 / OUTPUTS), rtol=1e-6)
    gradient = jax.jit(jax.grad(lambda parameters: route(parameters=parameters).activations[1]))(start)
    assert jnp.abs(gradient["weights"]).min() > 1e-5
