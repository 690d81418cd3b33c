"""Self-routing: each input capsule says by its own pose which parents it goes to, and no votes are compared."""

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from capsnet_jax.routing.result import Routing, Softmax, softmax_over_parents

LEAST = 1e-12  # a sum of activations below it counts as 0


def self_routing_parameters(
    key: PRNGKeyArray, inputs: int, outputs: int, dim: int, *, primary_dim: int
) -> dict[str, Array]:
    """Start every input's routing weights and their bias at 0, so that the couplings start uniform."""
    del key, dim
    return {"weights": jnp.zeros((inputs, primary_dim, outputs)), "bias": jnp.zeros((inputs, outputs))}


def self_routing(
    votes: Float[Array, "inputs outputs dim"],
    *,
    poses: Float[Array, "inputs primary_dim"],
    activations: Float[Array, "inputs"],
    parameters: dict[str, Array],
    softmax: Softmax = softmax_over_parents,
) -> Routing:
    """Let each input capsule choose its parents by a layer of its own: a mixture of experts, weighted by activation.

    Parents are means of votes, and their activations sum to 1: nothing is squashed, and nothing iterated. The
    activations do not depend on the votes. A parent that no active input is coupled to is 0.

    Args:
        votes: û of one example, what each input capsule predicts for each parent.
        poses: u, the input capsules.
        activations: a_i, how present each input capsule is.
        parameters: {"weights": W^route [inputs, primary_dim, outputs], "bias": b [inputs, outputs]}.
        softmax: how logits become shares among the parents of an input.

    Source: Hahn, Pyeon and Kim 2019, "Self-Routing Capsule Networks" (NeurIPS).
    """
    logits = jnp.einsum("ik,iko->io", poses, parameters["weights"]) + parameters["bias"]
    couplings = softmax(logits)  # c_i = softmax_j(W^route_i u_i + b_i)
    sent = couplings * activations[:, None]  # c_ij a_i
    received = jnp.sum(sent, axis=0)
    capsules = _ratio(
        jnp.einsum("io,iod->od", sent, votes), received[:, None]
    )  # u_j = Σ_i c_ij a_i û_ij / Σ_i c_ij a_i
    present = _ratio(received, jnp.sum(activations)[None])  # a_j = Σ_i c_ij a_i / Σ_i a_i
    return Routing(capsules, present, couplings, logits)


def _ratio(numerator: Array, denominator: Array) -> Array:
    """Return a ratio, or 0 where the denominator is next to 0; the gradient there is 0 too."""
    divides = denominator > LEAST
    return jnp.where(divides, numerator / jnp.where(divides, denominator, 1), 0)
