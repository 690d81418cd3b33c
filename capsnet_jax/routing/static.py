"""Couplings that do not look at the example: one set for all images, learned or left at random."""

import jax
from jaxtyping import Array, Float

from capsnet_jax.routing.result import Routing, couple


def learned_routing(votes: Float[Array, "inputs outputs dim"], *, prior: Float[Array, "inputs outputs"]) -> Routing:
    """Couplings softmax(prior), with the prior logits a parameter that backpropagation trains.

    These are the log priors of Sabour et al. 2017 (section 2), used alone: no agreement is looked at.
    """
    couplings = jax.nn.softmax(prior, axis=-1)
    return Routing(couple(votes, couplings), couplings, prior)


def random_routing(votes: Float[Array, "inputs outputs dim"], *, prior: Float[Array, "inputs outputs"]) -> Routing:
    """Couplings softmax(prior), with the prior logits as drawn at initialisation: the control for all others.

    Source: Paik, Kwak and Kim 2019 (arXiv:1907.13327) compare routing algorithms with random couplings.
    """
    return learned_routing(votes, prior=jax.lax.stop_gradient(prior))
