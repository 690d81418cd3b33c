"""Routing algorithms, one a file: plain functions of one example's votes.

A router is `router(votes[inputs, outputs, dim], *, ...) -> Routing`. Its keyword-only arguments say what it wants:
any field of `config.Routing` by name, or `prior`, static logits [inputs, outputs] that the layer keeps as a
parameter. To add one, write its file and add its line here.
"""

import inspect
from collections.abc import Callable, Collection, Mapping

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
    return {name: value for name, value in vars(routing).items() if name in _taken(routing.name)}


def matters(path: str, settings: Mapping[str, object]) -> bool:
    """Whether the setting at `path` makes a difference beside these, {path: value}: not what a router does not take.

    Nor anything of routing in a network that does not route. A router that is not known (any more) takes everything.
    """
    group, _, name = path.partition(".")
    if group != "routing":
        return True
    if not str(settings.get("model.name", "capsnet")).startswith("capsnet"):
        return False
    router = settings.get("routing.name", "dynamic")
    return name in ("name", "probe") or router not in ROUTERS or name in _taken(str(router))


def _taken(router: str) -> Collection[str]:
    return inspect.signature(ROUTERS[router]).parameters
