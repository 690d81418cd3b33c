"""What each dimension of a class capsule stands for: move one, and decode the capsule again."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from capsnet_jax.config import ConfigError
from capsnet_jax.interpret.examples import of_each_class, to_bytes
from capsnet_jax.interpret.restore import Network, Observation
from capsnet_jax.models.capsnet import decode

GREATEST = 0.25  # how far a dimension is moved, up and down
STEPS = 11
RECONSTRUCTED = 2  # images of each class


def observe_dimensions(net: Network) -> Observation:
    """Reconstruct validation images, and move every dimension of one image's capsule of each class.

    Args:
        net: a CapsNet with a decoder.

    Returns:
        Bytes for pixels, as in the data set: "images" and "reconstructions" [images, height, width, channels], "labels"
        and "predictions" [images]; "moved" [classes, dims, steps, height, width, channels], "offsets" [steps], and the
        classes' "names".

    Raises:
        ConfigError: the network does not decode, or there are too few images of a class.
    """
    check_decodes(net)
    images, labels = of_each_class(net.data, RECONSTRUCTED)
    out = net.outputs(images)
    offsets = np.linspace(-GREATEST, GREATEST, STEPS, dtype=np.float32)
    moved = [move_dimensions(net, out["capsules"][k], k, offsets) for k in range(net.data.classes)]
    return {
        "images": images,
        "labels": labels,
        "reconstructions": to_bytes(out["reconstruction"]),
        "predictions": np.asarray(jnp.argmax(out["lengths"], axis=-1)),
        "moved": to_bytes(jnp.stack(moved)),
        "offsets": offsets,
        "names": np.array(net.data.label_names),
    }


def move_dimensions(
    net: Network,
    capsules: Float[Array, "classes dims"],
    decoded_class: int,
    offsets: Sequence[float] | Float[Array | np.ndarray, "steps"],
) -> Float[Array, "dims steps height width channels"]:
    """Decode one image's capsules with one dimension of the decoded class's capsule moved.

    Args:
        net: a CapsNet with a decoder.
        capsules: class capsules of one image.
        decoded_class: the class whose capsule the decoder sees.
        offsets: what is added to a dimension.

    Returns:
        Pixels in (0, 1), for every dimension and offset.

    Raises:
        ConfigError: the network does not decode.

    Source: Sabour, Frosst and Hinton 2017 (arXiv:1710.09829), figure 4.
    """
    check_decodes(net)
    classes, dims = capsules.shape
    steps = jnp.eye(dims)[:, None] * jnp.asarray(offsets, jnp.float32)[None, :, None]  # [dims, steps, dims]
    changed = jnp.broadcast_to(capsules, (dims, len(offsets), classes, dims)).at[:, :, decoded_class].add(steps)
    changed = changed.reshape(-1, classes, dims)
    targets = jnp.zeros((len(changed), classes)).at[:, decoded_class].set(1)
    return decode(net.model, net.params, changed, targets).reshape(dims, len(offsets), *net.data.image_shape)


def check_decodes(net: Network) -> None:
    """Raise a ConfigError if a network has no decoder."""
    if "decoder" not in net.params:
        raise ConfigError(f"{net.config.model.name} has no decoder here; train a CapsNet with loss.reconstruction=true")
