"""Efficient-CapsNet: Mazzia, Salvetti and Chiaberge 2021 (arXiv:2101.12491)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from capsnet_jax.config import Choice, pytree_dataclass, static, traced
from capsnet_jax.models.capsnet import capsule_layers
from capsnet_jax.models.layers import PRECISIONS, BatchNorm, Conv
from capsnet_jax.ops.squash import SQUASHES
from capsnet_jax.routing import ROUTERS


@pytree_dataclass
class EfficientCapsNetSettings:
    """Sizes of an Efficient-CapsNet; the defaults are the paper's for MNIST."""

    kernel: int = static(5, low=1, doc="side of the first convolution's kernel, pixels")
    strides: int = static(1, low=1, doc="pixels that the first convolution moves")
    capsule_types: int = static(16, low=1, doc="types of primary capsules, of which there is one each")
    primary_dim: int = static(8, low=1, doc="dimensions of a primary capsule")
    class_dim: int = static(16, low=1, doc="dimensions of a class capsule")
    decoder: tuple[int, ...] = static((512, 1024), low=1, doc="hidden widths of the decoder, as 512x1024")
    weight_scale: float = traced(0.0449, low=0, doc="σ of the normal, cut at 2σ, that W starts from")
    squash: str = static("exponential", choices=SQUASHES, doc="how primary capsules are squashed")
    precision: str = static(
        "float32", choices=PRECISIONS, doc="of products (float32 is TF32 on a GPU); routing stays float32"
    )


class EfficientCapsNet(nn.Module):
    """Four convolutions, one primary capsule of each type for the whole image, and class capsules by self-attention.

    Behind each convolution come a ReLU and then a batch norm. A depthwise convolution as large as the map makes 16
    capsules of what is left, so that there are 160 votes in place of CapsNet's 11,520.

    161,824 parameters for 28×28×1 images and ten classes, the decoder not counted, as published. The paper's counts for
    its two other data sets come about with a stride of 2: 154,656 for MultiMNIST's 36×36×1 images, and 151,664 for
    smallNORB's 48×48×2, five classes and a first kernel of 7×7.

    Attributes:
        classes: number of class capsules.
        kernel: side of the first convolution's kernel, pixels.
        strides: pixels that the first convolution moves.
        capsule_types: primary capsules; the last convolution has `capsule_types` · `primary_dim` channels.
        primary_dim: dimensions of a primary capsule.
        class_dim: dimensions of a class capsule.
        decoder: hidden widths of the decoder.
        reconstruction: whether there is a decoder.
        shown: how many classes each image shows; the decoder sees each of them alone.
        weight_scale: σ of the normal, cut at 2σ, that the transformation matrices start from. The default leaves a
          standard deviation of 0.0395 after the cut.
        squash: a key of SQUASHES, of the primary capsules.
        routing: a key of ROUTERS with its settings: how primary capsules choose their parents.
        precision: type of convolutions, votes and decoder; squashing and routing are float32.
    """

    classes: int = 10
    kernel: int = 5
    strides: int = 1
    capsule_types: int = 16
    primary_dim: int = 8
    class_dim: int = 16
    decoder: tuple[int, ...] = (512, 1024)
    reconstruction: bool = True
    shown: int = 1
    weight_scale: float | Array = 0.0449
    squash: str = "exponential"
    routing: Choice = Choice("self_attention", ROUTERS["self_attention"].settings)
    precision: str = "float32"

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channels"],
        targets: Float[Array, "batch classes"] | None = None,
        *,
        train: bool = False,
    ) -> dict[str, Any]:
        """Run the network.

        Args:
            images: pixels in [0, 1].
            targets: 1 for each class whose capsule the decoder sees, else 0; without them it sees the longest's.
            train: whether to normalise by the batch.

        Returns:
            "conv1" … "conv4" activations, and "primary", "primary_activations", "capsules", "lengths", "couplings",
            "routing_logits" and "reconstruction" as of `CapsNet`.
        """
        last = self.capsule_types * self.primary_dim
        sizes = (32, self.kernel, self.strides), (64, 3, 1), (64, 3, 1), (last, 3, 2)
        x, out = images, {}
        for index, (channels, kernel, strides) in enumerate(sizes, 1):
            x = nn.relu(Conv(channels, kernel, strides, precision=self.precision, name=f"conv{index}")(x))
            x = out[f"conv{index}"] = BatchNorm(name=f"norm{index}")(x, train=train)
        primary = WholeMap(self.precision, name="primary")(x).reshape(len(x), -1, self.primary_dim)
        return out | capsule_layers(self, primary, images, targets)


class WholeMap(nn.Module):
    """A depthwise convolution whose kernel is as large as the map: one weighted sum a channel, and a bias."""

    precision: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch channels"]:
        """Sum every channel over all positions."""
        _, height, width, channels = x.shape
        kernel = self.param("kernel", jax.nn.initializers.he_normal(), (height, width, 1, channels))
        bias = self.param("bias", jax.nn.initializers.zeros, (channels,))
        factors = x.astype(self.precision), kernel[:, :, 0].astype(self.precision)
        return jnp.einsum("bhwc,hwc->bc", *factors).astype(x.dtype) + bias[None]
