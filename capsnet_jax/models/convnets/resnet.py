"""ResNet: He, Zhang, Ren and Sun 2015, "Deep Residual Learning for Image Recognition" (arXiv:1512.03385)."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from capsnet_jax.models.heads import apply_head
from capsnet_jax.models.layers import BatchNorm, Conv, is_small
from capsnet_jax.ops.materialize import materialize
from capsnet_jax.ops.pooling import max_pool


class ResNet(nn.Module):
    """A convolution, stages of residual blocks, an average over all positions, and the classes (table 1).

    In place of the average there may be another head, as routed capsules.

    A stage but the first halves the image in its first block. Bottlenecks do so in their 3×3 convolution ("v1.5", which
    torchvision has too); the paper does in the 1×1 before it.

    The small form (images under 64 pixels) begins with 3×3 filters that move one pixel and leaves the pooling out.
    The paper's nets for CIFAR-10 (section 4.2) have it, three stages of n blocks with 16, 32 and 64 channels (6n + 2
    layers with weights), and shortcuts without parameters.

    Attributes:
        classes: how many.
        depths: blocks in each stage.
        widths: channels of the 3×3 convolutions in each stage; the first convolution has as many as the first stage.
        projections: whether shortcuts to another shape have weights (option B) or none (option A).
        bottleneck: whether blocks have three layers (figure 5, right) instead of two.
        zero_init: whether each block's last scale starts at 0, so that blocks start as their shortcuts.
        stem: "imagenet", "small", or "auto": by the images' size.
        precision: type of products.
        head: what tells the classes, a key of HEADS; it and what follows are as of `apply_head`.
        capsule_types: primary capsules at a position.
        primary_dim: dimensions of each.
        class_dim: dimensions of a class capsule.
        share_weights: whether all positions share the matrices of votes.
    """

    classes: int = 1000
    depths: tuple[int, ...] = (3, 4, 6, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    projections: bool = True
    bottleneck: bool = True
    zero_init: bool = False
    stem: str = "auto"
    precision: str = "float32"
    head: str = "avg"
    capsule_types: int = 4
    primary_dim: int = 16
    class_dim: int = 16
    share_weights: bool = True

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channels"],
        *,
        train: bool = False,
    ) -> dict[str, Any]:
        """Run the network.

        Args:
            images: pixels in [0, 1].
            train: whether to normalise by the batch.

        Returns:
            "conv1", "pool1", "stage1.block1", … activations, and what the head returns: of "avg" the "average" over all
            positions and the classes' "logits" [batch, classes]; see `apply_head`.
        """
        small = is_small(self.stem, images)
        out: dict[str, Any] = {}
        size, strides = (3, 1) if small else (7, 2)
        conv = Conv(self.widths[0], size, strides, size // 2, bias=False, precision=self.precision, name="conv1")
        x = out["conv1"] = nn.relu(BatchNorm(name="norm1")(conv(images), train=train))
        if not small:
            x = out["pool1"] = max_pool(x, 3, strides=2, padding=1)
        options = {name: getattr(self, name) for name in ("bottleneck", "zero_init", "precision", "projections")}
        for index, depth in enumerate(self.depths, 1):
            stage = ResidualStage(
                depth, self.widths[index - 1], strides=1 if index == 1 else 2, name=f"stage{index}", **options
            )
            x, blocks = stage(x, train=train)
            out |= {f"stage{index}.{name}": value for name, value in blocks.items()}
        sizes = {name: getattr(self, name) for name in ("capsule_types", "primary_dim", "class_dim", "share_weights")}
        return out | apply_head(x, self.classes, self.head, precision=self.precision, **sizes)


class ResidualStage(nn.Module):
    """Blocks of one width; the first one's stride is the stage's."""

    depth: int
    width: int
    strides: int
    bottleneck: bool
    zero_init: bool = False
    precision: str = "float32"
    projections: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> tuple[Float[Array, "batch out_height out_width filters"], dict[str, Array]]:
        """Return the stage's output, and each block's by its name."""
        block, out = Bottleneck if self.bottleneck else BasicBlock, {}
        options = self.zero_init, self.precision, self.projections
        for index in range(self.depth):
            strides = self.strides if index == 0 else 1
            name = f"block{index + 1}"
            x = out[name] = block(self.width, strides, *options, name=name)(x, train=train)
        return x, out


class BasicBlock(nn.Module):
    """H(x) = F(x) + x with two weight layers in F (figure 5, left), ReLU between them and after the sum.

    The slides' residual block on one pixel, with weights 2 and −½: F(3) = −½ · relu(2 · 3) = −3 and H = relu(−3 + 3);
    with ½ for −½, H = 6. Normalised by running mean 0 and variance 1, to 1e-5.

    >>> import jax.numpy as jnp
    >>> def block(second):
    ...     one, zero = jnp.ones(1), jnp.zeros(1)
    ...     weights = [jnp.zeros((3, 3, 1, 1)).at[1, 1].set(weight) for weight in (2., second)]
    ...     params = {f"conv{i}": {"kernel": weight} for i, weight in enumerate(weights, 1)}
    ...     params |= {name: {"scale": one, "bias": zero} for name in ("norm1", "norm2")}
    ...     stats = {name: {"mean": zero, "var": one} for name in ("norm1", "norm2")}
    ...     variables = {"params": params, "batch_stats": stats}
    ...     out = BasicBlock(1).apply(variables, jnp.full((1, 1, 1, 1), 3.), train=False)
    ...     return abs(round(out.item(), 3))
    >>> block(-0.5), block(0.5)
    (0.0, 6.0)

    Attributes:
        width: channels.
        strides: pixels that the first convolution moves.
        zero_init: whether the last scale starts at 0.
        precision: type of products.
        projections: whether a shortcut to another shape has weights.
    """

    width: int
    strides: int = 1
    zero_init: bool = False
    precision: str = "float32"
    projections: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch out_height out_width filters"]:
        """Apply the block."""
        options = {"bias": False, "precision": self.precision}
        y = Conv(self.width, 3, self.strides, 1, name="conv1", **options)(x)
        y = nn.relu(BatchNorm(name="norm1")(y, train=train))
        y = Conv(self.width, 3, 1, 1, name="conv2", **options)(y)
        y = BatchNorm(zero=self.zero_init, name="norm2")(y, train=train)
        shortcut = Shortcut(self.width, self.strides, self.precision, self.projections, name="shortcut")
        return materialize(nn.relu(y + shortcut(x, train=train)))


class Bottleneck(nn.Module):
    """A residual block whose 3×3 convolution works on a quarter of the channels (figure 5, right)."""

    width: int
    strides: int = 1
    zero_init: bool = False
    precision: str = "float32"
    projections: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch out_height out_width filters"]:
        """Apply the block."""
        options = {"bias": False, "precision": self.precision}
        y = Conv(self.width, 1, name="conv1", **options)(x)
        y = nn.relu(BatchNorm(name="norm1")(y, train=train))
        y = Conv(self.width, 3, self.strides, 1, name="conv2", **options)(y)
        y = nn.relu(BatchNorm(name="norm2")(y, train=train))
        y = Conv(4 * self.width, 1, name="conv3", **options)(y)
        y = BatchNorm(zero=self.zero_init, name="norm3")(y, train=train)
        shortcut = Shortcut(4 * self.width, self.strides, self.precision, self.projections, name="shortcut")
        return materialize(nn.relu(y + shortcut(x, train=train)))


class Shortcut(nn.Module):
    """The identity where shapes allow it (section 3.3).

    Otherwise it is a 1×1 convolution with a batch norm (option B). Or it is every `strides`-th pixel, with zeros for
    the channels that are missing (option A).
    """

    filters: int
    strides: int
    precision: str
    projections: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch out_height out_width filters"]:
        """Return a block's input in the shape of its output."""
        if self.strides == 1 and x.shape[-1] == self.filters:
            return x
        if not self.projections:
            x = x[:, :: self.strides, :: self.strides]
            return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.filters - x.shape[-1])))
        x = Conv(self.filters, 1, self.strides, bias=False, precision=self.precision, name="conv")(x)
        return BatchNorm(name="norm")(x, train=train)
