"""AlexNet: Krizhevsky, Sutskever and Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks"."""

from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float

from capsnet_jax.models.layers import Conv, fully_connected, is_small
from capsnet_jax.ops.conv import Pads
from capsnet_jax.ops.normalization import local_response_norm
from capsnet_jax.ops.pooling import adaptive_average_pool, max_pool


class AlexNet(nn.Module):
    """Five convolutions, three overlapping poolings and three fully connected layers with dropout.

    The defaults are the paper's net (figure 2), whose two halves lay on a GPU each: the second, fourth and fifth
    convolution see only the channels of their own half, two groups. 60,965,224 parameters at 1000 classes.

    The paper writes 224×224 pixels and 55×55 positions, which fit only with padding: the image gets as many pixels as
    make the 11×11 filters' steps of 4 come out even, 3 at 224 and none at 227. Other sizes are averaged to 6×6
    positions before the fully connected layers.

    The small form (images under 64 pixels) begins with 3×3 filters that move one pixel, and its hidden fully connected
    layers are 512 wide and see whatever positions are left: 3×3 of 32×32.

    Attributes:
        classes: how many.
        channels: of the five convolutions.
        split: groups of the second, fourth and fifth convolution.
        normalize: whether the first two activations are normalised by their neighbouring channels.
        padding: around the image; None: what makes the filters come out even.
        hidden: width of the hidden fully connected layers; None: 4096, or 512 in the small form.
        dropout: part of the hidden units dropped in training.
        stem: "imagenet", "small", or "auto": by the images' size.
        precision: type of products.
    """

    classes: int = 1000
    channels: tuple[int, ...] = (96, 256, 384, 384, 256)
    split: int = 2
    normalize: bool = True
    padding: int | None = None
    hidden: int | None = None
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
            "conv1" … "conv5", "pool1", "pool2", "pool5", "fc1", "fc2" activations and the classes' "logits".
        """
        small = is_small(self.stem, images)
        out: dict[str, Any] = {}
        x: Array = images
        for index, filters in enumerate(self.channels):
            name = f"conv{index + 1}"
            if index == 0:
                size, strides, padding = (3, 1, 1) if small else (11, 4, self._padding(images))
            else:
                size, strides, padding = (5, 1, 2) if index == 1 else (3, 1, 1)
            groups = self.split if index in (1, 3, 4) else 1
            conv = Conv(filters, size, strides, padding, groups=groups, precision=self.precision, name=name)
            x = out[name] = nn.relu(conv(x))
            if index < 2 and self.normalize:
                x = out[f"norm{index + 1}"] = local_response_norm(x)
            if index in (0, 1, 4):
                x = out[f"pool{index + 1}"] = max_pool(x, 3, strides=2)
        x = (x if small else adaptive_average_pool(x, 6)).reshape(x.shape[0], -1)
        width = self.hidden or (512 if small else 4096)
        return out | fully_connected(x, width, self.classes, self.dropout, self.precision, train=train)

    def _padding(self, images: Array) -> int | Pads:
        """Return the least padding with which the last 11×11 filter ends at the image's end; an odd pixel is there."""
        if self.padding is not None:
            return self.padding
        height, width = ((11 - size) % 4 for size in images.shape[1:3])
        return (height // 2, height - height // 2), (width // 2, width - width // 2)
