"""The capsule's non-linearity."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def squash(s: Float[Array, "*shape"], axis: int = -1) -> Float[Array, "*shape"]:
    """Shrink each vector to a length in [0, 1) and keep its direction: v = |s|² / (1 + |s|²) · s / |s|.

    Written as s · |s| / (1 + |s|²), with a square root that is kept away from 0, so that value and gradient are
    finite (and 0) at s = 0, where the textbook form divides by zero.

    Args:
        s: vectors along `axis`, of lengths whose squares are floats (in float32, up to 1e19).
        axis: the axis that holds one vector's components.

    Returns:
        The squashed vectors, same shape.

    Source: Sabour, Frosst and Hinton 2017 (arXiv:1710.09829), equation 1.
    """
    squared = jnp.sum(s * s, axis=axis, keepdims=True)
    return s * (_safe_sqrt(squared) / (1 + squared))


def length(v: Float[Array, "... dim"]) -> Float[Array, "..."]:
    """Euclidean length of each capsule's vector; its gradient at v = 0 is 0 instead of NaN."""
    return _safe_sqrt(jnp.sum(v * v, axis=-1))


def _safe_sqrt(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    positive = x > jnp.finfo(x.dtype).tiny
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


SQUASHES = {"sabour": squash}
