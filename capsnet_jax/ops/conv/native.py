"""The convolution that the platform itself offers."""

from jax import lax
from jaxtyping import Array, Float

from capsnet_jax.ops.conv.padding import Pads, Strides


def native_conv(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels_per_group filters"],
    *,
    strides: Strides,
    pads: Pads,
    groups: int = 1,
) -> Float[Array, "batch out_height out_width filters"]:
    """Convolve by XLA's own operation, whose gradients are native convolutions too."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=strides,
        padding=pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
