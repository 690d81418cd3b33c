"""The capsules' non-linearities, and the length of a capsule.

To add a squash, write its function `squash(s, axis=-1)` and add one line to `SQUASHES`. Its value and gradient must be
finite at s = 0, and implicit rank promotion is an error in the tests.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float


def squash(s: Float[Array, "*shape"], axis: int = -1) -> Float[Array, "*shape"]:
    """Shrink each vector to a length in [0, 1) and keep its direction: v = |s|² / (1 + |s|²) · s / |s|.

    Computed as s · |s| / (1 + |s|²), with a square root that is safe at 0. The textbook formula divides by zero at
    s = 0; here value and gradient are 0.

    Args:
        s: vectors along `axis`. Their squared lengths must be finite (in float32, lengths up to 1e19).
        axis: the axis of a vector's components.

    Returns:
        The squashed vectors, same shape.

    Source: Sabour, Frosst and Hinton 2017 (arXiv:1710.09829), equation 1.
    """
    squared = jnp.sum(s * s, axis=axis, keepdims=True)
    return s * (_safe_sqrt(squared) / (1 + squared))


def exponential_squash(s: Float[Array, "*shape"], axis: int = -1) -> Float[Array, "*shape"]:
    """Shrink each vector to a length in [0, 1] and keep its direction: v = (1 − e^{−|s|}) · s / |s|.

    A short vector keeps its length, where Sabour's squash has |v| ≈ |s|² and a gradient that vanishes: at s = 0 the
    value is 0 and the gradient the identity.

    Args:
        s: vectors along `axis`. Their squared lengths must be finite (in float32, lengths up to 1e19).
        axis: the axis of a vector's components.

    Returns:
        The squashed vectors, same shape. In float32 those longer than 17 have length 1.

    Source: Mazzia, Salvetti and Chiaberge 2021, "Efficient-CapsNet" (arXiv:2101.12491).
    """
    norm = _safe_sqrt(jnp.sum(s * s, axis=axis, keepdims=True))
    nonzero = norm > 0
    return s * jnp.where(nonzero, -jnp.expm1(-norm) / jnp.where(nonzero, norm, 1), 1)


SQUASHES: dict[str, Callable[..., Array]] = {
    "sabour": squash,
    "exponential": exponential_squash,
}


def length(v: Float[Array, "... dim"]) -> Float[Array, "..."]:
    """Return the Euclidean length of each capsule's vector. Its gradient at v = 0 is 0 instead of NaN."""
    return _safe_sqrt(jnp.sum(v * v, axis=-1))


def _safe_sqrt(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    positive = x > jnp.finfo(x.dtype).tiny
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)
