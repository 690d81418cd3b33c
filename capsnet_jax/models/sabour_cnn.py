"""The CNN that CapsNet is compared with in Sabour, Frosst and Hinton 2017 (arXiv:1710.09829), section 5."""

from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float

from capsnet_jax.models.layers import Conv


class SabourCNN(nn.Module):
    """Three 5×5 convolutions of 256, 256 and 128 channels, then 328 and 192 units with dropout, then the classes.

    35,445,522 parameters for 28×28×1 images and ten classes with stride 1 and "SAME" padding, which is how the
    paper's 35.4M comes about.
    """

    classes: int = 10
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
            "conv1", "conv2", "conv3", "fc1", "fc2" activations and the classes' "logits" [batch, classes].
        """
        out: dict[str, Any] = {}
        x = images
        for index, channels in enumerate((256, 256, 128)):
            conv = Conv(channels, 5, padding="SAME", precision=self.precision, name=f"conv{index + 1}")
            x = out[f"conv{index + 1}"] = nn.relu(conv(x))
        x = x.reshape(x.shape[0], -1)
        for index, width in enumerate((328, 192)):
            x = out[f"fc{index + 1}"] = nn.relu(nn.Dense(width, dtype=self.precision, name=f"fc{index + 1}")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        out["logits"] = nn.Dense(self.classes, name="classes")(x.astype(images.dtype))
        return out
