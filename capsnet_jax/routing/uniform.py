"""No routing: every parent gets an equal share of every vote, and learning is left to backpropagation."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from capsnet_jax.ops.squash import squash
from capsnet_jax.routing.result import Routing


def uniform_routing(votes: Float[Array, "inputs outputs dim"]) -> Routing:
    """Couple every input to every parent with 1 / outputs; the same as dynamic routing with one iteration."""
    inputs, outputs, _ = votes.shape
    capsules = squash(jnp.sum(votes, axis=0) / outputs)
    couplings = jnp.full((inputs, outputs), 1 / outputs, votes.dtype)
    return Routing(capsules, couplings, jnp.zeros_like(couplings))
