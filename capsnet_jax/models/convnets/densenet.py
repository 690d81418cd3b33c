"""DenseNet: Huang, Liu, van der Maaten and Weinberger 2016, "Densely Connected Convolutional Networks" (1608.06993)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from capsnet_jax.models.layers import BatchNorm, Conv, is_small
from capsnet_jax.ops.normalization import Moments, moments
from capsnet_jax.ops.pooling import average_pool, global_average, max_pool


class DenseNet(nn.Module):
    """A convolution, dense blocks with transitions between them, an average, and the classes (table 1, DenseNet-BC).

    The small form (images under 64 pixels) begins with 3×3 filters that move one pixel and leaves the pooling out.
    The paper's nets for CIFAR (section 3) have it, three blocks of (L − 4) / 6 layers for a depth of L, and no batch
    norm before the first block, whose first layer begins with one.

    Attributes:
        classes: how many.
        depths: layers in each dense block.
        growth: k, channels that each layer adds.
        first_norm: whether the first convolution is followed by a batch norm and a ReLU.
        stem: "imagenet", "small", or "auto": by the images' size.
        precision: type of products.
    """

    classes: int = 1000
    depths: tuple[int, ...] = (6, 12, 24, 16)
    growth: int = 32
    first_norm: bool = True
    stem: str = "auto"
    precision: str = "float32"

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
            "conv1", "pool1", what each layer adds as "block1.layer1", …, "block1", … and "transition1", …
            activations, the "average" over all positions and the classes' "logits" [batch, classes].
        """
        small = is_small(self.stem, images)
        out: dict[str, Any] = {}
        size, strides = (3, 1) if small else (7, 2)
        conv = Conv(2 * self.growth, size, strides, size // 2, bias=False, precision=self.precision, name="conv1")
        x = conv(images)
        if self.first_norm:
            x = nn.relu(BatchNorm(name="norm1")(x, train=train))
        out["conv1"] = x
        if not small:
            x = out["pool1"] = max_pool(x, 3, strides=2, padding=1)
        for index, depth in enumerate(self.depths, 1):
            name = f"block{index}"
            x, batch, added = DenseBlock(depth, self.growth, self.precision, name=name)(x, train=train)
            out |= {f"{name}.{layer}": value for layer, value in added.items()} | {name: x}
            if index < len(self.depths):
                name = f"transition{index}"
                x = out[name] = Transition(self.precision, name=name)(x, train=train, batch=batch)
        x = nn.relu(BatchNorm(name="norm2")(x, train=train, batch=batch))
        x = out["average"] = global_average(x)
        out["logits"] = nn.Dense(self.classes, name="classes")(x)
        return out


class DenseBlock(nn.Module):
    """Layers that each see the channels of all before them, and add `growth` of their own (figure 1)."""

    depth: int
    growth: int
    precision: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> tuple[Float[Array, "batch height width filters"], tuple[Float[Array, "filters"], ...], dict[str, Array]]:
        """Return the block's input with all that was added, its moments, and what each layer added by its name.

        All layers normalise the same channels by the same moments, so each channel's are computed once. In evaluation
        no gradient needs the inputs of the layers. So they write into one array, and no layer copies all channels.
        """
        out, batch = {}, moments(x)
        padded = jnp.pad(x, [(0, 0), (0, 0), (0, 0), (0, self.depth * self.growth)])
        for index in range(self.depth):
            name = f"layer{index + 1}"
            added = out[name] = DenseLayer(self.growth, self.precision, name=name)(x, train=train, batch=batch)
            if train:
                x = jnp.concatenate([x, added], axis=-1)
            else:
                padded = lax.dynamic_update_slice_in_dim(padded, added, x.shape[-1], axis=3)
                x = padded[..., : x.shape[-1] + self.growth]
            batch = jax.tree.map(lambda *parts: jnp.concatenate(parts), batch, moments(added))
        return x, batch, out


class DenseLayer(nn.Module):
    """Normalise, ReLU, 1×1 convolution to 4k channels; normalise, ReLU, 3×3 convolution to k (section 3)."""

    growth: int
    precision: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool, batch: Moments | None = None
    ) -> Float[Array, "batch height width growth"]:
        """Return the channels that the layer adds to all those before; `batch` are their moments, if known."""
        options = {"bias": False, "precision": self.precision}
        x = nn.relu(BatchNorm(name="norm1")(x, train=train, batch=batch))
        x = Conv(4 * self.growth, 1, name="conv1", **options)(x)
        x = nn.relu(BatchNorm(name="norm2")(x, train=train))
        return Conv(self.growth, 3, padding=1, name="conv2", **options)(x)


class Transition(nn.Module):
    """Half the channels (compression θ = 0.5) and half the rows and columns."""

    precision: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool, batch: Moments | None = None
    ) -> Float[Array, "batch out_height out_width filters"]:
        """Return the next block's input; `batch` are the moments of x, if known."""
        x = nn.relu(BatchNorm(name="norm")(x, train=train, batch=batch))
        x = Conv(x.shape[-1] // 2, 1, bias=False, precision=self.precision, name="conv")(x)
        return average_pool(x, 2)
