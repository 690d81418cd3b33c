"""The layer that every conv net here is built from."""

import jax
from flax import linen as nn
from jaxtyping import Array, Float

from capsnet_jax.ops.conv import conv2d


class Conv(nn.Module):
    """Convolution with a bias, by `ops.conv.conv2d`; parameters `kernel` (HWIO) and `bias`.

    Attributes:
        filters: channels out.
        size: side of the kernel, pixels.
        strides: pixels that the filter moves.
        padding: as in `conv2d`.
        precision: type of images and filters in the product; what comes out is float32.
    """

    filters: int
    size: int
    strides: int = 1
    padding: str | int = "VALID"
    precision: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch out_height out_width filters"]:
        """Images to activations, NHWC."""
        shape = (self.size, self.size, x.shape[-1], self.filters)
        kernel = self.param("kernel", jax.nn.initializers.he_normal(), shape)
        bias = self.param("bias", jax.nn.initializers.zeros, (self.filters,))
        x, kernel = x.astype(self.precision), kernel.astype(self.precision)
        return conv2d(x, kernel, strides=self.strides, padding=self.padding).astype(bias.dtype) + bias[None, None, None]
