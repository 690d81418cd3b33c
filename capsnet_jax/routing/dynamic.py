"""Routing by agreement."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from capsnet_jax.config import pytree_dataclass, static, traced
from capsnet_jax.ops.squash import SQUASHES, length
from capsnet_jax.routing.result import Couplings, Routing, Trace, weighted_parents


@pytree_dataclass
class Dynamic:
    """Settings of routing by agreement."""

    iterations: int = static(3, low=1, high=100, doc="routing iterations r")
    gradient: str = static(
        "full",
        choices=("full", "stop"),
        only_if=lambda routing: routing.iterations > 1,
        doc="through all iterations, or the last only",
    )
    temperature: float = traced(
        1.0,
        low=1e-3,
        only_if=lambda routing: routing.iterations > 1,
        doc="of the softmax; large: near uniform couplings",
    )
    softmax_over: str = static(
        "parents", choices=("parents", "inputs"), doc="what couplings sum to 1 over; inputs is a common mistake"
    )
    squash: str = static("sabour", choices=SQUASHES, doc="how parents are squashed")


def dynamic_routing(
    votes: Float[Array, "inputs outputs dim"],
    *,
    iterations: int = 3,
    gradient: str = "full",
    temperature: float | Float[Array, ""] = 1.0,
    softmax_over: str = "parents",
    squash: str = "sabour",
    trace: bool = False,
) -> Routing:
    """Send each capsule's vote to the parents that its vote agrees with.

    The routing logits start at 0, so the first couplings are uniform. After each iteration but the
    last, the logit of an input and a parent grows by the scalar product of its vote with that parent's output.

    Args:
        votes: û of one example, what each input capsule predicts for each parent. Batches by `jax.vmap`.
        iterations: r of the paper; 1 is uniform routing.
        gradient: "full" differentiates through every iteration; "stop" holds the couplings constant, so that the
          gradient passes through the last iteration's weighted sum only, as many implementations do.
        temperature: divides the logits before the softmax; 1 in the paper.
        softmax_over: "parents", as in the paper: an input shares its vote among them. "inputs": a parent's couplings
          sum to 1 over its inputs, which several implementations do by mistake.
        squash: a key of SQUASHES.
        trace: whether to return every iteration.

    Returns:
        `Routing` with squashed parents, the couplings of the last iteration and the logits they came from.

    Source: Sabour, Frosst and Hinton 2017 (arXiv:1710.09829), procedure 1.
    """
    inputs, outputs, _ = votes.shape
    axis, num_sharers = _sharing(inputs, outputs, softmax_over)
    votes_without_gradient = jax.lax.stop_gradient(votes) if gradient == "stop" else votes
    logits = jnp.zeros((inputs, outputs), votes.dtype)
    couplings = jnp.full((inputs, outputs), 1 / num_sharers, votes.dtype)
    first_votes = votes if iterations == 1 else votes_without_gradient
    capsules = SQUASHES[squash](jnp.sum(first_votes, axis=0) / num_sharers)
    steps = [(capsules, length(capsules), couplings, logits)]
    for iteration in range(1, iterations):
        logits += jnp.einsum("iod,od->io", votes_without_gradient, capsules)  # b_io ← b_io + û_io · v_o
        couplings = jax.nn.softmax(logits / temperature, axis=axis)  # c_i = softmax(b_i)
        last = iteration == iterations - 1
        capsules = weighted_parents(votes if last else votes_without_gradient, couplings, squash)
        steps.append((capsules, length(capsules), couplings, logits))
    stacked = Trace(*map(jnp.stack, zip(*steps, strict=True))) if trace else None
    return Routing(capsules, length(capsules), couplings, logits, stacked)


def dynamic_fixed(inputs: int, outputs: int, settings: Dynamic) -> Couplings | None:
    """Return the uniform couplings of a single iteration; None where the votes decide."""
    if settings.iterations > 1:
        return None
    _, num_sharers = _sharing(inputs, outputs, settings.softmax_over)
    return Couplings(jnp.full((inputs, outputs), 1 / num_sharers), jnp.zeros((inputs, outputs)))


def _sharing(inputs: int, outputs: int, softmax_over: str) -> tuple[int, int]:
    """Return the axis over which couplings sum to 1, and its size."""
    return (-1, outputs) if softmax_over == "parents" else (0, inputs)
