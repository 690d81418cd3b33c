"""A plain CNN of about the size of the small CapsNet: what that is compared with, with pooling and without."""

from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float

from capsnet_jax.models.layers import Conv
from capsnet_jax.ops.pooling import max_pool


class SmallCNN(nn.Module):
    """Three 3×3 convolutions of 32, 64 and 128 channels that halve the image twice, a hidden layer, the classes.

    Attributes:
        classes: how many to tell apart.
        pooling: whether the second and third convolution follow 2×2 max pooling, or move two pixels at a time instead.
        hidden: units of the hidden layer.
        dropout: part of the hidden units dropped in training.
        precision: type of products.
    """

    classes: int = 10
    pooling: bool = True
    hidden: int = 128
    dropout: float = 0.5
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
            "conv1", "conv2", "conv3", "hidden" activations and the classes' "logits" [batch, classes].
        """
        out: dict[str, Any] = {}
        x = images
        for index, channels in enumerate((32, 64, 128)):
            halve = index > 0
            x = max_pool(x, 2) if halve and self.pooling else x
            strides = 2 if halve and not self.pooling else 1
            conv = Conv(channels, 3, strides, padding="SAME", precision=self.precision, name=f"conv{index + 1}")
            x = out[f"conv{index + 1}"] = nn.relu(conv(x))
        x = x.reshape(x.shape[0], -1)
        x = out["hidden"] = nn.relu(nn.Dense(self.hidden, dtype=self.precision, name="hidden")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        out["logits"] = nn.Dense(self.classes, name="classes")(x.astype(images.dtype))
        return out
