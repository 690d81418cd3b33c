"""Records and arrays in, pictures out. Nothing here trains.

Every function returns a `matplotlib.figure.Figure`; `save` writes it.
"""

from capsnet_jax.figures.capsules import couplings_over_image, dimension_grid
from capsnet_jax.figures.cost import error_by_cost
from capsnet_jax.figures.curves import learning_curves
from capsnet_jax.figures.distortions import distortion_curves
from capsnet_jax.figures.errors import error_against, error_by_setting
from capsnet_jax.figures.heatmap import setting_heatmap, train_test_grid
from capsnet_jax.figures.ilsvrc import error_against_cost, ilsvrc_winners
from capsnet_jax.figures.images import prediction, reconstructions
from capsnet_jax.figures.iterations import changes_by_iteration, through_training
from capsnet_jax.figures.labels import dataset_label
from capsnet_jax.figures.net_throughput import net_speeds, speed_ratios
from capsnet_jax.figures.paired import compare_arms
from capsnet_jax.figures.quadrants import transfer_quadrants
from capsnet_jax.figures.slide import SLIDE_POINTS, routing_against_backprop
from capsnet_jax.figures.style import save
from capsnet_jax.figures.throughput import COMPARED, CURVES, throughput_by_subject, throughput_scaling

__all__ = [
    "COMPARED",
    "CURVES",
    "SLIDE_POINTS",
    "changes_by_iteration",
    "compare_arms",
    "couplings_over_image",
    "dataset_label",
    "dimension_grid",
    "distortion_curves",
    "error_against",
    "error_against_cost",
    "error_by_cost",
    "error_by_setting",
    "ilsvrc_winners",
    "learning_curves",
    "net_speeds",
    "prediction",
    "reconstructions",
    "routing_against_backprop",
    "save",
    "setting_heatmap",
    "speed_ratios",
    "through_training",
    "throughput_by_subject",
    "throughput_scaling",
    "train_test_grid",
    "transfer_quadrants",
]
