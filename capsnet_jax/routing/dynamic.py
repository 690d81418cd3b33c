"""Routing by agreement."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from capsnet_jax.config import pytree_dataclass, static, traced
from capsnet_jax.ops.squash import SQUASHES, Squash
from capsnet_jax.routing.result import Couplings, Routing, Softmax, Trace, bound_squash, softmax_over_parents


@pytree_dataclass
class Agreement:
    """Settings of every routing by agreement."""

    iterations: int = static(3, low=1, high=100, doc="routing iterations r")
    gradient: str = static(
        "full",
        choices=("full", "stop"),
        only_if=lambda routing: routing.iterations > 1,
        doc="through all iterations, or the last only",
    )


@pytree_dataclass
class Dynamic(Agreement):
    """Settings of routing by agreement with a softmax."""

    temperature: float = traced(
        1.0,
        low=1e-3,
        only_if=lambda routing: routing.iterations > 1,
        doc="of the softmax; large: near uniform couplings",
    )
    softmax_over: str = static(
        "parents", choices=("parents", "inputs"), doc="what couplings sum to 1 over; inputs is a common mistake"
    )
    leaky: bool = static(
        False,
        only_if=lambda routing: routing.softmax_over == "parents",
        doc="a further parent, whose logit stays 0, takes part and is left out",
    )
    bias: bool = static(False, doc="a learned bias is added to each parent before the squash, in every iteration")
    squash: str = static("sabour", choices=SQUASHES, doc="how parents are squashed")


def dynamic_parameters(
    key: PRNGKeyArray, inputs: int, outputs: int, dim: int, *, settings: Dynamic
) -> dict[str, Float[Array, "outputs dim"]]:
    """Start the parents' bias at 0.1, as the released code does; {} without a bias."""
    del key, inputs
    return {"bias": jnp.full((outputs, dim), 0.1)} if settings.bias else {}


def dynamic_routing(
    votes: Float[Array, "inputs outputs dim"],
    *,
    iterations: int = 3,
    gradient: str = "full",
    temperature: float | Float[Array, ""] = 1.0,
    softmax_over: str = "parents",
    leaky: bool = False,
    bias: bool = False,
    squash: str = "sabour",
    parameters: dict[str, Any] | None = None,
    softmax: Softmax = softmax_over_parents,
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
        leaky: c_i = e^{b_i} / (1 + Σ e^{b_i}): an orphan, whose logit stays 0, takes votes that agree with no parent.
        bias: whether `parameters["bias"]` [outputs, dim] is added to each parent before every squash. Without one
          votes of opposite sign lead to capsules of opposite sign.
        squash: a key of SQUASHES.
        parameters: the bias, and what the squash learns.
        softmax: how logits become shares among the parents of an input.
        trace: whether to return every iteration.

    Returns:
        `Routing` with squashed parents, the couplings of the last iteration and the logits they came from.

    Source: Sabour, Frosst and Hinton 2017 (arXiv:1710.09829), procedure 1; leak and bias from their released code.
    """

    def couple(logits: Array) -> Array:
        if softmax_over == "inputs":
            return jax.nn.softmax(logits / temperature, axis=0)
        return softmax(logits / temperature, orphan=leaky)

    uniform = None
    if softmax is softmax_over_parents or softmax_over == "inputs":
        inputs, outputs, _ = votes.shape
        uniform = _first_coupling(inputs, outputs, softmax_over, leaky)
    return route_by_agreement(
        votes,
        couple,
        uniform,
        iterations=iterations,
        gradient=gradient,
        squash=bound_squash(squash, parameters),
        bias=parameters["bias"] if bias and parameters else None,
        trace=trace,
    )


def route_by_agreement(
    votes: Float[Array, "inputs outputs dim"],
    couple: Callable[[Array], Array],
    first: float | None,
    *,
    iterations: int,
    gradient: str,
    squash: Squash,
    bias: Float[Array, "outputs dim"] | None = None,
    trace: bool = False,
) -> Routing:
    """Iterate couplings, parents and the agreement of votes with them.

    Args:
        votes: û of one example.
        couple: from routing logits to couplings, both float[inputs, outputs].
        first: what all couplings are in the first iteration, whose sum then needs no products; None: `couple` says.
        iterations: how often parents are made.
        gradient: "full", or "stop": through the last iteration's weighted sum only.
        squash: with what it has learned.
        bias: added to parents before the squash; None: nothing.
        trace: whether to return every iteration.
    """
    stop_gradient = jax.lax.stop_gradient if gradient == "stop" else lambda x: x
    votes_without_gradient = stop_gradient(votes)
    logits = jnp.zeros(votes.shape[:2], votes.dtype)
    steps = []
    for iteration in range(iterations):
        last = iteration == iterations - 1
        summed = votes if last else votes_without_gradient
        if iteration == 0 and first is not None:
            couplings, total = jnp.full_like(logits, first), first * jnp.sum(summed, axis=0)
        else:
            couplings = couple(logits)  # c_i = softmax(b_i)
            total = jnp.einsum("io,iod->od", couplings, summed)  # s_o = Σ_i c_io û_io
        capsules = squash(total if bias is None else total + bias)  # v_o = squash(s_o)
        steps.append((capsules, squash.activation(capsules), couplings, logits))
        if not last:
            agreement = jnp.einsum("iod,od->io", votes_without_gradient, stop_gradient(capsules))
            logits += agreement  # b_io ← b_io + û_io · v_o
    stacked = Trace(*map(jnp.stack, zip(*steps, strict=True))) if trace else None
    return Routing(*steps[-1], stacked)


def dynamic_fixed(inputs: int, outputs: int, settings: Dynamic) -> Couplings | None:
    """Return the uniform couplings of a single iteration; None where the votes decide, or a bias is added."""
    if settings.iterations > 1 or settings.bias:
        return None
    first = _first_coupling(inputs, outputs, settings.softmax_over, settings.leaky)
    return Couplings(jnp.full((inputs, outputs), first), jnp.zeros((inputs, outputs)))


def _first_coupling(inputs: int, outputs: int, softmax_over: str, leaky: bool) -> float:
    """Return the softmax of logits that are all 0."""
    return 1 / inputs if softmax_over == "inputs" else 1 / (outputs + leaky)
