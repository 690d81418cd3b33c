"""What a trained network has learned: a network and images in, arrays out. Nothing here draws.

A method is a pure function of a net, images and a target; README.md beside this file lists them. An observation is a
function of a network, and one line in OBSERVATIONS.
"""

from collections.abc import Callable

from capsnet_jax.interpret.activity import (
    activations,
    capsule_activity,
    channel_activity,
    filters,
    strongest_channel,
)
from capsnet_jax.interpret.attention import observe_attention
from capsnet_jax.interpret.attribution import deconvnet, gradient, guided_backprop, integrated_gradients, smooth_grad
from capsnet_jax.interpret.capsule_dimensions import observe_dimensions
from capsnet_jax.interpret.capsule_maps import coupling_maps, reconstruct_from_one
from capsnet_jax.interpret.class_activation import grad_cam, grad_cam_plus_plus, layer_cam
from capsnet_jax.interpret.compared_maps import observe_faithfulness
from capsnet_jax.interpret.couplings import observe_couplings
from capsnet_jax.interpret.distortions import observe_distortions
from capsnet_jax.interpret.dreams import deep_dream, dream_from_noise
from capsnet_jax.interpret.faithfulness import deletion_curve, insertion_curve, randomization_cascade
from capsnet_jax.interpret.feature_visualization import visualize
from capsnet_jax.interpret.inside import observe_inside
from capsnet_jax.interpret.inversion import invert
from capsnet_jax.interpret.made_images import observe_made_images
from capsnet_jax.interpret.network import Network, Observation, load_released, restore
from capsnet_jax.interpret.perturbation import occlusion
from capsnet_jax.interpret.receptive_fields import receptive_field
from capsnet_jax.interpret.strongest_images import crop_receptive_field, top_images

__all__ = [
    "OBSERVATIONS",
    "Network",
    "activations",
    "capsule_activity",
    "channel_activity",
    "coupling_maps",
    "crop_receptive_field",
    "deconvnet",
    "deep_dream",
    "deletion_curve",
    "dream_from_noise",
    "filters",
    "grad_cam",
    "grad_cam_plus_plus",
    "gradient",
    "guided_backprop",
    "insertion_curve",
    "integrated_gradients",
    "invert",
    "layer_cam",
    "load_released",
    "occlusion",
    "randomization_cascade",
    "receptive_field",
    "reconstruct_from_one",
    "restore",
    "smooth_grad",
    "strongest_channel",
    "top_images",
    "visualize",
]

OBSERVATIONS: dict[str, Callable[[Network], Observation]] = {
    "attention": observe_attention,
    "capsule_dimensions": observe_dimensions,
    "couplings": observe_couplings,
    "distortions": observe_distortions,
    "inside": observe_inside,
    "map_faithfulness": observe_faithfulness,
    "made_images": observe_made_images,
}
