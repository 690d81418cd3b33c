"""What training makes of a net's channels, and of images made for its units: what `seeing_inside` observes."""

from collections.abc import Sequence

import numpy as np

from capsnet_jax.interpret.activity import Images, activations, channel_activity, equal_chunks, strongest_channel
from capsnet_jax.interpret.made_images import observe_made_images
from capsnet_jax.interpret.network import Network, Observation
from capsnet_jax.interpret.program import Net

COUNTED = 2000  # test images
PART = 250  # of these whose activations are held at a time
COUNTS = ("channels", "dead", "near_dead", "leading")


def observe_inside(net: Network) -> Observation:
    """Count channels over the first test images, and compare images made for units with all of them.

    Returns:
        What `observe_made_images` does, "layers" with positions, and of each what `count_channels` does.
    """
    layers = net.layers_with_positions()
    counts = count_channels(net, net.data.test.images[:COUNTED], layers)
    return {**observe_made_images(net), "layers": np.array(layers), **counts}


def count_channels(net: Net, images: Images, layers: Sequence[str]) -> Observation:
    """Count each layer's "channels", "dead" and "near_dead" ones, and those "leading": the strongest for some image."""
    counts: dict[str, list[int]] = {name: [] for name in COUNTS}
    for layer in layers:
        activity = channel_activity(net, images, layer)
        parts = [strongest_channel(activations(net, part, layer)) for part, _ in equal_chunks(images, PART)]
        leading = np.unique(np.concatenate(parts))
        found = len(activity.active), activity.dead.sum(), activity.near_dead.sum(), len(leading)
        for name, count in zip(COUNTS, found, strict=True):
            counts[name].append(int(count))
    return {name: np.array(values, int) for name, values in counts.items()}
