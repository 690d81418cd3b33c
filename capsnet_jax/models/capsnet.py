"""CapsNet: Sabour, Frosst and Hinton 2017, "Dynamic Routing Between Capsules" (arXiv:1710.09829), figures 1 and 2."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from capsnet_jax.config import Choice, pytree_dataclass, static, traced
from capsnet_jax.models.layers import PRECISIONS, Conv
from capsnet_jax.ops.squash import SQUASHES
from capsnet_jax.routing import ROUTERS, Routing
from capsnet_jax.routing.layer import route_batch


@pytree_dataclass
class CapsNetSettings:
    """Sizes of a CapsNet; the defaults are the paper's."""

    channels: int = static(256, low=1, doc="channels of the first convolution")
    kernel: int = static(9, low=1, doc="side of both convolution kernels, pixels")
    capsule_types: int = static(32, low=1, doc="types of primary capsules")
    primary_dim: int = static(8, low=1, doc="dimensions of a primary capsule")
    class_dim: int = static(16, low=1, doc="dimensions of a class capsule")
    decoder: tuple[int, ...] = static((512, 1024), low=1, doc="hidden widths of the decoder, as 512x1024")
    weight_scale: float = traced(0.1, low=0, doc="σ of the normal, cut at 2σ, that W starts from")
    squash: str = static("sabour", choices=SQUASHES, doc="how primary capsules are squashed")
    precision: str = static("float32", choices=PRECISIONS, doc="of the factors in products; routing stays float32")


class CapsNet(nn.Module):
    """Images to class capsules, and back to images.

    Attributes:
        classes: number of class capsules.
        channels: channels of the first convolution.
        kernel: side of both convolutions' kernels, pixels.
        capsule_types: types of primary capsules; each type is one `primary_dim`-vector at every position.
        primary_dim: dimensions of a primary capsule.
        class_dim: dimensions of a class capsule.
        decoder: hidden widths of the decoder.
        reconstruction: whether there is a decoder.
        shown: how many classes each image shows; the decoder sees each of them alone.
        weight_scale: σ of the normal, cut at 2σ, that the transformation matrices start from.
        squash: a key of SQUASHES, of the primary capsules; the router squashes the class capsules.
        routing: a key of ROUTERS with its settings: how primary capsules choose their parents.
        precision: type of the factors in convolutions, votes and decoder; squashing and routing are float32.
    """

    classes: int = 10
    channels: int = 256
    kernel: int = 9
    capsule_types: int = 32
    primary_dim: int = 8
    class_dim: int = 16
    decoder: tuple[int, ...] = (512, 1024)
    reconstruction: bool = True
    shown: int = 1
    weight_scale: float | Array = 0.1
    squash: str = "sabour"
    routing: Choice = Choice("dynamic", ROUTERS["dynamic"].settings)
    precision: str = "float32"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], targets: Float[Array, "batch classes"] | None = None
    ) -> dict[str, Any]:
        """Run the network.

        Args:
            images: pixels in [0, 1].
            targets: 1 for each class whose capsule the decoder sees, else 0; without them it sees the longest's, as
                many as are shown.

        Returns:
            "conv1" activations, "primary" capsules [batch, inputs, primary_dim], their "primary_activations" [batch,
            inputs], "capsules" [batch, classes, class_dim], their activations as "lengths" [batch, classes],
            "couplings" and "routing_logits" [batch, inputs, classes], and the "reconstruction" [batch, height, width,
            channels] in (0, 1) where there is a decoder. If several classes are shown, that is the sum, at most 1, of
            "reconstructions" [batch, shown, height, width, channels] of each class, the lower class first.
        """
        batch = images.shape[0]
        out = {"conv1": nn.relu(Conv(self.channels, self.kernel, precision=self.precision, name="conv1")(images))}
        filters = self.capsule_types * self.primary_dim
        primary = Conv(filters, self.kernel, strides=2, precision=self.precision, name="primary")(out["conv1"])
        squash = SQUASHES[self.squash]
        if squash.parameters is not None:
            squash = squash.bind(self.param("primary_squash", squash.parameters, self.primary_dim))
        out["primary"] = squash(primary.reshape(batch, -1, self.primary_dim))
        out["primary_activations"] = squash.activation(out["primary"])

        class_capsules = ClassCapsules(
            self.classes, self.class_dim, self.weight_scale, self.routing, self.precision, name="class_capsules"
        )
        routed = class_capsules(out["primary"], out["primary_activations"])
        out |= {"capsules": routed.capsules, "lengths": routed.activations}
        out |= {"couplings": routed.couplings, "routing_logits": routed.logits}

        if self.reconstruction:
            if targets is None:
                targets = jnp.sum(_each_of_greatest(out["lengths"], self.shown), axis=1)
            decoder = Decoder(self.decoder, math.prod(images.shape[1:]), self.precision, name="decoder")
            if self.shown == 1:
                out["reconstruction"] = decoder(mask_other_classes(out["capsules"], targets)).reshape(images.shape)
            else:
                masks = _each_of_greatest(targets, self.shown)
                alone = jax.vmap(mask_other_classes, (None, 1), 1)(out["capsules"], masks)
                pixels = decoder(alone.reshape(-1, *alone.shape[2:]))
                out["reconstructions"] = pixels.reshape(batch, self.shown, *images.shape[1:])
                out["reconstruction"] = jnp.minimum(jnp.sum(out["reconstructions"], axis=1), 1)
        return out


class ClassCapsules(nn.Module):
    """Votes û_io = W_io u_i of every input capsule for every class, and the routing that couples them.

    W is float[inputs, classes, primary_dim, class_dim], without a bias, as in the paper. What a router learns is its
    parameter `routing`.
    """

    classes: int
    dim: int
    weight_scale: float | Array
    routing: Choice
    precision: str = "float32"

    @nn.compact
    def __call__(
        self, primary: Float[Array, "batch inputs primary_dim"], activations: Float[Array, "batch inputs"]
    ) -> Routing:
        """Route the primary capsules of a batch."""
        _, inputs, primary_dim = primary.shape
        shape = (inputs, self.classes, primary_dim, self.dim)
        # Scaled here and not by the initialiser's argument: the scale may be a traced number.
        weights = self.param("W", lambda key: self.weight_scale * jax.random.truncated_normal(key, -2, 2, shape))
        start = partial(
            ROUTERS[self.routing.name].initial_parameters,
            inputs=inputs,
            outputs=self.classes,
            dim=self.dim,
            primary_dim=primary_dim,
            settings=self.routing.settings,
        )
        learns = jax.eval_shape(start, jax.random.key(0))
        parameters = self.param("routing", start) if learns else None
        return route_batch(
            primary, weights, self.routing, parameters, activations=activations, precision=self.precision
        )


def route_again(
    params: dict[str, Any],
    primary: Float[Array, "batch inputs primary_dim"],
    routing: Choice,
    *,
    activations: Float[Array, "batch inputs"] | None = None,
    trace: bool = False,
) -> Routing:
    """Route a CapsNet's primary capsules by other settings than those that it was built with.

    Args:
        params: the parameters of the whole network.
        primary: its primary capsules.
        routing: a key of ROUTERS with other settings.
        activations: of the primary capsules; None: their lengths.
        trace: whether every iteration is returned.
    """
    layer = params["class_capsules"]
    return route_batch(primary, layer["W"], routing, layer.get("routing"), activations=activations, trace=trace)


def decode(
    model: CapsNet,
    params: dict[str, Any],
    capsules: Float[Array, "batch classes dim"],
    targets: Float[Array, "batch classes"],
) -> Float[Array, "batch pixels"]:
    """Return what a CapsNet's decoder makes of class capsules when it sees those of the `targets` alone."""
    pixels = params["decoder"]["pixels"]["bias"].size
    decoder = Decoder(model.decoder, pixels, model.precision)
    return decoder.apply({"params": params["decoder"]}, mask_other_classes(capsules, targets))


def mask_other_classes(
    capsules: Float[Array, "batch classes dim"], targets: Float[Array, "batch classes"]
) -> Float[Array, "batch classes dim"]:
    """Set all class capsules but those of the targets to 0."""
    return capsules * targets[:, :, None]


def _each_of_greatest(scores: Float[Array, "batch classes"], count: int) -> Float[Array, "batch count classes"]:
    """Return a row for each of the classes of greatest score: 1 for that class. Of equal ones the lower comes first."""
    return jax.nn.one_hot(jax.lax.top_k(scores, count)[1], scores.shape[-1])


class Decoder(nn.Module):
    """Masked class capsules to pixels: fully connected layers, ReLU between them and a sigmoid at the end."""

    hidden: tuple[int, ...]
    pixels: int
    precision: str = "float32"

    @nn.compact
    def __call__(self, masked: Float[Array, "batch classes dim"]) -> Float[Array, "batch pixels"]:
        """Decode class capsules, of which all but the decoded classes' are 0."""
        x = masked.reshape(masked.shape[0], -1)
        for index, width in enumerate(self.hidden):
            x = nn.relu(nn.Dense(width, dtype=self.precision, name=f"hidden{index + 1}")(x))
        x = nn.Dense(self.pixels, dtype=self.precision, name="pixels")(x)
        return nn.sigmoid(x.astype(masked.dtype))
