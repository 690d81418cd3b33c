"""Couplings that do not look at the example: one set for all images, learned or left at random."""

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from capsnet_jax.routing.result import Couplings

Parameters = dict[str, Float[Array, "inputs outputs"]]


def learned_parameters(key: PRNGKeyArray, inputs: int, outputs: int, dim: int) -> Parameters:
    """Start the log priors at 0, so that the couplings start uniform."""
    del dim
    return {"prior": jax.nn.initializers.zeros(key, (inputs, outputs))}


def learned_couplings(inputs: int, outputs: int, *, parameters: Parameters) -> Couplings:
    """Couple by softmax(prior), which backpropagation trains.

    These are the log priors of Sabour et al. 2017 (section 2), used alone: no agreement is looked at.
    """
    return Couplings(jax.nn.softmax(parameters["prior"], axis=-1), parameters["prior"])


def random_parameters(key: PRNGKeyArray, inputs: int, outputs: int, dim: int) -> Parameters:
    """Draw the log priors from a normal distribution of σ = 1."""
    del dim
    return {"prior": jax.random.normal(key, (inputs, outputs))}


def random_couplings(inputs: int, outputs: int, *, parameters: Parameters) -> Couplings:
    """Couple by softmax(prior), as drawn at initialisation: the control for all other routers.

    Source: Paik, Kwak and Kim 2019 (arXiv:1907.13327) compare routing algorithms with random couplings.
    """
    return learned_couplings(inputs, outputs, parameters=jax.lax.stop_gradient(parameters))
