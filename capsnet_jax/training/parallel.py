"""Several runs of one structure in one program."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from capsnet_jax.config import Config


def stack(configs: list[Config]) -> Config:
    """Configs of one structure as one, each leaf float32[runs]."""
    return jax.tree.map(lambda *leaves: jnp.asarray(leaves, jnp.float32), *configs)


def chosen(across: str) -> str:
    """How runs share a program: "map" or "vmap"; "auto" is what the platform does best.

    A CPU is as fast on one run as on several, and batched products over runs cost it locality.
    """
    if across != "auto":
        return across
    return "map" if jax.default_backend() == "cpu" else "vmap"


def over_runs(function: Callable, axes: tuple[int | None, ...], *, across: str) -> Callable:
    """`function` over the leading axis `runs` of the arguments whose axis is 0, the others (None) shared.

    Args:
        function: of one run.
        axes: 0 or None for each argument.
        across: "vmap" batches every operation over the runs; "map" takes them in turn, inside the program.
    """
    if across == "vmap":
        return jax.vmap(function, in_axes=axes)

    def mapped(*arguments: Any) -> Any:
        stacked = [a for a, axis in zip(arguments, axes, strict=True) if axis == 0]

        def one(own: list[Any]) -> Any:
            # Without barriers XLA merges slicing and stacking with the function, for one run in another way than for
            # several, and its sums round differently: a run must be equal to the bit whoever runs beside it.
            own = list(jax.lax.optimization_barrier(own))
            result = function(*(own.pop(0) if axis == 0 else a for a, axis in zip(arguments, axes, strict=True)))
            return jax.lax.optimization_barrier(result)

        return jax.lax.map(one, stacked)

    return mapped
