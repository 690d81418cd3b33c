"""The capsules' non-linearities, and the length of a capsule.

To add a squash, write its function `squash(s, axis=-1)` and add one line to `SQUASHES`. Its value and gradient must be
finite at s = 0, and implicit rank promotion is an error in the tests. One that learns says how its parameters start.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

EPSILON = 1e-7  # added to a squared length or a variance under a square root


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


def half_squash(s: Float[Array, "*shape"], axis: int = -1) -> Float[Array, "*shape"]:
    """Shrink each vector to a length in [0, 1) and keep its direction: v = |s|² / (0.5 + |s|²) · s / |s|.

    Vectors are longer than Sabour's squash makes them: half of the greatest length is reached at |s| = 0.71 in place
    of 1. Value and gradient are 0 at s = 0.

    Args:
        s: vectors along `axis`. Their squared lengths must be finite (in float32, lengths up to 1e19).
        axis: the axis of a vector's components.

    Returns:
        The squashed vectors, same shape.
    """
    squared = jnp.sum(s * s, axis=axis, keepdims=True)
    return s * (_safe_sqrt(squared) / (0.5 + squared))


def decoupled_squash(
    s: Float[Array, "*shape"], axis: int = -1, *, parameters: dict[str, Array]
) -> Float[Array, "*shape"]:
    """Let a learned direction say how long each vector becomes: v = sigmoid(w · s + b) · s / √(|s|² + ε).

    How present a capsule is no longer depends on how long s is. The value at s = 0 is 0, and the gradient finite.

    Args:
        s: vectors along `axis`.
        axis: the axis of a vector's components.
        parameters: {"weights": w, "bias": b}, the same for all capsules of a layer.

    Returns:
        The squashed vectors, same shape, of lengths in [0, 1).
    """
    presence = jax.nn.sigmoid(_project(s, axis, parameters))
    squared = jnp.sum(s * s, axis=axis, keepdims=True)
    return s * (presence * jax.lax.rsqrt(squared + EPSILON))


def layer_norm(s: Float[Array, "*shape"], axis: int = -1, **_: Any) -> Float[Array, "*shape"]:
    """Squash nothing: shift and scale each vector to mean 0 and variance 1 over its components.

    All vectors are about √dim long then, so a learned direction tells how present a capsule is (`presence`).

    Source: Tsai et al. 2020 (arXiv:2002.04764), who have it in place of a squash; Ba, Kiros and Hinton 2016.
    """
    centred = s - jnp.mean(s, axis=axis, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred * centred, axis=axis, keepdims=True) + EPSILON)


def length(v: Float[Array, "... dim"]) -> Float[Array, "..."]:
    """Return the Euclidean length of each capsule's vector. Its gradient at v = 0 is 0 instead of NaN."""
    return _safe_sqrt(jnp.sum(v * v, axis=-1))


def presence(v: Float[Array, "... dim"], *, parameters: dict[str, Array]) -> Float[Array, "..."]:
    """Return sigmoid(w · v + b): how present capsules are whose lengths say nothing."""
    return jax.nn.sigmoid(_project(v, -1, parameters))[..., 0]


def direction_parameters(key: PRNGKeyArray, dim: int) -> dict[str, Array]:
    """Start a direction w from a normal of σ = 1/√dim, and its bias b, float[1], at 0."""
    return {"weights": jax.random.normal(key, (dim,)) / jnp.sqrt(dim), "bias": jnp.zeros((1,))}


@dataclasses.dataclass(frozen=True)
class Squash:
    """An entry of SQUASHES.

    Attributes:
        function: (s, axis=-1) → the squashed vectors; with a keyword `parameters` where it learns.
        activation: (v[..., dim]) → how present each squashed capsule is, in [0, 1]; with a keyword `parameters` where
          that is learned.
        parameters: (key, dim) → what the capsules of a layer share, where something is learned.
    """

    function: Callable[..., Array]
    activation: Callable[..., Array] = length
    parameters: Callable[[PRNGKeyArray, int], dict[str, Array]] | None = None

    def __call__(self, s: Float[Array, "*shape"], axis: int = -1) -> Float[Array, "*shape"]:
        """Squash vectors along `axis`."""
        return self.function(s, axis=axis)

    def bind(self, parameters: dict[str, Array] | None) -> "Squash":
        """Return the squash with what its layer has learned."""
        if self.parameters is None:
            return self
        bound = {"parameters": parameters}
        activation = self.activation if self.activation is length else partial(self.activation, **bound)
        return Squash(partial(self.function, **bound), activation)


SQUASHES: dict[str, Squash] = {
    "sabour": Squash(squash),
    "exponential": Squash(exponential_squash),
    "half": Squash(half_squash),
    "decoupled": Squash(decoupled_squash, parameters=direction_parameters),
    "layer_norm": Squash(layer_norm, presence, direction_parameters),
}


def _project(s: Array, axis: int, parameters: dict[str, Array]) -> Array:
    """Return w · s + b along an axis, which stays with size 1."""
    shape = [1] * s.ndim
    shape[axis] = s.shape[axis]
    weighted = jnp.sum(s * parameters["weights"].reshape(shape), axis=axis, keepdims=True)
    return weighted + parameters["bias"].reshape([1] * s.ndim)


def _safe_sqrt(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    positive = x > jnp.finfo(x.dtype).tiny
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)
