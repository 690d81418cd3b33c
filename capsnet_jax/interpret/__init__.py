"""What a trained network has learned: a network and images in, arrays out. Nothing here draws.

A method is a pure function of a net, images and a target; README.md beside this file lists them. An observation is a
function of a network, and one line in OBSERVATIONS.
"""

from collections.abc import Callable

from capsnet_jax.interpret.attribution import gradient
from capsnet_jax.interpret.capsule_dimensions import observe_dimensions
from capsnet_jax.interpret.capsule_maps import coupling_maps, reconstruct_from_one
from capsnet_jax.interpret.compared_maps import observe_faithfulness
from capsnet_jax.interpret.couplings import observe_couplings
from capsnet_jax.interpret.distortions import observe_distortions
from capsnet_jax.interpret.faithfulness import deletion_curve, insertion_curve, randomization_cascade
from capsnet_jax.interpret.network import Network, Observation, load_released, restore

__all__ = [
    "OBSERVATIONS",
    "Network",
    "coupling_maps",
    "deletion_curve",
    "gradient",
    "insertion_curve",
    "load_released",
    "randomization_cascade",
    "reconstruct_from_one",
    "restore",
]

OBSERVATIONS: dict[str, Callable[[Network], Observation]] = {
    "capsule_dimensions": observe_dimensions,
    "couplings": observe_couplings,
    "distortions": observe_distortions,
    "map_faithfulness": observe_faithfulness,
}
