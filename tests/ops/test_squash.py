import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.ops.squash import (
    SQUASHES,
    decoupled_squash,
    exponential_squash,
    half_squash,
    layer_norm,
    length,
    presence,
    squash,
)


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


def bind(name, dim=4):
    start = SQUASHES[name].parameters
    return SQUASHES[name].bind(start and start(jax.random.key(0), dim))


@pytest.mark.parametrize("name", SQUASHES)
def test_every_squash_is_finite_at_zero_and_takes_an_axis(name):
    """What a squash must keep to be listed."""
    each = bind(name)
    zero = jnp.zeros((2, 4))
    assert jnp.isfinite(jax.jit(each)(zero)).all()
    assert jnp.isfinite(jax.jit(jax.jacobian(each))(zero)).all()
    assert jnp.isfinite(jax.jit(jax.grad(lambda s: jnp.sum(each.activation(each(s)))))(zero)).all()
    s = vectors(3, 4, 5)
    np.testing.assert_allclose(each(s, axis=1), jnp.moveaxis(each(jnp.moveaxis(s, 1, -1)), -1, 1), rtol=1e-6)


def test_the_papers_squash_is_listed():
    assert SQUASHES["sabour"].function is squash


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


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1.0, 30.0, 1e6, 1e15])
def test_half_is_its_equation(scale):
    s = np.float64(vectors(3, 5, 4, scale=scale))
    norms = np.linalg.norm(s, axis=-1, keepdims=True)
    np.testing.assert_allclose(half_squash(vectors(3, 5, 4, scale=scale)), norms * s / (0.5 + norms**2), rtol=1e-6)


def test_half_at_its_limits():
    assert not half_squash(jnp.zeros(4)).any()
    assert not jax.jacobian(half_squash)(jnp.zeros(4)).any()
    # Half of the greatest length at |s| = √0.5, where Sabour's is a third.
    s = jnp.array([0.5, 0.5])
    np.testing.assert_allclose([length(half_squash(s)), length(squash(s))], [1 / 2, 1 / 3], rtol=1e-6)
    assert float(length(half_squash(jnp.array([3e3, 4e3])))) == pytest.approx(1, abs=1e-6)


PARAMETERS = {"weights": jnp.array([1.0, -2.0]), "bias": jnp.array([0.5])}


def test_decoupled_by_hand():
    v = decoupled_squash(jnp.array([[3.0, 4.0], [6.0, -8.0]]), parameters=PARAMETERS)
    # w · s + b = 3 − 8 + 0.5 and 6 + 16 + 0.5; the direction is that of s, whatever its length.
    expected = [np.array([0.6, 0.8]) / (1 + np.exp(4.5)), np.array([0.6, -0.8]) / (1 + np.exp(-22.5))]
    np.testing.assert_allclose(v, expected, rtol=1e-6)
    zero = jnp.zeros(2)
    assert not decoupled_squash(zero, parameters=PARAMETERS).any()
    far = jax.jacobian(lambda s: decoupled_squash(s, parameters=PARAMETERS))(jnp.array([3e9, 4e9]))
    assert jnp.isfinite(far).all()


def test_layer_norm_by_hand():
    # Mean 2, deviation 1; and a vector of equal components is 0.
    v = layer_norm(jnp.array([[1.0, 3.0], [5.0, 5.0]]))
    np.testing.assert_allclose(v, [[-1, 1], [0, 0]], atol=1e-6)
    s = vectors(6, 16, scale=30.0)
    np.testing.assert_allclose(length(layer_norm(s)), 4, rtol=1e-4)  # √16
    np.testing.assert_allclose(layer_norm(1e3 * s + 7), layer_norm(s), atol=1e-4)
    np.testing.assert_allclose(presence(v, parameters=PARAMETERS), 1 / (1 + np.exp([2.5, -0.5])), rtol=1e-6)


def test_a_bound_squash_says_how_present_its_capsules_are():
    s = vectors(3, 2)
    bound = SQUASHES["layer_norm"].bind(PARAMETERS)
    np.testing.assert_allclose(bound.activation(bound(s)), presence(layer_norm(s), parameters=PARAMETERS))
    bound = SQUASHES["decoupled"].bind(PARAMETERS)
    expected = 1 / (1 + np.exp(-(np.asarray(s) @ [1, -2] + 0.5)))
    np.testing.assert_allclose(bound.activation(bound(s)), expected, rtol=1e-5)
