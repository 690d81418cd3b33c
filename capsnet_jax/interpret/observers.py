"""What is observed through training beside errors, as `eval.*` asks: after each epoch, and at the end."""

from jaxtyping import Array, Float, PyTree

from capsnet_jax.config import Config, Eval
from capsnet_jax.data import Examples
from capsnet_jax.interpret.coupling_statistics import count_couplings
from capsnet_jax.interpret.dead_units import count_dead
from capsnet_jax.interpret.routing_diagnostics import observe_routing
from capsnet_jax.training.evaluation import ObserveFn


def observer(asked: Eval) -> ObserveFn | None:
    """Make the function that observes all that is asked for; None where that is nothing."""
    offered = (
        observe_routing(asked.max_routing_iterations),
        count_dead if asked.dead else None,
        count_couplings if asked.couplings else None,
    )
    chosen = [observe_fn for observe_fn in offered if observe_fn]

    def observe(
        config: Config, params: PyTree, stats: PyTree, examples: Examples, classes: int
    ) -> dict[str, Float[Array, ""]]:
        found: dict[str, Array] = {}
        for observe_fn in chosen:
            found |= observe_fn(config, params, stats, examples, classes)
        return found

    return observe if chosen else None
