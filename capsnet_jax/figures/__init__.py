"""Records and arrays in, pictures out. Nothing here trains.

Every function returns a `matplotlib.figure.Figure`; `save` writes it. README.md says which plot is where.
"""

from capsnet_jax.figures.active_shares import active_shares
from capsnet_jax.figures.cost import error_by_cost
from capsnet_jax.figures.curves import learning_curves
from capsnet_jax.figures.error_against import error_against
from capsnet_jax.figures.forest import error_by_setting, paired_differences
from capsnet_jax.figures.heatmap import setting_heatmap, train_test_grid
from capsnet_jax.figures.images import prediction, reconstructions
from capsnet_jax.figures.net_throughput import net_speeds, speed_ratios
from capsnet_jax.figures.overlays import overlay
from capsnet_jax.figures.style import save
from capsnet_jax.figures.throughput import COMPARED, CURVES, throughput_by_subject, throughput_scaling
from capsnet_jax.figures.tiles import tile_grid

__all__ = [
    "COMPARED",
    "CURVES",
    "active_shares",
    "error_against",
    "error_by_cost",
    "error_by_setting",
    "learning_curves",
    "net_speeds",
    "overlay",
    "paired_differences",
    "prediction",
    "reconstructions",
    "save",
    "setting_heatmap",
    "speed_ratios",
    "throughput_by_subject",
    "throughput_scaling",
    "tile_grid",
    "train_test_grid",
]
