"""Routing algorithms, one a file: plain functions of one example's votes.

A router is `router(votes[inputs, outputs, dim], *, ...) -> Routing`. Its keyword-only arguments say what it wants:
any field of `config.Routing` by name, or `prior`, static logits [inputs, outputs] that the layer keeps as a
parameter. To add one, write its file and add its line here.
"""

import inspect
from collections.abc import Callable

import jax

from capsnet_jax import config
from capsnet_jax.routing.dynamic import dynamic_routing
from capsnet_jax.routing.result import Routing
from capsnet_jax.routing.static import learned_routing, random_routing
from capsnet_jax.routing.uniform import uniform_routing

ROUTERS: dict[str, Callable[..., Routing]] = {
    "dynamic": dynamic_routing,
    "uniform": uniform_routing,
    "learned": learned_routing,
    "random": random_routing,
}

# Initialisers of the `prior` of the routers that take one.
PRIORS = {
    "learned": jax.nn.initializers.zeros,
    "random": jax.nn.initializers.normal(1.0),
}


def settings_of(routing: config.Routing) -> dict[str, object]:
    """The settings that the chosen router takes, by the names in its signature."""
    wanted = inspect.signature(ROUTERS[routing.name]).parameters
    return {name: value for name, value in vars(routing).items() if name in wanted}
