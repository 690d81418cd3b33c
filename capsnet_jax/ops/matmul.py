"""Matrix products whose gradients are fast on a CPU."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from capsnet_jax.ops.materialize import materialize


@jax.custom_vjp
def matmul(rows: Float[Array, "rows terms"], matrix: Float[Array, "terms columns"]) -> Float[Array, "rows columns"]:
    """Return `rows @ matrix`. Differentiated in reverse only."""
    return rows @ matrix


def _forward(rows: Array, matrix: Array) -> tuple[Array, tuple[Array, Array]]:
    return rows @ matrix, (rows, matrix)


def _backward(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    rows, matrix = residuals
    return lax.platform_dependent(rows, matrix, gradient, cpu=_cpu_gradients, default=_textbook_gradients)


matmul.defvjp(_forward, _backward)


def dense_dot_general(x: Array, kernel: Array, _dimensions: Any, **_settings: Any) -> Float[Array, "batch features"]:
    """Multiply as `flax.linen.Dense` asks its `dot_general` to, for one row per image."""
    return matmul(x, kernel)


def left_multiply(matrix: Float[np.ndarray, "b a"], x: Float[Array, "a ..."]) -> Float[Array, "b ..."]:
    """Multiply a constant matrix by the first axis of an array."""
    return (jnp.asarray(matrix, x.dtype) @ x.reshape(len(x), -1)).reshape(-1, *x.shape[1:])


def _textbook_gradients(rows: Array, matrix: Array, gradient: Array) -> tuple[Array, Array]:
    return gradient @ matrix.T, rows.T @ gradient


def _cpu_gradients(rows: Array, matrix: Array, gradient: Array) -> tuple[Array, Array]:
    """Return both gradients, transposing the smaller factor.

    A CPU is slow at a product whose large factor is transposed: three times as slow for 8 rows and VGG's 25088×4096
    matrix. XLA would move the transposition back; the barriers prevent that.
    """
    if 8 * len(rows) <= min(matrix.shape):
        return lax.optimization_barrier(matrix @ lax.optimization_barrier(gradient.T)).T, rows.T @ gradient
    if rows.shape[1] <= gradient.shape[1]:
        return _textbook_gradients(rows, matrix, gradient)
    # Without `materialize`, the optimizer would transpose the result anew for each of its moments.
    return gradient @ matrix.T, materialize(lax.optimization_barrier(gradient.T @ rows).T)
