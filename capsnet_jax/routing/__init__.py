"""Routing algorithms, one a file: functions of one example's votes.

A router's file holds its function, its settings and, if it learns, its parameters. To add one, write its file and add
its line to ROUTERS; README.md beside this file shows both.
"""

from capsnet_jax.routing.dynamic import Dynamic, dynamic_fixed, dynamic_parameters, dynamic_routing
from capsnet_jax.routing.em import EM, em_parameters, em_routing
from capsnet_jax.routing.inverted_attention import (
    InvertedAttention,
    inverted_attention_parameters,
    inverted_attention_routing,
)
from capsnet_jax.routing.max_min import MaxMin, max_min_routing
from capsnet_jax.routing.prior import learned_couplings, learned_parameters, random_couplings, random_parameters
from capsnet_jax.routing.result import Couplings, Routing, Trace
from capsnet_jax.routing.router import Router
from capsnet_jax.routing.self_attention import SelfAttention, self_attention_parameters, self_attention_routing
from capsnet_jax.routing.self_routing import self_routing, self_routing_parameters
from capsnet_jax.routing.uniform import Fixed, uniform_couplings
from capsnet_jax.routing.variational import Variational, variational_routing

__all__ = ["ROUTERS", "Couplings", "Router", "Routing", "Trace"]

ROUTERS: dict[str, Router] = {
    "dynamic": Router(dynamic_routing, settings=Dynamic(), fixed=dynamic_fixed, parameters=dynamic_parameters),
    "max_min": Router(max_min_routing, settings=MaxMin()),
    "em": Router(em_routing, settings=EM(), parameters=em_parameters),
    "variational": Router(variational_routing, settings=Variational(), parameters=em_parameters),
    "self_attention": Router(self_attention_routing, settings=SelfAttention(), parameters=self_attention_parameters),
    "inverted_attention": Router(
        inverted_attention_routing, settings=InvertedAttention(), parameters=inverted_attention_parameters
    ),
    "self_routing": Router(self_routing, parameters=self_routing_parameters),
    "uniform": Router(settings=Fixed(), fixed=uniform_couplings),
    "learned": Router(settings=Fixed(), fixed=learned_couplings, parameters=learned_parameters),
    "random": Router(settings=Fixed(), fixed=random_couplings, parameters=random_parameters),
}
