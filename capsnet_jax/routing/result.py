"""What every router gives back, and the weighted sum that most of them end with."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from capsnet_jax.ops.squash import SQUASHES


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
    votes: Float[Array, "inputs outputs dim"], couplings: Float[Array, "inputs outputs"], squash: str = "sabour"
) -> Float[Array, "outputs dim"]:
    """Return the parents v_o = squash(Σ_i c_io û_io) (Sabour 2017, equations 1 and 2)."""
    return SQUASHES[squash](jnp.einsum("io,iod->od", couplings, votes))
