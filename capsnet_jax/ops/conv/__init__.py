"""Two-dimensional convolution: `conv2d` for every platform, and one file for each algorithm behind it."""

from capsnet_jax.ops.conv.padding import Pads, Strides
from capsnet_jax.ops.conv.select import conv2d

__all__ = ["Pads", "Strides", "conv2d"]
