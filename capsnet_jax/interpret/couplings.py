"""Where single images' votes go: the routing of a trained CapsNet, iteration by iteration."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num

from capsnet_jax.config import Config, ConfigError
from capsnet_jax.interpret.examples import of_each_class
from capsnet_jax.interpret.network import Network, Observation
from capsnet_jax.interpret.routing_diagnostics import iterates, with_iterations
from capsnet_jax.models.capsnet import route_again
from capsnet_jax.ops.squash import length
from capsnet_jax.routing import Trace

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
        "lengths" [images, iterations, classes] of the class capsules, "receptive" (pixels between positions, side of a
        position's receptive field), the names of all classes, "names", and the "split".

    Raises:
        ConfigError: the network does not route.
    """
    images, labels, _, split = of_each_class(net.data, 1, classes=IMAGES)
    trace = trace_routing(net, images, ITERATIONS)
    votes = length(jnp.einsum("bik,iokd->biod", net.outputs(images)["primary"], net.params["class_capsules"]["W"]))
    coupled = trace.couplings * votes[:, None]
    kernel = net.model.kernel
    rows, columns = ((side - 2 * kernel + 1) // 2 + 1 for side in net.data.image_shape[:2])
    shares = jnp.sum(coupled.reshape(*coupled.shape[:2], rows, columns, net.model.capsule_types, -1), axis=4)
    return {
        "images": images,
        "labels": labels,
        "shares": np.asarray(shares, np.float32),
        "lengths": np.asarray(length(trace.capsules)),
        "receptive": np.array([2, 2 * kernel - 1]),
        "names": np.array(net.data.label_names),
        "split": np.array(split),
    }


def trace_routing(
    net: Network, images: Num[Array | np.ndarray, "batch height width channels"], iterations: int
) -> Trace:
    """Route images once, and return every iteration, whatever the network was trained with.

    Args:
        net: a CapsNet.
        images: pixels in [0, 1], or bytes.
        iterations: of routing. A router that does not iterate has one.

    Returns:
        Every field with leading axes `batch` and `iterations`.

    Raises:
        ConfigError: the network does not route.
    """
    routing = net.config.routing
    if routing is None:
        raise ConfigError(f"there are no couplings to trace: {lacks_routing(net.config)}")
    primary = net.outputs(images)["primary"]
    if iterates(routing):
        trace = route_again(net.params, primary, with_iterations(routing, iterations), trace=True).trace
        assert trace is not None, "a router that traces returns its trace"
        return trace
    once = route_again(net.params, primary, routing)
    fields = once.capsules, once.activations, once.couplings, once.logits
    return Trace(*(field[:, None] for field in fields))


def lacks_routing(config: Config) -> str | None:
    """Say why a config's network has no couplings, and the remedy; None if it has."""
    return None if config.routing else f"{config.model.name} does not route; use --set model.name=capsnet_small"
