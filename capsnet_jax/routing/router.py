"""What an entry of ROUTERS says of an algorithm."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float

from capsnet_jax.config import NoSettings
from capsnet_jax.ops.squash import length
from capsnet_jax.routing.result import Couplings, Routing, weighted_parents


@dataclasses.dataclass(frozen=True)
class Router:
    """A routing algorithm, one of `route` and `fixed` or both.

    Attributes:
        route: `route(votes[inputs, outputs, dim], *, **settings) → Routing` of one example. If its signature names
          them, it also gets `activations` [inputs] of the input capsules, its `parameters`, and `trace`: whether to
          return every iteration.
        settings: an instance of its own settings dataclass.
        parameters: `parameters(key, inputs, outputs, dim) → dict`, where it learns something.
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
        activations: Float[Array, "inputs"] | None = None,
        parameters: dict[str, Any] | None = None,
        trace: bool = False,
        **settings: Any,
    ) -> Routing:
        """Route one example's votes, with `settings` in place of the defaults."""
        chosen = dataclasses.replace(self.settings, **settings)
        offered = {"activations": activations, "parameters": parameters, "trace": trace}
        inputs, outputs, _ = votes.shape
        fixed = self.fixed_couplings(inputs, outputs, chosen, parameters)
        if self.route is None or (fixed is not None and not trace):
            if fixed is None:
                raise ValueError("a router without `route` needs couplings from `fixed`")
            capsules = weighted_parents(votes, fixed.couplings, chosen.squash)
            return Routing(capsules, length(capsules), *fixed)
        routing = self.route(votes, **vars(chosen), **_named(self.route, offered))
        if not isinstance(routing, Routing):
            raise TypeError(f"the router returned {type(routing).__name__}; return a Routing")
        return routing

    def fixed_couplings(
        self, inputs: int, outputs: int, settings: Any, parameters: dict[str, Any] | None
    ) -> Couplings | None:
        """Return couplings that no vote changes; None where votes decide."""
        if self.fixed is None:
            return None
        return self.fixed(inputs, outputs, **_named(self.fixed, {"settings": settings, "parameters": parameters}))

    @property
    def takes_activations(self) -> bool:
        """Whether the input capsules' activations are looked at."""
        return self.route is not None and "activations" in inspect.signature(self.route).parameters

    @property
    def traces(self) -> bool:
        """Whether every iteration can be returned."""
        return self.route is not None and "trace" in inspect.signature(self.route).parameters


def _named(function: Callable[..., Any], offered: dict[str, Any]) -> dict[str, Any]:
    """Return those of the offered arguments that a function's signature names."""
    return {name: value for name, value in offered.items() if name in inspect.signature(function).parameters}
