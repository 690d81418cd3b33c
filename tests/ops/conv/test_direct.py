from functools import partial

import jax
import numpy as np
import pytest

from capsnet_jax.ops.conv import direct
from capsnet_jax.ops.conv.direct import direct_conv
from tests.ops.conv.loops import case, error, loop_conv, loop_gradients

NO_PADS = ((0, 0), (0, 0))


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize(("chunk_bytes", "images"), [(0, 1), (2 * 4 * 6 * 9 * 16, 2), (2**22, 6)])
def test_chunks_of_a_few_images(chunk_bytes, images, strides, monkeypatch):
    """6 positions with patches of 9 pixels and 16 channels, in float32."""
    monkeypatch.setattr(direct, "CHUNK_BYTES", chunk_bytes)
    x, kernel = case((6, 2 + 2 * strides, 2 + 3 * strides, 16), (3, 3, 16, 2))
    strides = strides, strides
    cotangent = np.random.default_rng(1).standard_normal((6, 2, 3, 2)).astype(np.float32)
    assert direct.images_per_chunk(len(x), cotangent.shape[1:3], kernel.shape) == images

    @jax.jit
    def run(x, kernel, cotangent):
        out, pull = jax.vjp(partial(direct_conv, strides=strides, pads=NO_PADS), x, kernel)
        return out, *pull(cotangent)

    expected = loop_conv(x, kernel, strides, NO_PADS), *loop_gradients(x, kernel, cotangent, strides, NO_PADS)
    for got, wanted in zip(run(x, kernel, cotangent), expected, strict=True):
        assert error(got, wanted) < 1e-5


@pytest.mark.parametrize(
    ("batch", "positions", "kernel_shape", "images"),
    [
        (8, (112, 112), (7, 7, 3, 64), 1),  # 7.4 MB of patches per image
        (8, (56, 56), (3, 3, 64, 64), 1),  # 7.2 MB
        (8, (14, 14), (3, 3, 256, 256), 2),  # 1.8 MB; filters of 2.4 MB
        (8, (7, 7), (3, 3, 512, 512), 8),  # 0.9 MB; filters of 9.4 MB
        (130, (28, 28), (3, 3, 16, 16), 5),  # 0.45 MB: 9 would fit, 5 divides 130
    ],
)
def test_images_per_chunk(batch, positions, kernel_shape, images):
    assert direct.images_per_chunk(batch, positions, kernel_shape) == images
