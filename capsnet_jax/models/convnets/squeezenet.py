"""SqueezeNet 1.1: Iandola et al. 2016, arXiv:1602.07360; its authors' release 1.1 needs 2.4 times fewer products."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from capsnet_jax.models.layers import Conv, is_small
from capsnet_jax.ops.pooling import global_average, max_pool

# Channels of the squeeze, and of each of the two expands.
FIRES = {
    "fire2": (16, 64),
    "fire3": (16, 64),
    "fire4": (32, 128),
    "fire5": (32, 128),
    "fire6": (48, 192),
    "fire7": (48, 192),
    "fire8": (64, 256),
    "fire9": (64, 256),
}
POOLED = {"fire3": "pool3", "fire5": "pool5"}  # a pooling follows


class SqueezeNet(nn.Module):
    """A convolution, eight fire modules, and a map for each class, whose mean over all positions is its logit.

    There is a ReLU after every convolution, the last one too, so that no logit is negative, and nothing is fully
    connected: 1,235,496 parameters at 1000 classes, for images of any size.

    The small form (images under 64 pixels) begins with 3×3 filters that move one pixel, of padded images; images of
    28×28 reach the last modules as 3×3 positions.

    Attributes:
        classes: how many.
        fires: the fire modules there are, by their names.
        dropout: part of the last fire module's activations dropped in training.
        stem: "imagenet", "small", or "auto": by the images' size.
        precision: type of products.
    """

    classes: int = 1000
    fires: tuple[str, ...] = tuple(FIRES)
    dropout: float = 0.5
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
            train: whether to drop units (needs an rng named "dropout").

        Returns:
            "conv1", "fire2.squeeze", "fire2" … "fire9", "conv10" activations after the ReLU, "pool1", "pool3", "pool5",
            and the classes' "logits".
        """
        strides, padding = (1, 1) if is_small(self.stem, images) else (2, 0)
        out: dict[str, Any] = {}
        conv1 = Conv(64, 3, strides, padding, precision=self.precision, name="conv1")
        x = out["conv1"] = nn.relu(conv1(images))
        x = out["pool1"] = max_pool(x, 3, strides=2, ceil=True)
        for name in self.fires:
            x, out[f"{name}.squeeze"] = Fire(*FIRES[name], self.precision, name=name)(x)
            out[name] = x
            if name in POOLED:
                x = out[POOLED[name]] = max_pool(x, 3, strides=2, ceil=True)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = out["conv10"] = nn.relu(Conv(self.classes, 1, precision=self.precision, name="conv10")(x))
        out["logits"] = global_average(x)
        return out


class Fire(nn.Module):
    """A fire module (figure 1): few 1×1 filters, then 1×1 and 3×3 filters side by side.

    Attributes:
        squeezed: filters of the first convolution.
        expanded: 1×1 filters, and as many 3×3 filters, of what it gives.
        precision: type of products.
    """

    squeezed: int
    expanded: int
    precision: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> tuple[Float[Array, "batch height width filters"], Float[Array, "batch height width squeezed"]]:
        """Return the activations of the 1×1 filters and then of the 3×3 filters, and those of the squeeze."""
        squeeze = nn.relu(Conv(self.squeezed, 1, precision=self.precision, name="squeeze")(x))
        expands = [
            Conv(self.expanded, size, padding=size // 2, precision=self.precision, name=f"expand{size}x{size}")(squeeze)
            for size in (1, 3)
        ]
        return nn.relu(jnp.concatenate(expands, axis=-1)), squeeze
