import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.ops.squash import SQUASHES, exponential_squash, length, squash


def loop_squash(s) -> np.ndarray:
    """Equation 1 of Sabour 2017 as printed, vector by vector in float64."""
    s = np.asarray(s, np.float64)
    out = np.zeros(s.shape)
    for index in np.ndindex(s.shape[:-1]):
        vector = s[index]
        norm = np.sqrt(sum(x * x for x in vector))
        out[index] = norm**2 / (1 + norm**2) * vector / norm
    return out


def vectors(*shape: int, scale: float = 1.0) -> jax.Array:
    return jnp.asarray(scale * np.random.default_rng(0).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1.0, 30.0, 1e6, 1e15])
@pytest.mark.parametrize("transform", [jax.jit, jax.vmap])
def test_is_the_papers_equation(scale, transform):
    s = vectors(3, 5, 4, scale=scale)
    # A handful of float32 roundings, each 6e-8.
    np.testing.assert_allclose(transform(squash)(s), loop_squash(s), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_keeps_the_direction_and_maps_the_length(scale):
    s = vectors(20, 8, scale=scale)
    v = np.asarray(squash(s), np.float64)
    norms, lengths = np.linalg.norm(s, axis=-1), np.linalg.norm(v, axis=-1)
    np.testing.assert_allclose(lengths, norms**2 / (1 + norms**2), rtol=1e-6)
    np.testing.assert_allclose(v / lengths[:, None], np.asarray(s) / norms[:, None], atol=1e-6)
    assert (lengths < 1).all()


def test_hand_worked():
    # |(3, 4)| = 5, so the length becomes 25/26; |(0.6, 0.8)| = 1 becomes 1/2.
    v = squash(jnp.array([[3.0, 4.0], [0.6, 0.8]]))
    np.testing.assert_allclose(v, [[3 / 5 * 25 / 26, 4 / 5 * 25 / 26], [0.3, 0.4]], rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_axis(axis):
    s = vectors(3, 4, 5)
    expected = np.moveaxis(loop_squash(jnp.moveaxis(s, axis, -1)), -1, axis)
    np.testing.assert_allclose(squash(s, axis=axis), expected, rtol=1e-6)


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap])
def test_zero_has_value_and_gradient_zero(transform):
    zero = jnp.zeros((3, 4))
    assert not transform(squash)(zero).any()
    assert not transform(jax.jacobian(squash))(zero).any()
    assert not transform(length)(zero).any()
    assert not transform(jax.jacobian(length))(zero).any()
    assert not jax.jit(jax.grad(lambda s: jnp.sum(length(transform(squash)(s)))))(zero).any()


def test_one_zero_vector_among_others_spoils_nothing():
    s = vectors(3, 4).at[1].set(0)

    slope = jax.jit(jax.grad(lambda s: jnp.sum(length(squash(s)) ** 2)))
    gradient = np.asarray(slope(s))
    np.testing.assert_allclose(gradient[[0, 2]], slope(s[::2]), rtol=1e-6)
    assert not gradient[1].any()


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-20, 1e-10, 1e10, 1e18])
def test_tiny_and_huge_vectors_are_finite(scale):
    s = vectors(4, 8, scale=scale)
    v, gradient = jax.jit(jax.value_and_grad(lambda s: jnp.sum(length(squash(s)))))(s)
    assert jnp.isfinite(v)
    assert jnp.isfinite(gradient).all()
    expected = loop_squash(s)
    np.testing.assert_allclose(squash(s), expected, rtol=1e-5, atol=1e-30)  # below that, flushed to 0


def test_gradient_is_the_finite_difference():
    s, direction = vectors(5, 3), vectors(5, 3)[::-1]
    h = 1e-5  # of a float64 oracle: error about h² = 1e-10
    ahead, behind = (loop_squash(np.float64(s) + sign * h * np.float64(direction)) for sign in (1, -1))
    _, tangent = jax.jit(lambda s, d: jax.jvp(squash, (s,), (d,)))(s, direction)
    np.testing.assert_allclose(tangent, (ahead - behind) / (2 * h), rtol=1e-4, atol=1e-6)


def test_length_is_euclidean():
    v = vectors(6, 5)
    expected = [np.sqrt(sum(float(x) ** 2 for x in row)) for row in v]
    np.testing.assert_allclose(length(v), expected, rtol=1e-6)
    unit = jax.jit(jax.grad(lambda v: jnp.sum(length(v))))(v)
    np.testing.assert_allclose(unit, np.asarray(v) / np.array(expected)[:, None], rtol=1e-5)


@pytest.mark.parametrize("name", SQUASHES)
def test_every_squash_is_finite_at_zero_and_takes_an_axis(name):
    """What a squash must keep to be listed."""
    each = SQUASHES[name]
    zero = jnp.zeros((2, 4))
    assert jnp.isfinite(jax.jit(each)(zero)).all()
    assert jnp.isfinite(jax.jit(jax.jacobian(each))(zero)).all()
    s = vectors(3, 4, 5)
    np.testing.assert_allclose(each(s, axis=1), jnp.moveaxis(each(jnp.moveaxis(s, 1, -1)), -1, 1), rtol=1e-6)


def test_the_papers_squash_is_listed():
    assert SQUASHES["sabour"] is squash


def loop_exponential(s) -> np.ndarray:
    """(1 − e^{−n}) s/n, vector by vector in float64."""
    s = np.asarray(s, np.float64)
    out = np.zeros(s.shape)
    for index in np.ndindex(s.shape[:-1]):
        norm = np.sqrt(sum(x * x for x in s[index]))
        out[index] = -np.expm1(-norm) * s[index] / norm
    return out


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e-3, 1.0, 30.0, 1e15])
def test_the_exponential_squash_is_its_equation(scale):
    s = vectors(3, 5, 4, scale=scale)
    np.testing.assert_allclose(exponential_squash(s), loop_exponential(s), rtol=1e-6, atol=1e-30)
    s = vectors(4, 8, scale=scale)
    gradient = jax.jit(jax.grad(lambda s: jnp.sum(length(exponential_squash(s)))))(s)
    norms = np.linalg.norm(np.float64(s), axis=-1, keepdims=True)
    expected = np.exp(-norms) * np.float64(s) / norms if scale > 1e-19 else 0.0  # shorter ones count as 0
    np.testing.assert_allclose(gradient, expected, rtol=2e-4, atol=1e-6)


def test_the_exponential_squash_at_its_limits():
    zero = jnp.zeros(4)
    np.testing.assert_array_equal(exponential_squash(zero), zero)
    np.testing.assert_array_equal(jax.jacobian(exponential_squash)(zero), np.eye(4))  # sabour's is 0
    short, long = vectors(6, 4, scale=1e-6), vectors(6, 4, scale=1e3)
    np.testing.assert_allclose(exponential_squash(short), short, rtol=1e-5)
    np.testing.assert_allclose(length(exponential_squash(long)), 1, rtol=1e-6)
    np.testing.assert_allclose(length(exponential_squash(jnp.array([3.0, 4.0]))), 1 - np.exp(-5.0), rtol=1e-6)
