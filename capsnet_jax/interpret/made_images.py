"""Does an image made for a unit activate it more than any image of the test set does?"""

import jax
import numpy as np

from capsnet_jax.interpret.feature_visualization import visualize
from capsnet_jax.interpret.network import Network, Observation
from capsnet_jax.interpret.strongest_images import top_images
from capsnet_jax.interpret.targets import class_score, unit

UNITS = 10
STEPS = 256
SEED = 0


def observe_made_images(net: Network) -> Observation:
    """Compare images made for units with all test images.

    The units are the class capsules of a CapsNet, by their activations, otherwise ten channels of the last layer with
    positions, evenly spread; of a test image the position counts where the channel is strongest.

    Returns:
        "layer", "units" [10], and how strongly each is activated by the strongest test image, "found" [10], and by the
        image made for it, "made" [10].
    """
    routes = net.is_capsnet
    layer = "lengths" if routes else net.layers_with_positions()[-1]
    found = top_images(net, net.data.test.images, layer, 1).values[:, 0]
    units = np.unique(np.linspace(0, len(found) - 1, UNITS).round().astype(int))
    goal = class_score(units) if routes else unit(layer, units)
    shape, starts = net.data.image_shape, starts_for(net)
    made = visualize(net, goal, key=jax.random.key(SEED), shape=shape, steps=STEPS, starts=starts)
    name = "capsules" if routes else layer
    return {"layer": np.array(name), "units": units, "found": found[units], "made": np.asarray(made.scores)}


def starts_for(net: Network) -> int:
    """Return how many first images race: squashing hides from a capsule's gradient where a better one would be."""
    return 8 if net.is_capsnet else 1
