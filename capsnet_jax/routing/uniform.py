"""No routing: every parent gets an equal share of every vote, and learning is left to backpropagation."""

import jax.numpy as jnp

from capsnet_jax.config import pytree_dataclass, static
from capsnet_jax.ops.squash import SQUASHES
from capsnet_jax.routing.result import Couplings


@pytree_dataclass
class Fixed:
    """Settings of routers whose couplings do not depend on the votes."""

    squash: str = static("sabour", choices=SQUASHES, doc="how parents are squashed")


def uniform_couplings(inputs: int, outputs: int) -> Couplings:
    """Couple every input to every parent with 1 / outputs, as one iteration of dynamic routing does."""
    return Couplings(jnp.full((inputs, outputs), 1 / outputs), jnp.zeros((inputs, outputs)))
