"""What every router gives back, and the step that all of them end with."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from capsnet_jax.ops.squash import squash


class Routing(NamedTuple):
    """One example's routing.

    Attributes:
        capsules: the parents' squashed vectors, lengths in [0, 1).
        couplings: how each input's vote is shared among the parents; sums to 1 over the outputs.
        logits: the routing logits that the couplings are the softmax of.
    """

    capsules: Float[Array, "outputs dim"]
    couplings: Float[Array, "inputs outputs"]
    logits: Float[Array, "inputs outputs"]


def couple(
    votes: Float[Array, "inputs outputs dim"], couplings: Float[Array, "inputs outputs"]
) -> Float[Array, "outputs dim"]:
    """Parents' vectors from coupled votes: v_o = squash(Σ_i c_io û_io) (Sabour 2017, equations 1 and 2)."""
    return squash(jnp.einsum("io,iod->od", couplings, votes))
