"""What every router gives back, and the weighted sum that most of them end with."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from capsnet_jax.ops.squash import SQUASHES, Squash

# How routing logits float[inputs, outputs] become shares that an input's possible parents sum to 1 over: (logits, *,
# orphan=False) → shares. In a fully connected layer these are the outputs (`softmax_over_parents`). In a convolutional
# layer an input has parents at several positions, and all of them share.
Softmax = Callable[..., Array]


class Couplings(NamedTuple):
    """How each input's vote is shared among the parents, and the routing logits that say so."""

    couplings: Float[Array, "inputs outputs"]
    logits: Float[Array, "inputs outputs"]


class Trace(NamedTuple):
    """Every iteration of one example's routing, the last one included."""

    capsules: Float[Array, "iterations outputs dim"]
    activations: Float[Array, "iterations outputs"]
    couplings: Float[Array, "iterations inputs outputs"]
    logits: Float[Array, "iterations inputs outputs"]


class Routing(NamedTuple):
    """One example's routing.

    Attributes:
        capsules: the parents' poses; of most routers squashed vectors, lengths in [0, 1).
        activations: how present each parent is, in [0, 1); of most routers the length of its capsule.
        couplings: how each input's vote is shared among the parents.
        logits: the routing logits that the couplings come from.
        trace: every iteration, where it was asked for.
    """

    capsules: Float[Array, "outputs dim"]
    activations: Float[Array, "outputs"]
    couplings: Float[Array, "inputs outputs"]
    logits: Float[Array, "inputs outputs"]
    trace: Trace | None = None


def weighted_parents(
    votes: Float[Array, "inputs outputs dim"],
    couplings: Float[Array, "inputs outputs"],
    squash: str | Squash = "sabour",
) -> Float[Array, "outputs dim"]:
    """Return the parents v_o = squash(Σ_i c_io û_io) (Sabour 2017, equations 1 and 2)."""
    squash = SQUASHES[squash] if isinstance(squash, str) else squash
    return squash(jnp.einsum("io,iod->od", couplings, votes))


def bound_squash(name: str, parameters: dict[str, Any] | None) -> Squash:
    """Return a squash with what the layer has learned for it: `parameters["squash"]`."""
    return SQUASHES[name].bind((parameters or {}).get("squash"))


def softmax_over_parents(
    logits: Float[Array, "inputs outputs"], *, orphan: bool = False
) -> Float[Array, "inputs outputs"]:
    """Share each input among all parents; an `orphan` of logit 0 takes part, and its share is left out."""
    if not orphan:
        return jax.nn.softmax(logits, axis=-1)
    return jax.nn.softmax(jnp.pad(logits, ((0, 0), (0, 1))), axis=-1)[:, :-1]
