"""CapsNet: Sabour, Frosst and Hinton 2017, "Dynamic Routing Between Capsules" (arXiv:1710.09829), figures 1 and 2."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from capsnet_jax import config
from capsnet_jax.models.layers import Conv
from capsnet_jax.ops.squash import length, squash
from capsnet_jax.routing import PRIORS
from capsnet_jax.routing.layer import route


class CapsNet(nn.Module):
    """Images to class capsules, and back to images.

    Attributes:
        classes: number of class capsules.
        channels: channels of the first convolution.
        kernel: side of both convolutions' kernels, pixels.
        types: types of primary capsules; each type is one `primary_dim`-vector at every position.
        primary_dim: dimensions of a primary capsule.
        digit_dim: dimensions of a class capsule.
        decoder: hidden widths of the decoder.
        reconstruction: whether there is a decoder.
        weight_scale: σ of the normal, cut at 2σ, that the transformation matrices start from.
        routing: how primary capsules choose their parents.
        precision: type of the factors in convolutions, votes and decoder; squashing and routing are float32.
    """

    classes: int = 10
    channels: int = 256
    kernel: int = 9
    types: int = 32
    primary_dim: int = 8
    digit_dim: int = 16
    decoder: tuple[int, ...] = (512, 1024)
    reconstruction: bool = True
    weight_scale: float | Array = 0.1
    routing: config.Routing = config.Routing()
    precision: str = "float32"

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channels"],
        labels: Int[Array, "batch"] | None = None,
        *,
        train: bool = False,
    ) -> dict[str, Any]:
        """Run the network.

        Args:
            images: pixels in [0, 1].
            labels: classes whose capsules the decoder sees; without them it sees the longest capsule's.
            train: makes no difference here; other models have dropout.

        Returns:
            "conv1" activations, "primary" capsules [batch, inputs, primary_dim], "capsules" [batch, classes,
            digit_dim], their "lengths" [batch, classes], "couplings" and routing "logits_b" [batch, inputs, classes],
            and the "reconstruction" [batch, height, width, channels] in (0, 1) where there is a decoder.
        """
        batch = images.shape[0]
        out = {"conv1": nn.relu(Conv(self.channels, self.kernel, precision=self.precision, name="conv1")(images))}
        filters = self.types * self.primary_dim
        primary = Conv(filters, self.kernel, strides=2, precision=self.precision, name="primary")(out["conv1"])
        out["primary"] = squash(primary.reshape(batch, -1, self.primary_dim))

        digit = ClassCapsules(
            self.classes, self.digit_dim, self.weight_scale, self.routing, self.precision, name="digit"
        )
        out["capsules"], out["couplings"], out["logits_b"] = digit(out["primary"])
        out["lengths"] = length(out["capsules"])

        if self.reconstruction:
            shown = jnp.argmax(out["lengths"], axis=-1) if labels is None else labels
            decoder = Decoder(self.decoder, math.prod(images.shape[1:]), self.precision, name="decoder")
            out["reconstruction"] = decoder(_only(out["capsules"], shown)).reshape(images.shape)
        return out


class ClassCapsules(nn.Module):
    """Votes û_io = W_io u_i of every input capsule for every class, and the routing that couples them.

    W is float[inputs, classes, primary_dim, digit_dim], without a bias, as in the paper.
    """

    classes: int
    dim: int
    weight_scale: float | Array
    routing: config.Routing
    precision: str = "float32"

    @nn.compact
    def __call__(self, primary: Float[Array, "batch inputs primary_dim"]) -> Any:
        """Primary capsules to the batch's `Routing`."""
        _, inputs, primary_dim = primary.shape
        shape = (inputs, self.classes, primary_dim, self.dim)
        # Scaled here and not by the initialiser's argument: the scale may be a traced number.
        weights = self.param("W", lambda key: self.weight_scale * jax.random.truncated_normal(key, -2, 2, shape))
        prior = None
        if self.routing.name in PRIORS:
            prior = self.param("prior", PRIORS[self.routing.name], (inputs, self.classes))
        return route(primary, weights, self.routing, prior, precision=self.precision)


def reroute(params: dict[str, Any], primary: Float[Array, "batch inputs primary_dim"], routing: config.Routing) -> Any:
    """Route a CapsNet's primary capsules by other settings than it was built with; `params` are the whole net's."""
    digit = params["digit"]
    return route(primary, digit["W"], routing, digit.get("prior"))


def decode(
    model: CapsNet, params: dict[str, Any], capsules: Float[Array, "batch classes dim"], shown: Int[Array, "batch"]
) -> Float[Array, "batch pixels"]:
    """What a CapsNet's decoder makes of class capsules when it sees the `shown` class's alone."""
    pixels = params["decoder"]["pixels"]["bias"].size
    decoder = Decoder(model.decoder, pixels, model.precision)
    return decoder.apply({"params": params["decoder"]}, _only(capsules, shown))


def _only(capsules: Float[Array, "batch classes dim"], shown: Int[Array, "batch"]) -> Float[Array, "batch classes dim"]:
    """All class capsules but the shown one's set to 0."""
    return capsules * jax.nn.one_hot(shown, capsules.shape[1])[:, :, None]


class Decoder(nn.Module):
    """Masked class capsules to pixels: fully connected layers, ReLU between them and a sigmoid at the end."""

    hidden: tuple[int, ...]
    pixels: int
    precision: str = "float32"

    @nn.compact
    def __call__(self, masked: Float[Array, "batch classes dim"]) -> Float[Array, "batch pixels"]:
        """All class capsules, every one but the shown class's set to 0."""
        x = masked.reshape(masked.shape[0], -1)
        for index, width in enumerate(self.hidden):
            x = nn.relu(nn.Dense(width, dtype=self.precision, name=f"hidden{index + 1}")(x))
        x = nn.Dense(self.pixels, dtype=self.precision, name="pixels")(x)
        return nn.sigmoid(x.astype(masked.dtype))
