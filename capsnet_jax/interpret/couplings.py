"""Where single images' votes go: the routing of a trained CapsNet, iteration by iteration."""

import jax.numpy as jnp
import numpy as np

from capsnet_jax.interpret.capsule_maps import primary_field, primary_grid, trace_routing
from capsnet_jax.interpret.examples import of_each_class
from capsnet_jax.interpret.network import Network, Observation
from capsnet_jax.models.capsnet import weights_of_inputs
from capsnet_jax.ops.squash import length

IMAGES = 3  # the first image of as many classes, the first that have one
ITERATIONS = 3


def observe_couplings(net: Network) -> Observation:
    """Observe which positions of single images send their votes to which class, in each of three iterations.

    The images are of the validation split, or of the training split where no image is held out.

    Args:
        net: a CapsNet.

    Returns:
        "images" uint8[images, height, width, channels], "labels" [images], "shares" float32[images, iterations, rows,
        columns, classes]: the lengths of coupled votes |c_io û_io|, summed over the capsule types of each position;
        "lengths" [images, iterations, classes], the activations of the class capsules, "receptive" (pixels between
        positions, side of a position's receptive field), the names of all classes, "names", and the "split".

    Raises:
        ConfigError: the network does not route.
    """
    images, labels, _, split = of_each_class(net.data, 1, classes=IMAGES)
    trace = trace_routing(net, images, ITERATIONS)
    field = primary_field(net)
    primary = net.outputs(images)["primary"]
    weights = weights_of_inputs(net.params["class_capsules"]["W"], primary.shape[1])
    votes = length(jnp.einsum("bik,iokd->biod", primary, weights))
    coupled = trace.couplings * votes[:, None]
    shares = jnp.sum(coupled.reshape(*coupled.shape[:2], *primary_grid(net), -1), axis=4)
    return {
        "images": images,
        "labels": labels,
        "shares": np.asarray(shares, np.float32),
        "lengths": np.asarray(trace.activations),
        "receptive": np.array([field.stride[0], field.size[0]]),
        "names": np.array(net.data.label_names),
        "split": np.array(split),
    }
