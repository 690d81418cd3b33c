"""Variational Bayes routing: EM routing with priors, so that parents with few votes are not certain of them."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from capsnet_jax.config import pytree_dataclass, static, traced
from capsnet_jax.routing.em import Clusters
from capsnet_jax.routing.result import Routing, Softmax, Trace, softmax_over_parents


@pytree_dataclass
class Variational:
    """Settings of variational Bayes routing; the priors' are those of the paper's code."""

    iterations: int = static(3, low=1, high=100, doc="updates of the parents; between two the couplings are updated")
    prior_count: float = traced(1.0, low=1e-3, doc="α₀: inputs that each parent has before any vote (Dirichlet)")
    prior_mean_count: float = traced(1.0, low=1e-3, doc="κ₀: votes of 0 that each mean starts with (Gaussian)")
    prior_freedom: float = traced(1.0, low=1e-3, doc="ν₀ − dim: degrees of freedom above the dimensions (Wishart)")
    prior_scatter: float = traced(
        1.0, low=1e-6, doc="Ψ₀⁻¹: squared deviations that each dimension starts with (Wishart)"
    )


def variational_routing(
    votes: Float[Array, "inputs outputs dim"],
    *,
    iterations: int = 3,
    prior_count: float | Float[Array, ""] = 1.0,
    prior_mean_count: float | Float[Array, ""] = 1.0,
    prior_freedom: float | Float[Array, ""] = 1.0,
    prior_scatter: float | Float[Array, ""] = 1.0,
    activations: Float[Array, "inputs"],
    parameters: dict[str, Any],
    softmax: Softmax = softmax_over_parents,
    trace: bool = False,
) -> Routing:
    """Fit a mixture of Gaussians with diagonal precisions by variational Bayes.

    The paper normalises activations and poses over the batch. A router sees one example, so that is left out.

    Args:
        votes: V of one example, what each input capsule predicts for each parent.
        iterations: updates of the parents; the couplings are not updated after the last one.
        prior_count: α₀.
        prior_mean_count: κ₀, of a prior mean of 0.
        prior_freedom: ν₀ − dim.
        prior_scatter: Ψ₀⁻¹, the same for each dimension.
        activations: a, how present each input is.
        parameters: β_u and β_a of each parent, as those of EM routing.
        softmax: how logits become shares among the parents of an input.
        trace: whether to return every iteration.

    Returns:
        `Routing` with the posterior means as capsules, the parents' activations, and the last couplings.

    Source: Ribeiro, Leontidis and Kollias 2020, "Capsule Routing via Variational Bayes" (arXiv:1905.11455), algorithm
    1, with its diagonal precisions. In a convolutional layer π are the weights of the parents at one position.
    """
    dim = votes.shape[-1]
    logits = jnp.zeros(votes.shape[:2], votes.dtype)
    clusters = Clusters.around(votes, softmax(logits) * activations[:, None])
    steps = []
    for iteration in range(iterations):
        couplings = softmax(logits)
        count, centre, spread = clusters.fit(couplings * activations[:, None])
        # α = α₀ + S,  κ = κ₀ + S,  ν = ν₀ + S,  m = S V̄ / κ
        # Ψ⁻¹ = Ψ₀⁻¹ + Σ_i R̂_i (V_i − V̄)² + κ₀ S V̄² / κ
        alpha, kappa, freedom = prior_count + count, prior_mean_count + count, dim + prior_freedom + count
        mean = centre * (count / kappa)[:, None]
        scatter = prior_scatter + spread + prior_mean_count * mean * centre
        # E ln|Λ| = Σ_{d<dim} ψ((ν − d) / 2) + dim ln 2 − Σ_h ln Ψ⁻¹_h,  E ln π = ψ(α) − ψ(Σ_o α_o)
        halves = (freedom[:, None] - jnp.arange(dim, dtype=votes.dtype)[None]) / 2
        log_precision = jnp.sum(digamma(halves) - jnp.log(scatter / 2), axis=-1)
        log_weight = digamma(alpha) - digamma(jnp.sum(alpha))
        # a = sigmoid(β_a − β_u − e^{E ln π} H), where H is the entropy of the Gaussian
        entropy = 0.5 * (dim * jnp.log(2 * jnp.pi * jnp.e) - log_precision)
        presence = parameters["beta_a"] - parameters["beta_u"] - jnp.exp(log_weight) * entropy
        steps.append((mean, jax.nn.sigmoid(presence), couplings, logits))
        if iteration < iterations - 1:
            # ln ρ_io = E ln π_o + ½ E ln|Λ_o| − ½ dim ln 2π − ½ (dim/κ_o + ν_o Σ_h (V_ioh − m_oh)² / Ψ⁻¹_oh)
            constants = log_weight + 0.5 * (log_precision - dim * jnp.log(2 * jnp.pi) - dim / kappa)
            precision = freedom[:, None] / scatter
            logits = constants[None] - 0.5 * clusters.distances(mean, precision)
    stacked = Trace(*map(jnp.stack, zip(*steps, strict=True))) if trace else None
    return Routing(*steps[-1], stacked)


def digamma(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Compute ψ(x), the slope of ln Γ, of positive numbers to float32's precision.

    JAX's own compiles and differentiates slowly, as it takes any x. This is ψ(x) = ψ(x + 6) − Σ_{k<6} 1 / (x + k), and
    for numbers of at least 6 the asymptotic series (Abramowitz and Stegun 1964, 6.3.5 and 6.3.18).
    """
    y = x + 6
    square = 1 / (y * y)
    series = jnp.log(y) - 0.5 / y - square * (1 / 12 - square * (1 / 120 - square / 252))
    return series - sum(1 / (x + k) for k in range(6))
