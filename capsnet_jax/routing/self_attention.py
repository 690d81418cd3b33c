"""Self-attention among the votes for a parent, in one pass."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from capsnet_jax.config import pytree_dataclass, static
from capsnet_jax.ops.squash import SQUASHES
from capsnet_jax.routing.result import Routing, Softmax, bound_squash, softmax_over_parents, weighted_parents


@pytree_dataclass
class SelfAttention:
    """Settings of routing by self-attention."""

    squash: str = static("exponential", choices=SQUASHES, doc="how parents are squashed")


def self_attention_parameters(
    key: PRNGKeyArray, inputs: int, outputs: int, dim: int
) -> dict[str, Float[Array, "inputs outputs"]]:
    """Start the log priors b, which are added to the couplings, at 0."""
    del key, dim
    return {"bias": jnp.zeros((inputs, outputs))}


def self_attention_routing(
    votes: Float[Array, "inputs outputs dim"],
    *,
    squash: str = "exponential",
    parameters: dict[str, Any],
    softmax: Softmax = softmax_over_parents,
) -> Routing:
    """Couple each vote by how far it agrees with all votes for the same parent; nothing is iterated.

    The scores of the paper are A_ikn = û_in · û_kn / √D, summed over k. As the scalar product is linear, û_in is
    multiplied by the sum of all votes, and the matrix inputs × inputs is not made.

    Args:
        votes: û of one example, what each input capsule predicts for each parent.
        squash: a key of SQUASHES.
        parameters: {"bias": b [inputs, outputs]} and what the squash learns. As b is added behind the softmax, the
          couplings of an input need not sum to 1, and may be negative.
        softmax: how scores become shares among the parents of an input.

    Returns:
        `Routing` with squashed parents, the couplings, b included, and the scores as logits.

    Source: Mazzia, Salvetti and Chiaberge 2021, "Efficient-CapsNet" (arXiv:2101.12491).
    """
    total = jnp.sum(votes, axis=0)  # Σ_k û_kn
    scores = jnp.einsum("iod,od->io", votes, total) / jnp.sqrt(votes.shape[-1])  # Σ_k û_in · û_kn / √D
    couplings = softmax(scores) + parameters["bias"]  # C_in = softmax_n(Σ_k A_ikn) + b_in
    bound = bound_squash(squash, parameters)
    capsules = weighted_parents(votes, couplings, bound)  # v_n = squash(Σ_i C_in û_in)
    return Routing(capsules, bound.activation(capsules), couplings, scores)
