"""What a trained network has learned: a finished run and images in, arrays out. Nothing here draws.

An observation is a function of a network, and one line in OBSERVATIONS. README.md beside this file shows how to add
one.
"""

from collections.abc import Callable

from capsnet_jax.interpret.capsule_dimensions import observe_dimensions
from capsnet_jax.interpret.couplings import observe_couplings
from capsnet_jax.interpret.distortions import observe_distortions
from capsnet_jax.interpret.restore import Network, Observation

OBSERVATIONS: dict[str, Callable[[Network], Observation]] = {
    "capsule_dimensions": observe_dimensions,
    "couplings": observe_couplings,
    "distortions": observe_distortions,
}
