"""Several runs of one structure in one program."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from capsnet_jax.config import Config


def stack(configs: list[Config]) -> Config:
    """Stack configs of one structure, each leaf float32[runs]."""
    return jax.tree.map(lambda *leaves: jnp.asarray(leaves, jnp.float32), *configs)


def resolve(parallel: str) -> str:
    """Return how runs share a program, "map" or "vmap"; "auto" is what the platform does best.

    A CPU is as fast on one run as on several, and batched products over runs cost it locality.
    """
    if parallel != "auto":
        return parallel
    return "map" if jax.default_backend() == "cpu" else "vmap"


def map_over_runs(function: Callable, axes: tuple[int | None, ...], *, parallel: str) -> Callable:
    """Map `function` over the leading axis `runs` of the arguments whose axis is 0; the others (None) are shared.

    Args:
        function: of one run.
        axes: 0 or None for each argument.
        parallel: "vmap" batches every operation over the runs; "map" takes them in turn, inside the program.
    """
    if parallel == "vmap":
        return jax.vmap(function, in_axes=axes)

    def in_turn(*arguments: Any) -> Any:
        stacked = [a for a, axis in zip(arguments, axes, strict=True) if axis == 0]

        def one_run(mapped: list[Any]) -> Any:
            # Without barriers XLA merges slicing and stacking with the function, in another way for one run than for
            # several. Sums then round differently, but a run must be equal to the bit whatever runs beside it.
            mapped = list(jax.lax.optimization_barrier(mapped))
            result = function(*(mapped.pop(0) if axis == 0 else a for a, axis in zip(arguments, axes, strict=True)))
            return jax.lax.optimization_barrier(result)

        return jax.lax.map(one_run, stacked)

    return in_turn
