import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.ops.normalization import batch_norm, local_response_norm, moments, running_moments

X = np.random.default_rng(0).normal(1, 3, (4, 3, 2, 7)).astype(np.float32)


@pytest.mark.parametrize(
    "settings", [{}, {"size": 3, "k": 1.0, "alpha": 0.5, "beta": 0.5}, {"size": 9, "k": 0.5, "alpha": 0.1, "beta": 1.0}]
)
def test_local_response_norm_is_the_loops(settings):
    """Section 3.3's formula, channel by channel; a window may be wider than there are channels."""
    n, k, alpha, beta = ({"size": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75} | settings).values()
    out = jax.jit(lambda x: local_response_norm(x, **settings))(X)
    a = np.float64(X)
    for i in range(7):
        low, high = max(0, i - n // 2), min(6, i + n // 2)
        total = sum(a[..., j] ** 2 for j in range(low, high + 1))
        np.testing.assert_allclose(out[..., i], a[..., i] / (k + alpha * total) ** beta, rtol=1e-5)


def test_local_response_norm_of_nothing_has_a_gradient():
    gradient = jax.grad(lambda x: jnp.sum(local_response_norm(x)))(jnp.zeros((1, 1, 1, 6)))
    np.testing.assert_allclose(gradient, np.full((1, 1, 1, 6), 2**-0.75), rtol=1e-6)


def test_batch_norm_is_algorithm_1():
    scale, bias = np.linspace(0.5, 2, 7, dtype=np.float32), np.linspace(-1, 1, 7, dtype=np.float32)
    out = jax.jit(lambda x: batch_norm(x, *moments(x), jnp.asarray(scale), jnp.asarray(bias), 1e-3))(X)
    for c in range(7):
        values = [float(X[n, i, j, c]) for n in range(4) for i in range(3) for j in range(2)]
        mean = sum(values) / 24
        variance = sum((v - mean) ** 2 for v in values) / 24
        expected = scale[c] * (np.float64(X[..., c]) - mean) / np.sqrt(variance + 1e-3) + bias[c]
        np.testing.assert_allclose(out[..., c], expected, atol=1e-5)


def textbook(x, scale, bias, epsilon=1e-3):
    """Algorithm 1 as it is written, for autodiff."""
    mean = jnp.mean(x, axis=(0, 1, 2), keepdims=True)
    variance = jnp.mean((x - mean) ** 2, axis=(0, 1, 2), keepdims=True)
    return (x - mean) / jnp.sqrt(variance + epsilon) * scale[None, None, None] + bias[None, None, None]


def normalized(x, scale, bias):
    return batch_norm(x, *moments(x), scale, bias, 1e-3)


@pytest.mark.slow
def test_gradients_are_those_of_algorithm_1():
    """First and second derivatives, by autodiff of the formula in float64."""
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        at = jnp.asarray(X, jnp.float64), jnp.asarray(rng.normal(size=7)), jnp.asarray(rng.normal(size=7))
        weights, ways = jnp.asarray(rng.normal(size=X.shape)), [jnp.asarray(rng.normal(size=a.shape)) for a in at]

        def first(f):
            return jax.grad(lambda *at: jnp.sum(weights * jnp.sin(f(*at))), argnums=(0, 1, 2))

        def second(f):
            return jax.grad(
                lambda *at: sum(jnp.vdot(w, g) for w, g in zip(ways, first(f)(*at), strict=True)), (0, 1, 2)
            )

        for order in (first, second):
            for got, expected in zip(jax.jit(order(normalized))(*at), order(textbook)(*at), strict=True):
                np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-10)


def test_moments_used_twice_gather_both_gradients():
    """As in DenseNet, whose layers normalise the same channels by the same moments."""

    def twice(x, normed):
        return jnp.sum(jnp.sin(normed(x, 0)) * jnp.cos(normed(x, 1)))

    scales, biases = jnp.linspace(0.5, 2, 14).reshape(2, 7), jnp.linspace(-1, 1, 14).reshape(2, 7)

    def shared(x):
        batch = moments(x)
        return twice(x, lambda x, i: batch_norm(x, *batch, scales[i], biases[i], 1e-3))

    expected = jax.grad(lambda x: twice(x, lambda x, i: textbook(x, scales[i], biases[i])))(jnp.asarray(X))
    np.testing.assert_allclose(jax.jit(jax.grad(shared))(X), expected, atol=2e-6)


def test_moments_given_stand_still():
    """Where running moments are used, a channel is a straight line, and so is its gradient."""
    mean, variance, scale, bias = (jnp.linspace(low, 2, 7) for low in (-1, 0.5, -2, 0))
    gradient = jax.grad(lambda x: jnp.sum(batch_norm(x, mean, variance, scale, bias, 1e-3)))(jnp.asarray(X))
    np.testing.assert_allclose(gradient, jnp.broadcast_to(scale / jnp.sqrt(variance + 1e-3), X.shape), rtol=1e-6)


def test_a_distant_mean_leaves_the_variance_exact():
    """The mean of squares less the square of the mean would be off by all of it."""
    _, variance = jax.jit(moments)(jnp.asarray(X / 3 + 4096))
    np.testing.assert_allclose(variance, np.float64(np.float32(X / 3 + 4096)).reshape(24, 7).var(axis=0), rtol=1e-3)


def test_running_moments_move_by_a_tenth():
    old = jnp.full(7, 2.0), jnp.full(7, 3.0)
    mean, variance = running_moments(old, moments(jnp.asarray(X)), 24, momentum=0.9)
    flat = np.float64(X).reshape(24, 7)
    np.testing.assert_allclose(mean, 0.9 * 2 + 0.1 * flat.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(variance, 0.9 * 3 + 0.1 * flat.var(axis=0, ddof=1), rtol=1e-5)


def test_one_value_has_no_variance():
    one = moments(jnp.ones((1, 1, 1, 2)))
    _, variance = running_moments((jnp.zeros(2), jnp.ones(2)), one, 1, momentum=0.9)
    np.testing.assert_allclose(variance, [0.9, 0.9])
    out = batch_norm(jnp.ones((1, 1, 1, 2)), *one, jnp.ones(2), jnp.zeros(2), 1e-5)
    np.testing.assert_array_equal(out, jnp.zeros((1, 1, 1, 2)))
