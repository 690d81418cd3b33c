"""A net together with its parameters, as one function of images: what looking inside needs of it."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Array, Float, PyTree

Normalize = Callable[[Float[Array, "batch height width channels"]], Float[Array, "batch height width channels"]]


@partial(
    jax.tree_util.register_dataclass, data_fields=["variables"], meta_fields=["module", "normalize", "intermediates"]
)
@dataclasses.dataclass(frozen=True)
class Forward:
    """A Flax module and its variables. It can be an argument of a jitted function: variables are traced.

    Attributes:
        module: called with images alone; it evaluates, and does not train.
        variables: as `module.init` returns them.
        normalize: what pixels in [0, 1] go through first; None: nothing.
        intermediates: whether the outputs are those of every module inside, for a net that does not return a dictionary
            of what is worth looking at.
    """

    module: nn.Module
    variables: PyTree
    normalize: Normalize | None = None
    intermediates: bool = False

    def __call__(self, images: Float[Array, "batch height width channels"]) -> dict[str, Array]:
        """Return {name: array} of the net's outputs, layer by layer.

        With `intermediates`, a name is the path of a module, joined by dots, and of a part of what it returns, if that
        is more than one array. The net's own output is "output", or has the names that the net gives.
        """
        pixels = images if self.normalize is None else self.normalize(images)
        if not self.intermediates:
            return self.module.apply(self.variables, pixels)
        out, state = self.module.apply(self.variables, pixels, capture_intermediates=True, mutable=["intermediates"])
        found: dict[str, Any] = {}
        for path, value in jax.tree_util.tree_leaves_with_path(state["intermediates"]):
            keys = [getattr(key, "key", getattr(key, "idx", None)) for key in path]
            at = keys.index("__call__")
            modules, call, parts = keys[:at], keys[at + 1], keys[at + 2 :]
            if modules:
                found[".".join(map(str, [*modules, *parts])) + (f"#{call + 1}" if call else "")] = value
        return found | (dict(out) if isinstance(out, Mapping) else {"output": out})


def from_flax(module: nn.Module, variables: PyTree, *, normalize: Normalize | None = None) -> Forward:
    """Return a Flax module of any make as a function of images to {name: array} of what every module inside returns.

    Args:
        module: called with images alone, as in evaluation.
        variables: as `module.init` returns them.
        normalize: what pixels in [0, 1] go through first; None: nothing.
    """
    return Forward(module, variables, normalize, intermediates=True)
