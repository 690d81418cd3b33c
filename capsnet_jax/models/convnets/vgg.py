"""VGG: Simonyan and Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 1409.1556."""

from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float

from capsnet_jax.models.layers import BatchNorm, Conv, fully_connected, is_small
from capsnet_jax.ops.normalization import local_response_norm
from capsnet_jax.ops.pooling import adaptive_average_pool, global_average, max_pool


class VGG(nn.Module):
    """Five stages of 3×3 convolutions, each ending in a pooling that halves the image, and fully connected layers.

    The paper's table 1 as `depths`: A 1-1-2-2-2, B 2-2-2-2-2, C and D 2-2-3-3-3, E 2-2-4-4-4. Images of other sizes
    than 224×224 are averaged to 7×7 positions before the fully connected layers.

    The small form (images under 64 pixels) leaves out the poolings for which fewer than two rows or columns are left,
    averages over the positions that remain, and has hidden fully connected layers of 512.

    Attributes:
        classes: how many.
        depths: convolutions in each stage.
        widths: their channels.
        pointwise: C: the third convolution of a stage has 1×1 filters.
        lrn: A-LRN: the first activations are normalised by their neighbouring channels.
        norm: whether there is a batch norm after every convolution, which the paper has not.
        hidden: width of the hidden fully connected layers; None: 4096, or 512 in the small form.
        dropout: part of the hidden units dropped in training.
        stem: "imagenet", "small", or "auto": by the images' size.
        precision: type of products.
    """

    classes: int = 1000
    depths: tuple[int, ...] = (2, 2, 3, 3, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    pointwise: bool = False
    lrn: bool = False
    norm: bool = False
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
            train: whether to drop units (needs an rng named "dropout") and to normalise by the batch.

        Returns:
            "stage1.conv1", … activations after the ReLU, "pool1" … "pool5", "fc1", "fc2" and the classes' "logits".
        """
        small = is_small(self.stem, images)
        out: dict[str, Any] = {}
        x: Array = images
        for index, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True), 1):
            sizes = [1 if self.pointwise and layer == 2 else 3 for layer in range(depth)]
            lrn = self.lrn and index == 1
            stage = ConvStage(width, tuple(sizes), lrn, self.norm, self.precision, name=f"stage{index}")
            x, inside = stage(x, train=train)
            out |= {f"stage{index}.{name}": value for name, value in inside.items()}
            if not small or min(x.shape[1:3]) > 1:
                x = out[f"pool{index}"] = max_pool(x, 2)
        x = global_average(x) if small else adaptive_average_pool(x, 7).reshape(x.shape[0], -1)
        width = self.hidden or (512 if small else 4096)
        return out | fully_connected(x, width, self.classes, self.dropout, self.precision, train=train)


class ConvStage(nn.Module):
    """Convolutions of one width between two poolings; parameters `conv1`, `norm1`, `conv2` and so on."""

    width: int
    sizes: tuple[int, ...]
    lrn: bool
    norm: bool
    precision: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> tuple[Float[Array, "batch height width filters"], dict[str, Array]]:
        """Return the stage's output, and all activations inside it by name."""
        out = {}
        for index, size in enumerate(self.sizes, 1):
            x = Conv(self.width, size, padding=size // 2, precision=self.precision, name=f"conv{index}")(x)
            if self.norm:
                x = BatchNorm(name=f"norm{index}")(x, train=train)
            x = out[f"conv{index}"] = nn.relu(x)
        if self.lrn:
            x = out["lrn"] = local_response_norm(x)
        return x, out
