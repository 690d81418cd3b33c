"""Routing by agreement."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from capsnet_jax.ops.squash import squash
from capsnet_jax.routing.result import Routing, couple


def dynamic_routing(
    votes: Float[Array, "inputs outputs dim"],
    *,
    iterations: int = 3,
    gradient: str = "full",
    temperature: float | Float[Array, ""] = 1.0,
    softmax_over: str = "parents",
) -> Routing:
    """Send each capsule's vote to the parents that its vote agrees with.

    The routing logits start at 0, so the first iteration is a plain mean over parents. After each iteration but the
    last, the logit of an input and a parent grows by the scalar product of its vote with that parent's output.

    Args:
        votes: û of one example: what each input capsule predicts for each parent. Batches by `jax.vmap`.
        iterations: r of the paper; 1 is uniform routing.
        gradient: "full" differentiates through every iteration; "stop" holds the couplings constant, so that the
          gradient passes through the last iteration's weighted sum only, as many implementations do.
        temperature: divides the logits before the softmax; 1 in the paper.
        softmax_over: "parents", as in the paper: an input shares its vote among them. "inputs": a parent's couplings
            sum to 1 over its inputs, which several implementations do by mistake.

    Returns:
        `Routing` with squashed parents, the couplings of the last iteration and the logits they came from.

    Source: Sabour, Frosst and Hinton 2017 (arXiv:1710.09829), procedure 1.
    """
    inputs, outputs, _ = votes.shape
    axis, sharers = (-1, outputs) if softmax_over == "parents" else (0, inputs)
    agreeing = jax.lax.stop_gradient(votes) if gradient == "stop" else votes
    logits = jnp.zeros((inputs, outputs), votes.dtype)
    capsules = squash(jnp.sum(votes if iterations == 1 else agreeing, axis=0) / sharers)
    couplings = jnp.full((inputs, outputs), 1 / sharers, votes.dtype)
    for iteration in range(1, iterations):
        logits += jnp.einsum("iod,od->io", agreeing, capsules)
        couplings = jax.nn.softmax(logits / temperature, axis=axis)
        capsules = couple(votes if iteration == iterations - 1 else agreeing, couplings)
    return Routing(capsules, couplings, logits)
