from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.ops.conv import conv2d
from capsnet_jax.ops.conv.direct import direct_conv
from capsnet_jax.ops.conv.fourier import fourier_conv
from capsnet_jax.ops.conv.im2col import im2col_conv
from capsnet_jax.ops.conv.native import native_conv
from capsnet_jax.ops.conv.select import cpu_algorithm
from capsnet_jax.ops.conv.winograd import winograd_conv
from tests.ops.conv.loops import case, error, loop_conv

NO_PADS = ((0, 0), (0, 0))


@pytest.mark.parametrize("groups", [2, 3])
def test_groups(groups):
    x, kernel = case((2, 6, 5, 6), (3, 2, 6 // groups, 12))
    run = jax.jit(partial(conv2d, strides=(1, 2), groups=groups))
    assert error(run(x, kernel), loop_conv(x, kernel, (1, 2), NO_PADS, groups)) < 1e-5
    # Each group is a convolution of its own.
    xs, kernels = jnp.split(x, groups, axis=3), jnp.split(kernel, groups, axis=3)
    one = jax.jit(partial(conv2d, strides=(1, 2)))
    apart = [one(a, b) for a, b in zip(xs, kernels, strict=True)]
    np.testing.assert_allclose(run(x, kernel), jnp.concatenate(apart, axis=3), atol=1e-5)


@pytest.mark.parametrize(
    ("padding", "strides", "pads"),
    [
        ("VALID", 2, NO_PADS),
        # ⌈7/2⌉ = 4 rows need 3·2 + 3 = 9 pixels: two more, one on each side; ⌈6/2⌉ = 3 columns one more, at the end.
        ("SAME", 2, ((1, 1), (0, 1))),
        ("SAME", 1, ((1, 1), (1, 1))),
        (2, 1, ((2, 2), (2, 2))),
        (0, (2, 1), NO_PADS),
        (((1, 0), (0, 2)), (1, 2), ((1, 0), (0, 2))),
        ([(1, 0), (0, 2)], (1, 2), ((1, 0), (0, 2))),
    ],
)
def test_padding_of_every_kind(padding, strides, pads):
    x, kernel = case((2, 7, 6, 2), (3, 3, 2, 3))
    out = jax.jit(partial(conv2d, strides=strides, padding=padding))(x, kernel)
    both = (strides, strides) if isinstance(strides, int) else strides
    assert error(out, loop_conv(x, kernel, both, pads)) < 1e-5
    if padding == "SAME":
        assert out.shape[1:3] == (-(-7 // both[0]), -(-6 // both[1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "x_shape", "kernel_shape", "strides"),
    [
        (im2col_conv, (2, 10, 9, 11), (1, 1, 11, 2), 1),
        (direct_conv, (2, 10, 9, 11), (5, 5, 11, 2), 1),
        (direct_conv, (2, 10, 9, 11), (3, 3, 11, 2), 2),
        (fourier_conv, (2, 10, 9, 11), (5, 5, 11, 2), 2),
        (winograd_conv, (3, 13, 17, 48), (3, 3, 48, 48), 1),
    ],
)
def test_vmap_over_kernels_is_a_loop_over_them(algorithm, x_shape, kernel_shape, strides):
    x, _ = case(x_shape, kernel_shape)
    assert cpu_algorithm(x_shape[:3], kernel_shape, (strides, strides), 1) is algorithm
    kernels = jnp.stack([case((1, 1, 1, 1), kernel_shape, seed=seed)[1] for seed in range(3)])

    def run(kernel):
        return jax.value_and_grad(lambda k: jnp.sum(conv2d(x, k, strides=strides) ** 2))(kernel)

    values, gradients = jax.jit(jax.vmap(run))(kernels)
    one = jax.jit(run)
    for kernel, value, gradient in zip(kernels, values, gradients, strict=True):
        alone = one(kernel)
        assert error(value, alone[0]) < 1e-5
        assert error(gradient, alone[1]) < 1e-5


@pytest.mark.parametrize(
    ("padded", "kernel_shape", "strides", "groups", "algorithm"),
    [
        ((128, 28, 28), (9, 9, 1, 256), (1, 1), 1, direct_conv),  # CapsNet, first convolution
        ((128, 20, 20), (9, 9, 256, 256), (2, 2), 1, fourier_conv),  # CapsNet, primary capsules
        ((8, 56, 56), (1, 1, 64, 256), (1, 1), 1, im2col_conv),  # ResNet
        ((8, 58, 58), (3, 3, 64, 64), (1, 1), 1, winograd_conv),
        ((128, 30, 30), (3, 3, 16, 16), (1, 1), 1, direct_conv),  # few channels
        ((8, 58, 58), (3, 3, 64, 128), (2, 2), 1, direct_conv),
        ((8, 9, 9), (3, 3, 512, 512), (1, 1), 1, im2col_conv),  # 392 patches for 512 filters
        ((32, 9, 9), (3, 3, 512, 512), (1, 1), 1, winograd_conv),
        ((128, 4, 4), (3, 3, 224, 224), (1, 1), 1, im2col_conv),  # 2×2 windows of 3×3 pixels
        ((8, 230, 230), (7, 7, 3, 64), (2, 2), 1, direct_conv),  # its first: tiles of few products
        ((8, 56, 56), (9, 9, 32, 64), (2, 2), 1, fourier_conv),  # a small CapsNet's on images of 64×64, in tiles
        ((8, 28, 28), (5, 5, 1, 8), (2, 2), 1, direct_conv),  # one channel
        ((8, 31, 31), (5, 5, 48, 256), (1, 1), 2, direct_conv),  # AlexNet, two groups
        ((8, 20, 20), (9, 9, 8, 256), (2, 2), 32, native_conv),  # many groups
    ],
)
def test_algorithm_on_a_cpu(padded, kernel_shape, strides, groups, algorithm):
    assert cpu_algorithm(padded, kernel_shape, strides, groups) is algorithm


def test_too_small_an_image():
    x, kernel = case((1, 8, 30, 2), (9, 7, 2, 3))
    with pytest.raises(ValueError, match=r"images of 8.30 are too small for a 9.7 kernel with padding VALID"):
        conv2d(x, kernel)
    assert conv2d(x, kernel, padding=1).shape == (1, 2, 26, 3)
    with pytest.raises(ValueError, match=r"8.30 .*padding \(\(1, -1\)"):
        conv2d(x, kernel, padding=((1, -1), (0, 0)))


@pytest.mark.parametrize(
    ("channels", "of_kernel", "filters", "groups"), [(3, 2, 4, 1), (4, 4, 4, 2), (4, 2, 3, 2), (2, 3, 4, 1)]
)
def test_channels_that_do_not_fit(channels, of_kernel, filters, groups):
    x, kernel = case((1, 5, 5, channels), (3, 3, of_kernel, filters))
    message = rf"{channels} channels do not fit {groups} group\(s\) of {of_kernel} channels and {filters} filters"
    with pytest.raises(ValueError, match=message):
        conv2d(x, kernel, groups=groups)


def test_wrong_rank_is_caught_by_the_annotations():
    x, kernel = case((1, 5, 5, 2), (3, 3, 2, 2))
    with pytest.raises(TypeError, match="Type-check error"):
        conv2d(x[0], kernel)


def lowered(platform: str, function, *shapes) -> str:
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.export.export(jax.jit(function), platforms=(platform,))(*arguments).mlir_module()


@pytest.mark.parametrize(
    ("x_shape", "kernel_shape", "strides"),
    [((4, 28, 28, 8), (1, 1, 8, 8), 1), ((4, 20, 20, 8), (9, 9, 8, 8), 2)],
)
@pytest.mark.parametrize("platform", ["cuda", "tpu", "cpu"])
def test_what_each_platform_gets(platform, x_shape, kernel_shape, strides):
    def gradients(x, kernel):
        return jax.grad(lambda *a: jnp.sum(conv2d(*a, strides=strides) ** 2), (0, 1))(x, kernel)

    forward = lowered(platform, partial(conv2d, strides=strides), x_shape, kernel_shape)
    backward = lowered(platform, gradients, x_shape, kernel_shape)
    native, products = (
        (text.count("stablehlo.convolution") for text in (forward, backward)),
        (text.count("stablehlo.dot_general") for text in (forward, backward)),
    )
    if platform == "cpu" or (platform == "cuda" and strides == 2):
        assert tuple(native) == (0, 0)
        assert min(products) > 0
    else:
        assert tuple(native) == (1, 3)
        assert tuple(products) == (0, 0)
