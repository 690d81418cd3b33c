from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.ops import forms, winograd
from capsnet_jax.ops.conv import conv2d, cpu_form
from capsnet_jax.ops.forms import direct_conv, im2col_conv, native_conv
from capsnet_jax.ops.fourier import fourier_conv
from capsnet_jax.ops.held import held
from capsnet_jax.ops.product import product
from capsnet_jax.ops.winograd import winograd_conv
from tests.ops.loops import case, error, loop_conv, loop_gradients

NONE = ((0, 0), (0, 0))
FORMS = [native_conv, direct_conv, im2col_conv, fourier_conv]
WITH_STRIDES = [*((form, (2, 2)) for form in FORMS), (winograd_conv, (1, 1))]

# Image [batch, height, width, channels], kernel [height, width, channels, filters], strides, pads.
CASES = {
    "1x1": ((2, 3, 4, 3), (1, 1, 3, 2), (1, 1), NONE),
    "1x1, more filters than channels": ((2, 3, 4, 2), (1, 1, 2, 5), (1, 1), NONE),
    "3x3": ((2, 5, 7, 3), (3, 3, 3, 4), (1, 1), NONE),
    "3x3, padded beyond the kernel": ((2, 4, 5, 2), (3, 3, 2, 3), (1, 1), ((3, 0), (1, 4))),
    "3x3/2, a pixel unused": ((2, 8, 10, 2), (3, 3, 2, 3), (2, 2), NONE),
    "4x4/3": ((1, 11, 9, 3), (4, 4, 3, 2), (3, 3), NONE),
    "5x5/2, padded unevenly": ((2, 8, 7, 2), (5, 5, 2, 3), (2, 2), ((1, 2), (0, 3))),
    "3x2 kernel, strides 1 and 3": ((2, 7, 11, 2), (3, 2, 2, 2), (1, 3), ((0, 1), (2, 0))),
    "2x5 kernel, strides 3 and 2": ((1, 10, 9, 1), (2, 5, 1, 3), (3, 2), NONE),
    "kernel as large as the image": ((2, 4, 6, 2), (4, 6, 2, 3), (1, 1), NONE),
    "stride beyond the kernel": ((1, 9, 8, 2), (2, 1, 2, 2), (3, 3), NONE),
    "7x7/2": ((1, 13, 11, 3), (7, 7, 3, 2), (2, 2), ((3, 3), (3, 3))),
    "9x9/2": ((2, 20, 17, 3), (9, 9, 3, 4), (2, 2), NONE),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradients_are_those_of_the_loops(form, name):
    x_shape, kernel_shape, strides, pads = CASES[name]
    x, kernel = case(x_shape, kernel_shape)
    expected = loop_conv(x, kernel, strides, pads)
    cotangent = np.random.default_rng(1).standard_normal(expected.shape).astype(np.float32)

    @jax.jit
    def run(x, kernel, cotangent):
        out, pull = jax.vjp(partial(form, strides=strides, pads=pads), x, kernel)
        return out, *pull(cotangent)

    out, to_x, to_kernel = run(x, kernel, cotangent)
    assert error(out, expected) < 1e-5
    for got, wanted in zip((to_x, to_kernel), loop_gradients(x, kernel, cotangent, strides, pads), strict=True):
        assert error(got, wanted) < 1e-5


@pytest.mark.parametrize("cached", [0, 3000, 2**22])
@pytest.mark.parametrize(
    ("x_shape", "filters", "pads"),
    [
        ((2, 5, 7, 3), 4, NONE),
        ((1, 3, 3, 1), 1, NONE),  # one output of a tile
        ((4, 11, 9, 3), 2, ((1, 1), (1, 1))),
        ((2, 17, 8, 2), 1, ((1, 1), (2, 1))),  # bands of one row of tiles, or of five
        ((2, 4, 5, 2), 3, ((3, 0), (1, 4))),  # padded beyond the kernel
    ],
)
def test_winograd(x_shape, filters, pads, cached, monkeypatch):
    """In lots of one row of tiles, of some rows or images, and of all images."""
    monkeypatch.setattr(winograd, "CACHED", cached)
    x, kernel = case(x_shape, (3, 3, x_shape[3], filters))
    expected = loop_conv(x, kernel, (1, 1), pads)
    cotangent = np.random.default_rng(1).standard_normal(expected.shape).astype(np.float32)

    @jax.jit
    def run(x, kernel, cotangent):
        out, pull = jax.vjp(partial(winograd_conv, strides=(1, 1), pads=pads), x, kernel)
        return out, *pull(cotangent)

    for got, wanted in zip(
        run(x, kernel, cotangent),
        (expected, *loop_gradients(x, kernel, cotangent, (1, 1), pads)),
        strict=True,
    ):
        assert error(got, wanted) < 1e-5


@pytest.mark.parametrize(
    ("x_shape", "kernel_shape", "strides", "padding", "shape"),
    [
        ((8, 24, 224, 3), (7, 7, 3, 64), 2, 3, (1, 12, 8 * 114, 64)),  # three pixels between, and one for a whole step
        ((8, 9, 27, 12), (5, 5, 12, 192), 1, 2, (1, 9, 8 * 29, 192)),
        ((12, 4, 400, 12), (5, 5, 12, 192), 1, 2, (3, 4, 4 * 402, 192)),  # 218 columns a block: four of 400 are eight
        ((12, 9, 27, 4), (3, 3, 4, 192), 1, 1, (12, 9, 27, 192)),  # copying would take longer
        ((8, 9, 12, 41), (5, 5, 41, 128), 1, 2, (8, 9, 12, 128)),  # blocks of filters are enough
        ((8, 9, 12, 40), (5, 5, 40, 128), 1, 2, (1, 9, 8 * 14, 128)),  # too little in each of them
        ((2, 9, 12, 41), (5, 5, 41, 128), 1, 0, (2, 5, 9, 128)),  # 8 columns are asked for: none is without padding
        ((2, 9, 12, 5), (7, 7, 5, 16), 1, 0, (1, 3, 2 * 12, 16)),
    ],
)
def test_images_stand_side_by_side(x_shape, kernel_shape, strides, padding, shape):
    x, kernel = case(x_shape, kernel_shape)
    settings = {"strides": (strides, strides), "pads": ((padding, padding),) * 2}
    run = jax.jit(partial(forms.abreast_conv, **settings))
    (inner,) = [e for e in jax.make_jaxpr(run)(x, kernel).eqns[0].params["jaxpr"].eqns if "conv" in e.primitive.name]
    assert inner.outvars[0].aval.shape == shape
    assert error(run(x, kernel), jax.jit(partial(native_conv, **settings))(x, kernel)) < 1e-5


@pytest.mark.parametrize(
    ("rows", "terms", "columns"),
    [(2, 16, 24), (2, 24, 16), (3, 16, 24), (40, 9, 4), (40, 4, 9)],  # few rows of a large matrix, then many
)
def test_product_and_its_gradients(rows, terms, columns):
    generator = np.random.default_rng(0)
    x, matrix, cotangent = (generator.standard_normal(s) for s in [(rows, terms), (terms, columns), (rows, columns)])

    @jax.jit
    def run(x, matrix, cotangent):
        out, pull = jax.vjp(product, x, matrix)
        return out, *pull(cotangent)

    got = run(*(jnp.asarray(a, jnp.float32) for a in (x, matrix, cotangent)))
    for mine, expected in zip(got, (x @ matrix, cotangent @ matrix.T, x.T @ cotangent), strict=True):
        assert error(mine, expected) < 1e-6


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize(("hold", "times"), [(held, 1), (lambda x: x, 2)])
def test_what_is_held_is_computed_once(hold, times):
    """However it is viewed; else XLA computes it for each view."""

    def views(x):
        x = hold(jnp.tan(x))
        return [jnp.pad(x, pads) for pads in around]

    around = [((0, 0), (1, 1), (0, 0)), ((0, 0), (0, 0), (2, 1))]
    x = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    compiled = jax.jit(views).lower(x).compile()
    assert compiled.as_text().count(" tan(") == times
    for got, pads in zip(compiled(x), around, strict=True):
        np.testing.assert_allclose(got, np.pad(np.tan(x), pads), rtol=1e-6)


@pytest.mark.usefixtures("on_cpu")
def test_winograd_loses_little_to_rounding(monkeypatch):
    """Less than a third of what the usual points 0, ±1, ±2 lose, in the mean of four cases."""

    def loss() -> float:
        run = jax.jit(partial(winograd_conv, strides=(1, 1), pads=NONE))
        return sum(error(run(*operands), expected) for operands, expected in cases) / len(cases)

    drawn = [case((2, 16, 16, 16), (3, 3, 16, 16), seed) for seed in range(4)]
    cases = [(each, loop_conv(*each, (1, 1), NONE)) for each in drawn]
    assert (ours := loss()) < 1e-6
    monkeypatch.setattr(winograd, "POINTS", (0, 1, -1, 2, -2))
    on_image, on_kernel, on_output = (winograd._values(terms) for terms in (6, 3, 4))
    monkeypatch.setattr(winograd, "ON_IMAGE", np.linalg.inv(on_image).T)
    monkeypatch.setattr(winograd, "ON_KERNEL", np.kron(on_kernel, on_kernel))
    monkeypatch.setattr(winograd, "ON_OUTPUT", np.kron(on_output, on_output))
    assert 3 * ours < loss()


def test_winograd_is_for_one_window():
    x, kernel = case((1, 8, 8, 2), (3, 3, 2, 3))
    with pytest.raises(ValueError, match=r"3×3 filters with stride 1, not .* strides \(2, 1\)"):
        winograd_conv(x, kernel, strides=(2, 1), pads=NONE)
    with pytest.raises(ValueError, match=r"not \(3, 2\)"):
        winograd_conv(x, kernel[:, :2], strides=(1, 1), pads=NONE)


@pytest.mark.parametrize(
    ("out", "channels", "filters", "batch", "faster"),
    [
        ((56, 56), 64, 64, 8, True),
        ((28, 28), 128, 32, 8, True),
        ((14, 14), 32, 32, 128, False),  # too few of both
        ((28, 28), 3, 512, 128, False),
        ((7, 7), 512, 512, 8, False),  # 32 tiles, 64 wanted
        ((7, 7), 512, 512, 16, True),
        ((7, 7), 128, 128, 7, False),  # 28 tiles
        ((5, 5), 64, 64, 128, False),  # four tiles of 16 for 25 outputs
        ((4, 4), 64, 64, 128, True),
    ],
)
def test_where_winograd_pays(out, channels, filters, batch, faster):
    assert winograd.pays(batch, out, channels, filters) == faster


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize(("cached", "images"), [(0, 1), (2 * 4 * 6 * 9 * 16, 2), (2**22, 6)])
def test_windows_of_a_few_images_at_a_time(cached, images, strides, monkeypatch):
    """6 positions with windows of 9 pixels and 16 channels, in float32."""
    monkeypatch.setattr(forms, "CACHED", cached)
    x, kernel = case((6, 2 + 2 * strides, 2 + 3 * strides, 16), (3, 3, 16, 2))
    strides = strides, strides
    cotangent = np.random.default_rng(1).standard_normal((6, 2, 3, 2)).astype(np.float32)
    assert forms.images_at_a_time(len(x), cotangent.shape[1:3], kernel.shape) == images

    @jax.jit
    def run(x, kernel, cotangent):
        out, pull = jax.vjp(partial(direct_conv, strides=strides, pads=NONE), x, kernel)
        return out, *pull(cotangent)

    expected = loop_conv(x, kernel, strides, NONE), *loop_gradients(x, kernel, cotangent, strides, NONE)
    for got, wanted in zip(run(x, kernel, cotangent), expected, strict=True):
        assert error(got, wanted) < 1e-5


@pytest.mark.parametrize(
    ("batch", "positions", "kernel_shape", "images"),
    [
        (8, (112, 112), (7, 7, 3, 64), 1),  # 7.4 MB of windows an image
        (8, (56, 56), (3, 3, 64, 64), 1),  # 7.2 MB
        (8, (14, 14), (3, 3, 256, 256), 2),  # 1.8 MB; filters of 2.4 MB
        (8, (7, 7), (3, 3, 512, 512), 8),  # 0.9 MB; filters of 9.4 MB
        (130, (28, 28), (3, 3, 16, 16), 5),  # 0.45 MB: 9 would do, 5 divide 130
    ],
)
def test_how_many_images_at_a_time(batch, positions, kernel_shape, images):
    assert forms.images_at_a_time(batch, positions, kernel_shape) == images


@pytest.mark.parametrize("groups", [2, 3])
def test_groups(groups):
    x, kernel = case((2, 6, 5, 6), (3, 2, 6 // groups, 12))
    run = jax.jit(partial(conv2d, strides=(1, 2), groups=groups))
    assert error(run(x, kernel), loop_conv(x, kernel, (1, 2), NONE, groups)) < 1e-5
    # Each group is a convolution of its own.
    xs, kernels = jnp.split(x, groups, axis=3), jnp.split(kernel, groups, axis=3)
    one = jax.jit(partial(conv2d, strides=(1, 2)))
    apart = [one(a, b) for a, b in zip(xs, kernels, strict=True)]
    np.testing.assert_allclose(run(x, kernel), jnp.concatenate(apart, axis=3), atol=1e-5)


@pytest.mark.parametrize(
    ("padding", "strides", "pads"),
    [
        ("VALID", 2, NONE),
        # ⌈7/2⌉ = 4 rows need 3·2 + 3 = 9 pixels: two more, one on each side; ⌈6/2⌉ = 3 columns one more, at the end.
        ("SAME", 2, ((1, 1), (0, 1))),
        ("SAME", 1, ((1, 1), (1, 1))),
        (2, 1, ((2, 2), (2, 2))),
        (0, (2, 1), NONE),
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


@pytest.mark.parametrize(("form", "strides"), WITH_STRIDES)
def test_gradient_is_the_finite_difference(form, strides):
    x, kernel = case((1, 7, 6, 2), (3, 3, 2, 2))

    @jax.jit
    def energy(x, kernel):
        return jnp.sum(jnp.tanh(form(x, kernel, strides=strides, pads=NONE)))

    h = 1e-2  # float32: rounding 1e-7 / h and curvature h² are both far below the tolerance
    directions = case(x.shape, kernel.shape, seed=2)
    slope = sum(float(jnp.vdot(g, d)) for g, d in zip(jax.grad(energy, (0, 1))(x, kernel), directions, strict=True))
    ahead, behind = (energy(x + s * h * directions[0], kernel + s * h * directions[1]) for s in (1, -1))
    assert float(ahead - behind) / (2 * h) == pytest.approx(float(slope), rel=2e-2)


@pytest.mark.parametrize(("form", "strides"), WITH_STRIDES)
def test_gradient_of_gradient(form, strides):
    """The Hessian of |conv(x)|² / 2 is Aᵀ A, and a product with it is the loops' convolution and its transpose."""
    x, kernel = case((1, 8, 7, 2), (3, 3, 2, 3))
    vector, _ = case(x.shape, kernel.shape, seed=3)

    def energy(x):
        return 0.5 * jnp.sum(form(x, kernel, strides=strides, pads=NONE) ** 2)

    applied = jax.jit(jax.grad(lambda x: jnp.vdot(jax.grad(energy)(x), vector)))(x)
    image = loop_conv(vector, kernel, strides, NONE)
    expected, _ = loop_gradients(x, kernel, image, strides, NONE)
    assert error(applied, expected) < 1e-5


@pytest.mark.parametrize(
    ("form", "x_shape", "kernel_shape", "strides"),
    [
        (im2col_conv, (2, 10, 9, 11), (1, 1, 11, 2), 1),
        (direct_conv, (2, 10, 9, 11), (5, 5, 11, 2), 1),
        (direct_conv, (2, 10, 9, 11), (3, 3, 11, 2), 2),
        (fourier_conv, (2, 10, 9, 11), (5, 5, 11, 2), 2),
        (winograd_conv, (3, 13, 17, 48), (3, 3, 48, 48), 1),
    ],
)
def test_vmap_over_kernels_is_a_loop_over_them(form, x_shape, kernel_shape, strides):
    x, _ = case(x_shape, kernel_shape)
    assert cpu_form(x_shape[:3], kernel_shape, (strides, strides), 1) is form
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
    ("padded", "kernel_shape", "strides", "groups", "form"),
    [
        ((128, 28, 28), (9, 9, 1, 256), (1, 1), 1, im2col_conv),  # CapsNet, first convolution
        ((128, 20, 20), (9, 9, 256, 256), (2, 2), 1, fourier_conv),  # CapsNet, primary capsules
        ((8, 56, 56), (1, 1, 64, 256), (1, 1), 1, im2col_conv),  # ResNet
        ((8, 58, 58), (3, 3, 64, 64), (1, 1), 1, winograd_conv),
        ((128, 30, 30), (3, 3, 16, 16), (1, 1), 1, direct_conv),  # few channels
        ((8, 58, 58), (3, 3, 64, 128), (2, 2), 1, direct_conv),
        ((8, 9, 9), (3, 3, 512, 512), (1, 1), 1, im2col_conv),  # 392 windows for 512 filters
        ((32, 9, 9), (3, 3, 512, 512), (1, 1), 1, winograd_conv),
        ((128, 4, 4), (3, 3, 224, 224), (1, 1), 1, im2col_conv),  # 2×2 windows of 3×3 pixels
        ((8, 230, 230), (7, 7, 3, 64), (2, 2), 1, direct_conv),  # its first: too large a grid
        ((8, 28, 28), (5, 5, 1, 8), (2, 2), 1, im2col_conv),  # one channel
        ((8, 31, 31), (5, 5, 48, 256), (1, 1), 2, direct_conv),  # AlexNet, two groups
        ((8, 20, 20), (9, 9, 8, 256), (2, 2), 32, native_conv),  # many groups
    ],
)
def test_form_on_a_cpu(padded, kernel_shape, strides, groups, form):
    assert cpu_form(padded, kernel_shape, strides, groups) is form


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
    [((4, 28, 28, 1), (9, 9, 1, 8), 1), ((4, 20, 20, 8), (9, 9, 8, 8), 2)],
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
