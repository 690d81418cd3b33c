"""CapsNet: Sabour, Frosst and Hinton 2017, "Dynamic Routing Between Capsules" (arXiv:1710.09829), figures 1 and 2."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from capsnet_jax import config
from capsnet_jax.models.layers import Conv
from capsnet_jax.ops.squash import length, squash
from capsnet_jax.routing import PRIORS, ROUTERS, settings_of


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
        out = {"conv1": nn.relu(Conv(self.channels, self.kernel, name="conv1")(images))}
        primary = Conv(self.types * self.primary_dim, self.kernel, strides=2, name="primary")(out["conv1"])
        out["primary"] = squash(primary.reshape(batch, -1, self.primary_dim))

        routed = ClassCapsules(self.classes, self.digit_dim, self.weight_scale, self.routing, name="digit")(
            out["primary"]
        )
        out["capsules"], out["couplings"], out["logits_b"] = routed
        out["lengths"] = length(out["capsules"])

        if self.reconstruction:
            shown = jnp.argmax(out["lengths"], axis=-1) if labels is None else labels
            mask = jax.nn.one_hot(shown, self.classes)[:, :, None]
            decoded = Decoder(self.decoder, math.prod(images.shape[1:]), name="decoder")(out["capsules"] * mask)
            out["reconstruction"] = decoded.reshape(images.shape)
        return out


class ClassCapsules(nn.Module):
    """Votes û_io = W_io u_i of every input capsule for every class, and the routing that couples them.

    W is float[inputs, classes, primary_dim, digit_dim], without a bias, as in the paper.
    """

    classes: int
    dim: int
    weight_scale: float | Array
    routing: config.Routing

    @nn.compact
    def __call__(self, primary: Float[Array, "batch inputs primary_dim"]) -> Any:
        """Primary capsules to the batch's `Routing`."""
        _, inputs, primary_dim = primary.shape
        shape = (inputs, self.classes, primary_dim, self.dim)
        # Scaled here and not by the initialiser's argument: the scale may be a traced number.
        weights = self.param("W", lambda key: self.weight_scale * jax.random.truncated_normal(key, -2, 2, shape))
        # Laid out parent by parent: a router's sums over inputs are then matrix products, where a CPU is at its best.
        votes = jnp.einsum("bik,iokd->boid", primary, weights).transpose(0, 2, 1, 3)
        router = partial(ROUTERS[self.routing.name], **settings_of(self.routing))
        if self.routing.name in PRIORS:
            prior = self.param("prior", PRIORS[self.routing.name], (inputs, self.classes))
            router = partial(router, prior=prior)
        return jax.vmap(router)(votes)


class Decoder(nn.Module):
    """Masked class capsules to pixels: fully connected layers, ReLU between them and a sigmoid at the end."""

    hidden: tuple[int, ...]
    pixels: int

    @nn.compact
    def __call__(self, masked: Float[Array, "batch classes dim"]) -> Float[Array, "batch pixels"]:
        """All class capsules, every one but the shown class's set to 0."""
        x = masked.reshape(masked.shape[0], -1)
        for index, width in enumerate(self.hidden):
            x = nn.relu(nn.Dense(width, name=f"hidden{index + 1}")(x))
        return nn.sigmoid(nn.Dense(self.pixels, name="pixels")(x))
