import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from capsnet_jax.ops.matmul import dense_dot_general, left_multiply, matmul
from tests.ops.conv.loops import error


@pytest.mark.parametrize(
    ("rows", "terms", "columns"),
    [(2, 16, 24), (2, 24, 16), (3, 16, 24), (40, 9, 4), (40, 4, 9)],  # few rows of a large matrix, then many
)
def test_value_and_gradients(rows, terms, columns):
    generator = np.random.default_rng(0)
    x, matrix, cotangent = (generator.standard_normal(s) for s in [(rows, terms), (terms, columns), (rows, columns)])

    @jax.jit
    def run(x, matrix, cotangent):
        out, pull = jax.vjp(matmul, x, matrix)
        return out, *pull(cotangent)

    got = run(*(jnp.asarray(a, jnp.float32) for a in (x, matrix, cotangent)))
    for mine, expected in zip(got, (x @ matrix, cotangent @ matrix.T, x.T @ cotangent), strict=True):
        assert error(mine, expected) < 1e-6


def test_dense_dot_general_is_what_flax_asks_for():
    x, kernel = jnp.arange(6.0).reshape(2, 3), jnp.arange(12.0).reshape(3, 4)
    dense = nn.Dense(4, use_bias=False, dot_general=dense_dot_general)
    np.testing.assert_array_equal(dense.apply({"params": {"kernel": kernel}}, x), np.asarray(x) @ np.asarray(kernel))


def test_left_multiply_is_over_the_first_axis():
    matrix, x = np.arange(6.0).reshape(2, 3), jnp.arange(24.0).reshape(3, 4, 2)
    np.testing.assert_array_equal(left_multiply(matrix, x), np.einsum("ba,acd->bcd", matrix, x))
