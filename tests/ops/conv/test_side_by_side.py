from functools import partial

import jax
import pytest

from capsnet_jax.ops.conv.native import native_conv
from capsnet_jax.ops.conv.side_by_side import side_by_side_conv
from tests.ops.conv.loops import case, error


@pytest.mark.parametrize(
    ("x_shape", "kernel_shape", "strides", "padding", "shape"),
    [
        ((8, 24, 224, 3), (7, 7, 3, 64), 2, 3, (1, 12, 8 * 114, 64)),  # 3 zeros between, 1 to fill a stride
        ((8, 9, 27, 12), (5, 5, 12, 192), 1, 2, (1, 9, 8 * 29, 192)),
        ((12, 4, 400, 12), (5, 5, 12, 192), 1, 2, (3, 4, 4 * 402, 192)),  # 218 columns a block: four of 400 are eight
        ((12, 9, 27, 4), (3, 3, 4, 192), 1, 1, (12, 9, 27, 192)),  # copying would cost more than it saves
        ((8, 9, 12, 41), (5, 5, 41, 128), 1, 2, (8, 9, 12, 128)),  # the filters make enough blocks
        ((8, 9, 12, 40), (5, 5, 40, 128), 1, 2, (1, 9, 8 * 14, 128)),  # sums of 1000 terms: too short for that
        ((2, 9, 12, 41), (5, 5, 41, 128), 1, 0, (2, 5, 8, 128)),  # no padding
        ((2, 9, 12, 5), (7, 7, 5, 16), 1, 0, (1, 3, 2 * 12, 16)),
    ],
)
def test_images_stand_side_by_side(x_shape, kernel_shape, strides, padding, shape):
    x, kernel = case(x_shape, kernel_shape)
    settings = {"strides": (strides, strides), "pads": ((padding, padding),) * 2}
    run = jax.jit(partial(side_by_side_conv, **settings))
    (inner,) = [e for e in jax.make_jaxpr(run)(x, kernel).eqns[0].params["jaxpr"].eqns if "conv" in e.primitive.name]
    assert inner.outvars[0].aval.shape == shape
    assert error(run(x, kernel), jax.jit(partial(native_conv, **settings))(x, kernel)) < 1e-5
