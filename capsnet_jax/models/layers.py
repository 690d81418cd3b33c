"""The layers that the conv nets here are built from."""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer, constant, he_normal, zeros
from jaxtyping import Array, Float

from capsnet_jax.config import pytree_dataclass, static
from capsnet_jax.ops.conv import Pads, conv2d
from capsnet_jax.ops.matmul import dense_dot_general
from capsnet_jax.ops.normalization import Moments, batch_norm, moments, running_moments

PRECISIONS = ("float32", "bfloat16")
SMALL = 64  # pixels; images with a shorter side than this get a net's small form


@pytree_dataclass
class CNNSettings:
    """Settings of plain CNNs."""

    precision: str = static(
        "float32", choices=PRECISIONS, doc="of products (float32 is TF32 on a GPU); the rest stays float32"
    )


@pytree_dataclass
class ConvNetSettings:
    """Settings of the ImageNet nets and of their relatives for small images."""

    stem: str = static(
        "auto",
        choices=("auto", "imagenet", "small"),
        doc="the form of the first layers; auto: small under 64 pixels",
    )
    precision: str = static(
        "float32", choices=PRECISIONS, doc="of products (float32 is TF32 on a GPU); the rest stays float32"
    )


class Conv(nn.Module):
    """Convolution by `ops.conv.conv2d`; parameters `kernel` (HWIO) and, unless it has none, `bias`.

    Attributes:
        filters: channels out.
        size: side of the kernel, pixels.
        strides: pixels that the filter moves.
        padding: as in `conv2d`.
        groups: channels and filters are split into that many independent groups.
        bias: whether a bias is added; before a batch norm it would make no difference.
        kernel_init: draws the kernel at the start.
        bias_init: draws the bias.
        precision: type of images and filters in the product; what comes out is float32.
    """

    filters: int
    size: int
    strides: int = 1
    padding: str | int | Pads = "VALID"
    groups: int = 1
    bias: bool = True
    kernel_init: Initializer = he_normal()
    bias_init: Initializer = zeros
    precision: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch out_height out_width filters"]:
        """Convolve images, NHWC."""
        shape = (self.size, self.size, x.shape[-1] // self.groups, self.filters)
        kernel = self.param("kernel", self.kernel_init, shape)
        factors = x.astype(self.precision), kernel.astype(self.precision)
        out = conv2d(*factors, strides=self.strides, padding=self.padding, groups=self.groups).astype(kernel.dtype)
        if not self.bias:
            return out
        return out + self.param("bias", self.bias_init, (self.filters,))[None, None, None]


class BatchNorm(nn.Module):
    """Batch normalisation; parameters `scale` and `bias`, running statistics `mean` and `var`.

    Attributes:
        epsilon: added to variances.
        momentum: what stays of the running statistics in a step.
        zero: whether `scale` starts at 0 instead of 1, so that what is normalised starts as 0.
    """

    epsilon: float = 1e-5
    momentum: float = 0.9
    zero: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool, batch: Moments | None = None
    ) -> Float[Array, "batch height width channels"]:
        """Normalise by the batch in training, and update the running statistics; otherwise normalise by these.

        A frozen layer's statistics are in the collection `frozen_stats`. It always normalises by them.

        Args:
            x: activations.
            train: whether to normalise by the batch.
            batch: the batch's mean and variance if they are known; of use in training only.
        """
        shape = x.shape[-1:]
        scale = self.param("scale", constant(0.0 if self.zero else 1.0), shape)
        bias = self.param("bias", zeros, shape)
        frozen = self.has_variable("frozen_stats", "mean")
        stats = "frozen_stats" if frozen else "batch_stats"
        mean = self.variable(stats, "mean", jnp.zeros, shape)
        var = self.variable(stats, "var", jnp.ones, shape)
        if frozen or not train:
            return batch_norm(x, mean.value, var.value, scale, bias, self.epsilon)
        batch = batch or moments(x)
        if self.is_mutable_collection("batch_stats") and not self.is_initializing():
            count = x.size // x.shape[-1]
            old = mean.value, var.value
            mean.value, var.value = running_moments(old, batch, count, momentum=self.momentum)
        return batch_norm(x, *batch, scale, bias, self.epsilon)


def fully_connected(
    x: Float[Array, "batch features"], width: int, classes: int, dropout: float, precision: str, *, train: bool
) -> dict[str, Array]:
    """Apply the end of AlexNet and VGG: two hidden layers with dropout, and the classes. Call it in a compact module.

    Returns:
        "fc1" and "fc2" activations [batch, width] and "logits" [batch, classes].
    """
    out, wide = {}, x.dtype
    dense = partial(nn.Dense, dot_general=dense_dot_general)
    for name in ("fc1", "fc2"):
        x = out[name] = nn.relu(dense(width, dtype=precision, name=name)(x))
        x = nn.Dropout(dropout, deterministic=not train)(x)
    return out | {"logits": dense(classes, name="classes")(x.astype(wide))}


def is_small(stem: str, images: Float[Array, "batch height width channels"]) -> bool:
    """Whether a net takes its small form: as `stem` says ("imagenet" or "small"), or by the images' size if "auto"."""
    return stem == "small" or (stem == "auto" and min(images.shape[1:3]) < SMALL)
