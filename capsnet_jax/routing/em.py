"""EM routing: parents are Gaussian clusters of their votes, and as active as their votes agree."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from capsnet_jax.config import pytree_dataclass, static, traced
from capsnet_jax.routing.result import Routing, Softmax, Trace, softmax_over_parents

EVEN_INPUTS = 100  # the inputs that a normalised cost counts for a parent with its even share of them
EMPTY = 1e-6  # the least inputs of a parent that sums are divided by, so that one without inputs has a mean


@pytree_dataclass
class EM:
    """Settings of EM routing."""

    iterations: int = static(2, low=1, high=100, doc="M-steps; more of them learn in more steps")
    inverse_temperature: float = traced(0.01, low=0, doc="final λ; iteration t has λ (1 − 0.95^(t+1))")
    variance_floor: float = traced(1e-3, low=1e-6, doc="added to every variance; a parent with one input has none")
    deviation: float = traced(0.05, low=1e-6, doc="σ₀ of votes whose cost is β_u; in the paper 1")
    normalize: bool = static(
        True, doc="costs as if 100 inputs were an even share of them, whatever the layer's size; false: as in the paper"
    )


def em_parameters(key: PRNGKeyArray, inputs: int, outputs: int, dim: int) -> dict[str, Float[Array, "outputs"]]:
    """Start β_u, the cost of a parent that has inputs, and β_a, of one that has none, at 0."""
    del key, inputs, dim
    return {"beta_u": jnp.zeros((outputs,)), "beta_a": jnp.zeros((outputs,))}


def em_routing(
    votes: Float[Array, "inputs outputs dim"],
    *,
    iterations: int = 2,
    inverse_temperature: float | Float[Array, ""] = 0.01,
    variance_floor: float | Float[Array, ""] = 1e-3,
    deviation: float | Float[Array, ""] = 1.0,
    normalize: bool = True,
    activations: Float[Array, "inputs"],
    parameters: dict[str, Any],
    softmax: Softmax = softmax_over_parents,
    trace: bool = False,
) -> Routing:
    """Fit to each parent a Gaussian with a diagonal covariance by expectation and maximisation.

    Gradients pass through every iteration.

    Args:
        votes: V of one example, what each input capsule predicts for each parent.
        iterations: M-steps; the E-step after the last one is left out, as nothing would read it.
        inverse_temperature: λ, which the activations' logits are multiplied by.
        variance_floor: added to variances.
        deviation: σ₀ in costs β_u + ln σ/σ₀, which the paper has as 1. With votes that spread by far less, every parent
          would start as present, with a gradient near 0, and nothing would be learned.
        normalize: whether costs are in units of what a parent gets from uniform couplings. Otherwise λ has to be chosen
          for each size of layer, as costs grow with the inputs that a parent has.
        activations: a, how present each input is.
        parameters: β_u and β_a of each parent.
        softmax: how logits become shares among the parents of an input.
        trace: whether to return every iteration.

    Returns:
        `Routing` with the means as capsules, the parents' activations, and the last M-step's couplings R.

    Source: Hinton, Sabour and Frosst 2018, "Matrix capsules with EM routing", procedure 1. Normalised costs and floors:
    Gritzman 2019, "Avoiding Implementation Pitfalls of Matrix Capsules with EM Routing" (arXiv:1907.00652).
    """
    logits = jnp.zeros(votes.shape[:2], votes.dtype)
    even_share = jnp.sum(softmax(logits), axis=0)
    clusters = Clusters.around(votes, softmax(logits) * activations[:, None])
    steps = []
    for iteration in range(iterations):
        couplings = softmax(logits)
        count, mean, scatter = clusters.fit(couplings * activations[:, None])
        variance = scatter / jnp.maximum(count, EMPTY)[:, None] + variance_floor
        warmth = inverse_temperature * (1 - 0.95 ** (iteration + 1))
        if normalize:
            count, warmth = count / even_share, EVEN_INPUTS * warmth
        # cost_oh = (β_u,o + ln σ_oh/σ₀) S_o,  a_o = sigmoid(λ (β_a,o − Σ_h cost_oh))
        costs = (parameters["beta_u"][:, None] + 0.5 * jnp.log(variance / deviation**2)) * count[:, None]
        presence = warmth * (parameters["beta_a"] - jnp.sum(costs, axis=-1))
        steps.append((mean, jax.nn.sigmoid(presence), couplings, logits))
        if iteration < iterations - 1:
            # ln a_o + ln p_io,  ln p_io = −½ Σ_h (ln 2π σ²_oh + (V_ioh − μ_oh)² / σ²_oh)
            constants = jax.nn.log_sigmoid(presence) - 0.5 * jnp.sum(jnp.log(2 * jnp.pi * variance), axis=-1)
            logits = constants[None] - 0.5 * clusters.distances(mean, 1 / variance)
    stacked = Trace(*map(jnp.stack, zip(*steps, strict=True))) if trace else None
    return Routing(*steps[-1], stacked)


class Clusters(NamedTuple):
    """The votes for each parent, and their squares, as deviations from a centre.

    Sums over them are matrix products then, which read each vote once; inputs are last, as the layers lay votes out.
    The centre changes no result. Without it the rounding of large squares would be all that is left of small variances.
    """

    centre: Float[Array, "outputs dim"]
    deviations: Float[Array, "outputs dim inputs"]
    squares: Float[Array, "outputs dim inputs"]

    @staticmethod
    def around(votes: Float[Array, "inputs outputs dim"], weights: Float[Array, "inputs outputs"]) -> "Clusters":
        """Take weighted means as centres."""
        votes = votes.transpose(1, 2, 0)
        centre = jnp.einsum("oi,odi->od", weights.T, votes) / jnp.maximum(jnp.sum(weights, axis=0), EMPTY)[:, None]
        centre = jax.lax.stop_gradient(centre)
        deviations = votes - centre[:, :, None]
        return Clusters(centre, deviations, deviations**2)

    def fit(
        self, weights: Float[Array, "inputs outputs"]
    ) -> tuple[Float[Array, "outputs"], Float[Array, "outputs dim"], Float[Array, "outputs dim"]]:
        """Return S = Σ_i R̂_i, the means V̄ = Σ_i R̂_i V_i / S, and the scatter Σ_i R̂_i (V_i − V̄)²."""
        count = jnp.sum(weights, axis=0)
        shift = jnp.einsum("oi,odi->od", weights.T, self.deviations) / jnp.maximum(count, EMPTY)[:, None]
        scatter = jnp.einsum("oi,odi->od", weights.T, self.squares) - count[:, None] * shift**2
        return count, self.centre + shift, jnp.maximum(scatter, 0)

    def distances(
        self, mean: Float[Array, "outputs dim"], precision: Float[Array, "outputs dim"]
    ) -> Float[Array, "inputs outputs"]:
        """Return Σ_h precision_oh (V_ioh − mean_oh)²."""
        shift = mean - self.centre
        linear = jnp.einsum("od,odi->oi", precision * shift, self.deviations)
        squared = jnp.einsum("od,odi->oi", precision, self.squares)
        return (squared - 2 * linear + jnp.sum(precision * shift**2, axis=-1)[:, None]).T
