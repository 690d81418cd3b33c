"""What an entry of ROUTERS says of an algorithm."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from capsnet_jax.config import NoSettings
from capsnet_jax.ops.squash import SQUASHES
from capsnet_jax.routing.result import (
    Couplings,
    Routing,
    Softmax,
    bound_squash,
    softmax_over_parents,
    weighted_parents,
)
from capsnet_jax.signatures import asked_for, takes


@dataclasses.dataclass(frozen=True)
class Router:
    """A routing algorithm, one of `route` and `fixed` or both.

    Attributes:
        route: `route(votes[inputs, outputs, dim], *, **settings) → Routing` of one example. If its signature names
          them, it also gets `poses` [inputs, primary_dim] and `activations` [inputs] of the input capsules, `parents`
          [outputs, dim] as an earlier pass has left them, its `parameters`, `softmax`: how an input is shared among its
          parents, and `trace`: whether to return every iteration.
        settings: an instance of its own settings dataclass.
        parameters: `parameters(key, inputs, outputs, dim) → dict`, where it learns something. If its signature names
          them, it also gets `primary_dim` and `settings`.
        fixed: `fixed(inputs, outputs)` → `Couplings` that no vote changes, or None where votes decide after all. If its
          signature names them, it also gets `settings` and `parameters`. The layer then makes no votes. Its settings
          need a `squash`.
    """

    route: Callable[..., Routing] | None = None
    settings: Any = dataclasses.field(default_factory=NoSettings)
    parameters: Callable[..., dict[str, Any]] | None = None
    fixed: Callable[..., Couplings | None] | None = None

    def __call__(
        self,
        votes: Float[Array, "inputs outputs dim"],
        *,
        poses: Float[Array, "inputs primary_dim"] | None = None,
        activations: Float[Array, "inputs"] | None = None,
        parents: Float[Array, "outputs dim"] | None = None,
        parameters: dict[str, Any] | None = None,
        softmax: Softmax = softmax_over_parents,
        trace: bool = False,
        **settings: Any,
    ) -> Routing:
        """Route one example's votes, with `settings` in place of the defaults."""
        chosen = dataclasses.replace(self.settings, **settings)
        offered: dict[str, Any] = {"poses": poses, "activations": activations, "parameters": parameters}
        offered |= {"parents": parents, "softmax": softmax, "trace": trace}
        inputs, outputs, _ = votes.shape
        fixed = self.fixed_couplings(inputs, outputs, chosen, parameters)
        shared = softmax is not softmax_over_parents  # with parents elsewhere, of which `fixed` does not know
        if self.route is None or (fixed is not None and not trace and not shared):
            if fixed is None:
                raise ValueError("a router without `route` needs couplings from `fixed`")
            fixed = fixed._replace(couplings=softmax(fixed.logits)) if shared else fixed
            squash = bound_squash(chosen.squash, parameters)
            capsules = weighted_parents(votes, fixed.couplings, squash)
            return Routing(capsules, squash.activation(capsules), *fixed)
        routing = self.route(votes, **vars(chosen), **asked_for(self.route, offered))
        if not isinstance(routing, Routing):
            raise TypeError(f"the router returned {type(routing).__name__}; return a Routing")
        return routing

    def fixed_couplings(
        self, inputs: int, outputs: int, settings: Any, parameters: dict[str, Any] | None
    ) -> Couplings | None:
        """Return couplings that no vote changes; None where votes decide."""
        if self.fixed is None:
            return None
        return self.fixed(inputs, outputs, **asked_for(self.fixed, {"settings": settings, "parameters": parameters}))

    def initial_parameters(
        self, key: PRNGKeyArray, inputs: int, outputs: int, dim: int, *, primary_dim: int, settings: Any
    ) -> dict[str, Any]:
        """Draw what a layer's router and its squash learn; {} of those that learn nothing."""
        own: dict[str, Any] = {}
        if self.parameters is not None:
            offered = {"primary_dim": primary_dim, "settings": settings}
            own = self.parameters(key, inputs, outputs, dim, **asked_for(self.parameters, offered))
        start = SQUASHES[settings.squash].parameters if hasattr(settings, "squash") else None
        return own | ({"squash": start(jax.random.fold_in(key, 1), dim)} if start else {})

    def takes(self, name: str) -> bool:
        """Whether the algorithm looks at something that the layer offers."""
        return self.route is not None and takes(self.route, name)

    @property
    def traces(self) -> bool:
        """Whether every iteration can be returned."""
        return self.takes("trace")
