"""Couplings that are scaled from the least to the greatest logit, in place of a softmax."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from capsnet_jax.config import pytree_dataclass, static
from capsnet_jax.ops.squash import SQUASHES
from capsnet_jax.routing.dynamic import Agreement, route_by_agreement
from capsnet_jax.routing.result import Routing, bound_squash


@pytree_dataclass
class MaxMin(Agreement):
    """Settings of routing by agreement with max-min couplings."""

    squash: str = static("sabour", choices=SQUASHES, doc="how parents are squashed")


def max_min_routing(
    votes: Float[Array, "inputs outputs dim"],
    *,
    iterations: int = 3,
    gradient: str = "full",
    squash: str = "sabour",
    parameters: dict[str, Any] | None = None,
    trace: bool = False,
) -> Routing:
    """Route by agreement, where each input couples by 1 to its likeliest parent and by 0 to its unlikeliest.

    The couplings of an input need not sum to 1: with a softmax over ten parents, logits as small as those that CapsNets
    have leave all couplings near a tenth. In a convolutional layer the parents at one position are compared.

    Args:
        votes: û of one example, what each input capsule predicts for each parent.
        iterations: r; in the first one all couplings are 1.
        gradient: "full", or "stop": through the last iteration's weighted sum only.
        squash: a key of SQUASHES.
        parameters: what the squash learns.
        trace: whether to return every iteration.

    Source: Zhao et al. 2019, "Capsule Networks with Max-Min Normalization" (arXiv:1903.09662).
    """
    return route_by_agreement(
        votes,
        max_min_couplings,
        1.0,
        iterations=iterations,
        gradient=gradient,
        squash=bound_squash(squash, parameters),
        trace=trace,
    )


def max_min_couplings(logits: Float[Array, "inputs outputs"]) -> Float[Array, "inputs outputs"]:
    """Scale each input's logits to c_ij = (b_ij − min_j b_ij) / (max_j b_ij − min_j b_ij).

    All are 1 where the logits are equal to 1e-12; the square of a span, which the gradient divides by, is above 0 then.
    """
    least = jnp.min(logits, axis=-1, keepdims=True)
    span = jnp.max(logits, axis=-1, keepdims=True) - least
    differ = span > 1e-12
    return jnp.where(differ, (logits - least) / jnp.where(differ, span, 1), 1)
