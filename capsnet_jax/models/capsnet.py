"""CapsNet: Sabour, Frosst and Hinton 2017, "Dynamic Routing Between Capsules" (arXiv:1710.09829), figures 1 and 2."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer, constant, he_normal, lecun_normal, truncated_normal, zeros
from jaxtyping import Array, Float

from capsnet_jax.config import Choice, pytree_dataclass, static, traced
from capsnet_jax.models.layers import PRECISIONS, Conv
from capsnet_jax.ops.squash import SQUASHES, Squash
from capsnet_jax.routing import ROUTERS, Routing
from capsnet_jax.routing.layer import route_batch


class Start(NamedTuple):
    """How the kernels and biases of a CapsNet start.

    Attributes:
        conv1: of the first convolution's kernel.
        primary: of the primary convolution's.
        decoder: of the decoder's.
        bias: of all of these layers' biases.
    """

    conv1: Initializer = he_normal()
    primary: Initializer = he_normal()
    decoder: Initializer = lecun_normal()
    bias: Initializer = zeros


# Normals are cut at 2σ.
STARTS = {
    "he": Start(),
    "released": Start(truncated_normal(0.05), truncated_normal(0.1), truncated_normal(0.1), constant(0.1)),
}


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
    start: str = static("he", choices=STARTS, doc="kernels from He's normal and biases of 0, or as the released code's")
    divide_primary: bool = static(
        False, doc="the primary convolution is divided by the number of its types, as in the released code"
    )
    share_weights: bool = static(False, doc="whether W is the same at all positions, one for each capsule type")
    squash: str = static("sabour", choices=SQUASHES, doc="how primary capsules are squashed")
    precision: str = static(
        "float32", choices=PRECISIONS, doc="of products (float32 is TF32 on a GPU); routing stays float32"
    )


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
        start: a key of STARTS: how kernels and biases start.
        divide_primary: whether the primary convolution is divided by the number of its types before its bias is added.
          The released code has one iteration of routing there, so each type gets an equal share of what conv1 says.
        share_weights: whether W is the same at all positions.
        squash: a key of SQUASHES, of the primary capsules; the router squashes the class capsules.
        routing: a key of ROUTERS with its settings: how primary capsules choose their parents.
        precision: type of convolutions, votes and decoder; squashing and routing are float32.
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
    start: str = "he"
    divide_primary: bool = False
    share_weights: bool = False
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
        batch, start = images.shape[0], STARTS[self.start]
        conv = partial(Conv, size=self.kernel, bias_init=start.bias, precision=self.precision)
        out = {"conv1": nn.relu(conv(self.channels, kernel_init=start.conv1, name="conv1")(images))}
        filters = self.capsule_types * self.primary_dim
        shared = out["conv1"] / self.capsule_types if self.divide_primary else out["conv1"]
        primary = conv(filters, strides=2, kernel_init=start.primary, name="primary")(shared)
        positions = primary.shape[1] * primary.shape[2] if self.share_weights else 1
        return out | capsule_layers(
            self, primary.reshape(batch, -1, self.primary_dim), images, targets, positions=positions, start=start
        )


def capsule_layers(
    net: nn.Module,
    primary: Float[Array, "batch inputs primary_dim"],
    images: Float[Array, "batch height width channels"],
    targets: Float[Array, "batch classes"] | None,
    *,
    positions: int = 1,
    start: Start = STARTS["he"],
) -> dict[str, Any]:
    """Apply the end of a CapsNet: squash the primary capsules, route them, and decode the classes' capsules.

    Args:
        net: a compact module that calls this, with the attributes of `CapsNet` from `class_dim` on.
        primary: its primary capsules before the squash.
        images: whose shape the reconstruction has.
        targets: as of `CapsNet`.
        positions: so many positions share one W.
        start: how the decoder starts.

    Returns:
        What `CapsNet` returns behind its convolutions.
    """
    squash = SQUASHES[net.squash]
    if squash.parameters is not None:
        squash = squash.bind(net.param("primary_squash", squash.parameters, primary.shape[-1]))
    sizes = net.classes, net.class_dim, net.weight_scale, net.routing, net.precision
    out = route_primary(ClassCapsules(*sizes, positions=positions, name="class_capsules"), primary, squash)
    if net.reconstruction:
        if targets is None:
            targets = jnp.sum(_each_of_greatest(out["lengths"], net.shown), axis=1)
        decoder = Decoder(net.decoder, math.prod(images.shape[1:]), net.precision, start, name="decoder")
        if net.shown == 1:
            out["reconstruction"] = decoder(mask_other_classes(out["capsules"], targets)).reshape(images.shape)
        else:
            masks = _each_of_greatest(targets, net.shown)
            alone = jax.vmap(mask_other_classes, (None, 1), 1)(out["capsules"], masks)
            pixels = decoder(alone.reshape(-1, *alone.shape[2:]))
            out["reconstructions"] = pixels.reshape(len(images), net.shown, *images.shape[1:])
            out["reconstruction"] = jnp.minimum(jnp.sum(out["reconstructions"], axis=1), 1)
    return out


def route_primary(
    class_capsules: "ClassCapsules", primary: Float[Array, "batch inputs primary_dim"], squash: Squash
) -> dict[str, Array]:
    """Squash primary capsules and route them to the classes.

    Returns:
        "primary" capsules, their "primary_activations", "capsules" of the classes, their activations as "lengths",
        "couplings" and "routing_logits".
    """
    squashed = squash(primary)
    activations = squash.activation(squashed)
    routed = class_capsules(squashed, activations)
    return {
        "primary": squashed,
        "primary_activations": activations,
        "capsules": routed.capsules,
        "lengths": routed.activations,
        "couplings": routed.couplings,
        "routing_logits": routed.logits,
    }


class ClassCapsules(nn.Module):
    """Votes û_io = W_io u_i of every input capsule for every class, and the routing that couples them.

    W is float[inputs, classes, primary_dim, class_dim], without a bias, as in the paper. What a router learns is its
    parameter `routing`.

    Attributes:
        classes: how many.
        dim: of a class capsule.
        weight_scale: σ of the normal, cut at 2σ, that W starts from.
        routing: a key of ROUTERS with its settings.
        precision: type of votes.
        positions: so many positions share one W, which is float[inputs / positions, …]; inputs are counted position by
          position.
    """

    classes: int
    dim: int
    weight_scale: float | Array
    routing: Choice
    precision: str = "float32"
    positions: int = 1

    @nn.compact
    def __call__(
        self, primary: Float[Array, "batch inputs primary_dim"], activations: Float[Array, "batch inputs"]
    ) -> Routing:
        """Route the primary capsules of a batch."""
        _, inputs, primary_dim = primary.shape
        shape = (inputs // self.positions, self.classes, primary_dim, self.dim)
        # Scaled here and not by the initialiser's argument: the scale may be a traced number.
        rows = self.param("W", lambda key: self.weight_scale * jax.random.truncated_normal(key, -2, 2, shape))
        weights = weights_of_inputs(rows, inputs)
        parameters = router_parameters(self, self.routing, inputs, self.classes, self.dim, primary_dim)
        return route_batch(
            primary, weights, self.routing, parameters, activations=activations, precision=self.precision
        )


def router_parameters(
    layer: nn.Module, routing: Choice, inputs: int, outputs: int, dim: int, primary_dim: int
) -> dict[str, Any] | None:
    """Return the parameter `routing` of a compact layer: what its router and its squash learn; None if that is nothing.

    Args:
        layer: calls this.
        routing: a key of ROUTERS with its settings.
        inputs: capsules below, of one parent's window.
        outputs: types of parents.
        dim: of a parent.
        primary_dim: of a capsule below.
    """
    start = partial(
        ROUTERS[routing.name].initial_parameters,
        inputs=inputs,
        outputs=outputs,
        dim=dim,
        primary_dim=primary_dim,
        settings=routing.settings,
    )
    return layer.param("routing", start) if jax.eval_shape(start, jax.random.key(0)) else None


def weights_of_inputs(
    rows: Float[Array, "rows classes primary_dim dim"], inputs: int
) -> Float[Array, "inputs classes primary_dim dim"]:
    """Return the transformation matrix of every input: `rows` itself, or repeated for every position that shares it."""
    return jnp.tile(rows, (inputs // len(rows), 1, 1, 1))


def route_again(
    model: nn.Module,
    params: dict[str, Any],
    primary: Float[Array, "batch inputs primary_dim"],
    routing: Choice,
    *,
    activations: Float[Array, "batch inputs"] | None = None,
    trace: bool = False,
) -> Routing:
    """Route a CapsNet's primary capsules by other settings than those that it was built with.

    Args:
        model: the network.
        params: all its parameters.
        primary: its primary capsules.
        routing: a key of ROUTERS with other settings.
        activations: of the primary capsules; None: their lengths.
        trace: whether every iteration is returned.
    """
    layer = params["class_capsules"]
    weights = weights_of_inputs(layer["W"], primary.shape[1])
    return route_batch(
        primary,
        weights,
        routing,
        layer.get("routing"),
        activations=activations,
        precision=model.precision,
        trace=trace,
    )


def decode(
    model: nn.Module,
    params: dict[str, Any],
    capsules: Float[Array, "batch classes dim"],
    targets: Float[Array, "batch classes"],
) -> Float[Array, "batch pixels"]:
    """Return what the decoder of a CapsNet of any kind makes of class capsules, seeing those of the `targets` alone."""
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
    start: Start = STARTS["he"]

    @nn.compact
    def __call__(self, masked: Float[Array, "batch classes dim"]) -> Float[Array, "batch pixels"]:
        """Decode class capsules, of which all but the decoded classes' are 0."""
        dense = partial(nn.Dense, dtype=self.precision, kernel_init=self.start.decoder, bias_init=self.start.bias)
        x = masked.reshape(masked.shape[0], -1)
        for index, width in enumerate(self.hidden):
            x = nn.relu(dense(width, name=f"hidden{index + 1}")(x))
        x = dense(self.pixels, name="pixels")(x)
        return nn.sigmoid(x.astype(masked.dtype))
