"""Every algorithm beside loops over positions, and their derivatives."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.ops.conv.direct import direct_conv
from capsnet_jax.ops.conv.fourier import fourier_conv
from capsnet_jax.ops.conv.im2col import im2col_conv
from capsnet_jax.ops.conv.native import native_conv
from capsnet_jax.ops.conv.winograd import winograd_conv
from tests.ops.conv.loops import case, error, loop_conv, loop_gradients

NO_PADS = ((0, 0), (0, 0))
ALGORITHMS = [native_conv, direct_conv, im2col_conv, fourier_conv]
WITH_STRIDES = [*((algorithm, (2, 2)) for algorithm in ALGORITHMS), (winograd_conv, (1, 1))]

# Image [batch, height, width, channels], kernel [height, width, channels, filters], strides, pads.
CASES = {
    "1x1": ((2, 3, 4, 3), (1, 1, 3, 2), (1, 1), NO_PADS),
    "1x1, more filters than channels": ((2, 3, 4, 2), (1, 1, 2, 5), (1, 1), NO_PADS),
    "3x3": ((2, 5, 7, 3), (3, 3, 3, 4), (1, 1), NO_PADS),
    "3x3, more than a few channels": ((2, 5, 7, 6), (3, 3, 6, 4), (1, 1), ((1, 0), (2, 1))),
    "3x3, padded beyond the kernel": ((2, 4, 5, 2), (3, 3, 2, 3), (1, 1), ((3, 0), (1, 4))),
    "3x3/2, a pixel unused": ((2, 8, 10, 2), (3, 3, 2, 3), (2, 2), NO_PADS),
    "4x4/3": ((1, 11, 9, 3), (4, 4, 3, 2), (3, 3), NO_PADS),
    "5x5/2, padded unevenly": ((2, 8, 7, 2), (5, 5, 2, 3), (2, 2), ((1, 2), (0, 3))),
    "3x2 kernel, strides 1 and 3": ((2, 7, 11, 2), (3, 2, 2, 2), (1, 3), ((0, 1), (2, 0))),
    "2x5 kernel, strides 3 and 2": ((1, 10, 9, 1), (2, 5, 1, 3), (3, 2), NO_PADS),
    "kernel as large as the image": ((2, 4, 6, 2), (4, 6, 2, 3), (1, 1), NO_PADS),
    "stride beyond the kernel": ((1, 9, 8, 2), (2, 1, 2, 2), (3, 3), NO_PADS),
    "7x7/2": ((1, 13, 11, 3), (7, 7, 3, 2), (2, 2), ((3, 3), (3, 3))),
    "9x9/2": ((2, 20, 17, 3), (9, 9, 3, 4), (2, 2), NO_PADS),
    "9x9/2, an image of several tiles": ((2, 33, 61, 2), (9, 9, 2, 3), (2, 2), ((1, 1), (0, 0))),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradients_are_those_of_the_loops(algorithm, name):
    x_shape, kernel_shape, strides, pads = CASES[name]
    x, kernel = case(x_shape, kernel_shape)
    expected = loop_conv(x, kernel, strides, pads)
    cotangent = np.random.default_rng(1).standard_normal(expected.shape).astype(np.float32)

    @jax.jit
    def run(x, kernel, cotangent):
        out, pull = jax.vjp(partial(algorithm, strides=strides, pads=pads), x, kernel)
        return out, *pull(cotangent)

    out, to_x, to_kernel = run(x, kernel, cotangent)
    assert error(out, expected) < 1e-5
    for got, wanted in zip((to_x, to_kernel), loop_gradients(x, kernel, cotangent, strides, pads), strict=True):
        assert error(got, wanted) < 1e-5


@pytest.mark.parametrize(("algorithm", "strides"), WITH_STRIDES)
def test_gradient_is_the_finite_difference(algorithm, strides):
    x, kernel = case((1, 7, 6, 2), (3, 3, 2, 2))

    @jax.jit
    def energy(x, kernel):
        return jnp.sum(jnp.tanh(algorithm(x, kernel, strides=strides, pads=NO_PADS)))

    h = 1e-2  # float32: rounding 1e-7 / h and curvature h² are both far below the tolerance
    directions = case(x.shape, kernel.shape, seed=2)
    slope = sum(float(jnp.vdot(g, d)) for g, d in zip(jax.grad(energy, (0, 1))(x, kernel), directions, strict=True))
    ahead, behind = (energy(x + s * h * directions[0], kernel + s * h * directions[1]) for s in (1, -1))
    assert float(ahead - behind) / (2 * h) == pytest.approx(float(slope), rel=2e-2)


@pytest.mark.parametrize(("algorithm", "strides"), WITH_STRIDES)
def test_gradient_of_gradient(algorithm, strides):
    """The Hessian of |conv(x)|² / 2 is Aᵀ A, and a product with it is the loops' convolution and its transpose."""
    x, kernel = case((1, 8, 7, 2), (3, 3, 2, 3))
    vector, _ = case(x.shape, kernel.shape, seed=3)

    def energy(x):
        return 0.5 * jnp.sum(algorithm(x, kernel, strides=strides, pads=NO_PADS) ** 2)

    applied = jax.jit(jax.grad(lambda x: jnp.vdot(jax.grad(energy)(x), vector)))(x)
    image = loop_conv(vector, kernel, strides, NO_PADS)
    expected, _ = loop_gradients(x, kernel, image, strides, NO_PADS)
    assert error(applied, expected) < 1e-5
