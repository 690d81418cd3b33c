"""GoogLeNet: Szegedy et al. 2014, "Going Deeper with Convolutions" (arXiv:1409.4842), table 1 and figures 2 and 3."""

from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from capsnet_jax.models.layers import BatchNorm, Conv, is_small
from capsnet_jax.ops.normalization import local_response_norm
from capsnet_jax.ops.pooling import adaptive_average_pool, average_pool, global_average, max_pool

# Table 1, channels: #1×1, #3×3 reduce, #3×3, #5×5 reduce, #5×5, pool proj.
INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
HEADS = {"4a": "aux1", "4d": "aux2"}  # an auxiliary classifier sees what this module gives


class GoogLeNet(nn.Module):
    """Nine inception modules, an average over all positions, and one fully connected layer.

    In training two auxiliary classifiers in the middle give `aux1_logits` and `aux2_logits`, whose cross-entropies the
    loss counts by 0.3. They are not run otherwise. 6,998,552 parameters at 1000 classes without them.

    `norm=True` is what torchvision trained (6,624,904 parameters, 13,004,888 with auxiliary classifiers):
    batch norms instead of biases and local response normalisation, 3×3 filters where the paper has 5×5, a last pooling
    of 2×2, and auxiliary classifiers that average to 4×4 positions instead of 5×5 windows with stride 3.

    The small form (images under 64 pixels) begins with 3×3 filters that move one pixel and leaves the first pooling
    out; images of 32×32 reach the last modules as 4×4 positions.

    Attributes:
        classes: how many.
        modules: the inception modules there are, by their names in table 1.
        norm: whether there are batch norms, as above.
        auxiliary: whether there are auxiliary classifiers.
        dropout: part of the averaged channels dropped in training.
        stem: "imagenet", "small", or "auto": by the images' size.
        precision: type of products.
    """

    classes: int = 1000
    modules: tuple[str, ...] = tuple(INCEPTIONS)
    norm: bool = False
    auxiliary: bool = True
    dropout: float = 0.4
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
            train: whether to drop units (needs an rng named "dropout"), run the auxiliary classifiers, and normalise
                by the batch.

        Returns:
            "conv1" … "conv3", "pool1" … "pool4", "inception3a" … "inception5b" activations, the "average" over all
            positions, the classes' "logits", and in training those of the auxiliary classifiers.
        """
        unit = partial(Unit, norm=self.norm, precision=self.precision)
        normalize = (lambda x: x) if self.norm else local_response_norm
        pool = partial(max_pool, strides=2, ceil=True)
        small = is_small(self.stem, images)
        out: dict[str, Any] = {}
        first = unit(64, 3, name="conv1") if small else unit(64, 7, strides=2, name="conv1")
        x = out["conv1"] = first(images, train=train)
        if not small:
            x = out["pool1"] = pool(x, 3)
        x = out["conv2"] = unit(64, 1, name="conv2")(normalize(x), train=train)
        x = out["conv3"] = unit(192, 3, name="conv3")(x, train=train)
        x = out["pool2"] = pool(normalize(x), 3)
        for module in self.modules:
            if module == "4a":
                x = out["pool3"] = pool(x, 3)
            if module == "5a":
                x = out["pool4"] = pool(x, 2 if self.norm else 3)
            name = f"inception{module}"
            x = out[name] = Inception(INCEPTIONS[module], self.norm, self.precision, name=name)(x, train=train)
            if self.auxiliary and module in HEADS and (train or self.is_initializing()):
                head = Head(self.classes, self.norm, self.precision, name=HEADS[module])
                out[f"{HEADS[module]}_logits"] = head(x, train=train)
        x = out["average"] = global_average(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        out["logits"] = nn.Dense(self.classes, name="classes")(x)
        return out


class Unit(nn.Module):
    """A convolution with its ReLU, and a batch norm in place of the bias if so asked; the size of the image stays."""

    filters: int
    size: int
    strides: int = 1
    norm: bool = False
    precision: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch out_height out_width filters"]:
        """Apply convolution, batch norm and ReLU."""
        options = {"padding": self.size // 2, "bias": not self.norm, "precision": self.precision}
        x = Conv(self.filters, self.size, self.strides, name="conv", **options)(x)
        return nn.relu(BatchNorm(epsilon=1e-3, name="norm")(x, train=train) if self.norm else x)


class Inception(nn.Module):
    """Figure 2 (b): four views of the same positions, one above the other.

    Attributes:
        channels: of the 1×1, the 3×3's reduction, the 3×3, the 5×5's reduction, the 5×5, and the pooling's projection.
        norm: batch norms, and 3×3 filters for 5×5.
        precision: type of products.
    """

    channels: tuple[int, ...]
    norm: bool = False
    precision: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch height width filters"]:
        """Return the four branches' channels in the figure's order."""
        unit = partial(Unit, norm=self.norm, precision=self.precision)
        one, reduce3, three, reduce5, five, project = self.channels
        branch1 = unit(one, 1, name="conv1x1")(x, train=train)
        branch2 = unit(reduce3, 1, name="reduce3x3")(x, train=train)
        branch2 = unit(three, 3, name="conv3x3")(branch2, train=train)
        branch3 = unit(reduce5, 1, name="reduce5x5")(x, train=train)
        branch3 = unit(five, 3 if self.norm else 5, name="conv5x5")(branch3, train=train)
        branch4 = unit(project, 1, name="project")(max_pool(x, 3, strides=1, padding=1), train=train)
        return jnp.concatenate([branch1, branch2, branch3, branch4], axis=-1)


class Head(nn.Module):
    """An auxiliary classifier (section 5): an average to 4×4 positions, a 1×1 convolution, 1024 units, the classes."""

    classes: int
    norm: bool
    precision: str

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"], *, train: bool) -> Float[Array, "batch classes"]:
        """Return logits from activations in the middle of the net."""
        if not self.norm and min(x.shape[1:3]) >= 5:
            x = average_pool(x, 5, strides=3)
        x = adaptive_average_pool(x, 4)
        x = Unit(128, 1, norm=self.norm, precision=self.precision, name="conv")(x, train=train)
        wide = x.dtype
        x = nn.relu(nn.Dense(1024, dtype=self.precision, name="fc")(x.reshape(x.shape[0], -1)))
        x = nn.Dropout(0.7, deterministic=not train)(x)
        return nn.Dense(self.classes, name="classes")(x.astype(wide))
