import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import digamma, polygamma

from capsnet_jax.routing.variational import digamma as own_digamma
from capsnet_jax.routing.variational import variational_routing
from tests.routing.loops import softmax

DEFAULT = {"prior_count": 1.0, "prior_mean_count": 1.0, "prior_freedom": 1.0, "prior_scatter": 1.0}


def loop_variational(votes, activations, beta_u, beta_a, iterations, priors):
    """Algorithm 1 of Ribeiro 2020 with diagonal precisions, one number after the other in float64."""
    votes = np.float64(votes)
    inputs, outputs, dim = votes.shape
    logits = np.zeros((inputs, outputs))
    for _ in range(iterations):
        used, shares = logits, np.array([softmax(row) for row in logits])
        weights = shares * np.float64(activations)[:, None]
        alphas = priors["prior_count"] + weights.sum(axis=0)
        means, active, logits = np.zeros((outputs, dim)), np.zeros(outputs), np.zeros((inputs, outputs))
        for o in range(outputs):
            count = sum(weights[:, o])
            kappa, nu = priors["prior_mean_count"] + count, dim + priors["prior_freedom"] + count
            inverse_scale = np.zeros(dim)
            for h in range(dim):
                average = sum(weights[i, o] * votes[i, o, h] for i in range(inputs)) / count
                means[o, h] = count * average / kappa
                scatter = sum(weights[i, o] * (votes[i, o, h] - average) ** 2 for i in range(inputs))
                shrunk = priors["prior_mean_count"] * count / kappa * average**2
                inverse_scale[h] = priors["prior_scatter"] + scatter + shrunk
            log_det = sum(digamma((nu - d) / 2) for d in range(dim)) + dim * np.log(2) - sum(np.log(inverse_scale))
            log_pi = digamma(alphas[o]) - digamma(sum(alphas))
            entropy = 0.5 * dim * np.log(2 * np.pi * np.e) - 0.5 * log_det
            active[o] = 1 / (1 + np.exp(-(beta_a[o] - beta_u[o] - np.exp(log_pi) * entropy)))
            for i in range(inputs):
                distance = dim / kappa + nu * sum((votes[i, o] - means[o]) ** 2 / inverse_scale)
                logits[i, o] = log_pi + 0.5 * log_det - 0.5 * dim * np.log(2 * np.pi) - 0.5 * distance
    return means, active, shares, used


@pytest.mark.parametrize(
    ("iterations", "priors"),
    [
        (1, DEFAULT),
        (4, DEFAULT),
        (3, {"prior_count": 2.0, "prior_mean_count": 0.5, "prior_freedom": 3.0, "prior_scatter": 0.2}),
    ],
)
def test_is_the_loop(iterations, priors):
    keys = jax.random.split(jax.random.key(0), 4)
    votes, active = jax.random.normal(keys[0], (6, 4, 3)), jax.random.uniform(keys[1], (6,), minval=0.1)
    betas = {name: jax.random.normal(key, (4,)) for name, key in zip(("beta_u", "beta_a"), keys[2:], strict=True)}
    got = variational_routing(votes, activations=active, parameters=betas, iterations=iterations, **priors)
    expected = loop_variational(votes, active, **betas, iterations=iterations, priors=priors)
    for found, wanted in zip(got[:4], expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-5)


@pytest.mark.slow
def test_the_more_votes_the_less_the_prior_says():
    """With many equal votes the means are the votes, with one they are half of it."""
    betas = {"beta_u": jnp.zeros(1), "beta_a": jnp.zeros(1)}
    for count, expected in ((1, 0.5), (999, 0.999)):
        votes = jnp.ones((count, 1, 2))
        routing = variational_routing(votes, activations=jnp.ones(count), parameters=betas, iterations=1)
        np.testing.assert_allclose(routing.capsules, np.full((1, 2), expected), rtol=1e-5)


def test_digamma_and_its_slope_are_scipys():
    x = np.concatenate([np.linspace(0.05, 3, 60), np.geomspace(3, 1e5, 40)])
    value, slope = jax.vmap(jax.value_and_grad(own_digamma))(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(value, digamma(np.float64(np.float32(x))), rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(slope, polygamma(1, np.float64(np.float32(x))), rtol=1e-5)
