"""What each dimension of a class capsule stands for: move one, and decode the capsule again."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from capsnet_jax.config import Config, ConfigError
from capsnet_jax.interpret.examples import of_each_class, to_bytes
from capsnet_jax.interpret.network import Network, Observation
from capsnet_jax.models import MODELS
from capsnet_jax.models.capsnet import decode

GREATEST = 0.25  # how far a dimension is moved, up and down
STEPS = 11
RECONSTRUCTED = 2  # images of each class
CLASSES = 20  # the most that are shown, the first ones


def observe_dimensions(net: Network) -> Observation:
    """Reconstruct images, and move every dimension of one image's capsule of each class.

    The images are of the validation split, or of the training split where no image is held out. A class without images
    is left out, and of many classes the first 20 are shown.

    Args:
        net: a CapsNet with a decoder.

    Returns:
        Bytes for pixels, as in the data set: "images" and "reconstructions" [images, height, width, channels], "labels"
        and "predictions" [images] (the label, where that is one of several classes that an image shows and another of
        them is predicted); "moved" [shown, dims, steps, height, width, channels] of the "shown" classes, "offsets"
        [steps], the names of all classes, "names", and the "split".

    Raises:
        ConfigError: the network does not decode.
    """
    check_decodes(net)
    images, labels, present, split = of_each_class(net.data, RECONSTRUCTED, classes=CLASSES)
    out = net.outputs(images)
    predictions = np.asarray(jnp.argmax(out["lengths"], axis=-1))
    right = present[np.arange(len(labels)), predictions] > 0
    offsets = np.linspace(-GREATEST, GREATEST, STEPS, dtype=np.float32)
    shown = labels[: len(np.unique(labels))]  # the first image of every class comes first
    moved = [to_bytes(move_dimensions(net, out["capsules"][i], int(k), offsets)) for i, k in enumerate(shown)]
    return {
        "images": images,
        "labels": labels,
        "reconstructions": to_bytes(out["reconstruction"]),
        "predictions": np.where(right, labels, predictions),
        "moved": np.stack(moved),
        "shown": shown,
        "offsets": offsets,
        "names": np.array(net.data.label_names),
        "split": np.array(split),
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
    if (lack := lacks_decoder(net.config)) is not None:
        raise ConfigError(f"a CapsNet's decoder is needed: {lack}")


def lacks_decoder(config: Config) -> str | None:
    """Say why a config's network has no class capsules that are decoded, and the remedy; None if it has."""
    entry = MODELS[config.model.name]
    if not (entry.decodes and entry.routes):
        return f"{config.model.name} has none; use --set model.name=capsnet_small"
    if config.reconstruction is None or not config.reconstruction.reconstruction:
        return "leave out loss.reconstruction=false"
    return None
