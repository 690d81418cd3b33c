from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.ops.pooling import adaptive_average_pool, average_pool, global_average, global_max, max_pool

X = np.random.default_rng(0).standard_normal((2, 7, 6, 3)).astype(np.float32)
# (window, strides, padding, ceil)
SETTINGS = [
    (2, None, 0, False),
    (3, 2, 0, False),
    (3, 2, 1, False),
    (3, 1, 1, True),
    (3, 2, 0, True),
    (2, 3, 0, True),
    (2, 2, 1, True),
    (3, 3, 1, True),
]


def starts(size: int, window: int, strides: int, padding: int, ceil: bool) -> list[int]:
    """Where windows begin, in the image's own pixels: while they end in the padded image, or, with `ceil`, begin
    before its far padding does."""
    first = range(-padding, size + padding, strides)
    inside = [i for i in first if i + window <= size + padding]
    if ceil and inside[-1] + window < size + padding and inside[-1] + strides < size:
        inside.append(inside[-1] + strides)
    return inside


def loop_pool(x, window, strides, padding, ceil, reduce):
    """`reduce` of the pixels of every window that are in the image, and the window's size without what is beyond
    the padding."""
    strides = strides or window
    tops, lefts = (starts(size, window, strides, padding, ceil) for size in x.shape[1:3])
    out = np.zeros((x.shape[0], len(tops), len(lefts), x.shape[3]))
    for i, top in enumerate(tops):
        for j, left in enumerate(lefts):
            pixels = np.float64(x[:, max(top, 0) : top + window, max(left, 0) : left + window])
            height = min(top + window, x.shape[1] + padding) - top
            width = min(left + window, x.shape[2] + padding) - left
            out[:, i, j] = reduce(pixels, height * width)
    return out


@pytest.mark.parametrize(("window", "strides", "padding", "ceil"), SETTINGS)
def test_pooling_is_the_loops(window, strides, padding, ceil):
    settings = {"strides": strides, "padding": padding, "ceil": ceil}
    greatest, mean, full = jax.jit(
        lambda x: (
            max_pool(x, window, **settings),
            average_pool(x, window, **settings, count_padding=False),
            average_pool(x, window, **settings),
        )
    )(X)
    oracle = partial(loop_pool, X, window, strides, padding, ceil)
    np.testing.assert_array_equal(greatest, oracle(lambda p, _: p.max(axis=(1, 2))))
    np.testing.assert_allclose(mean, oracle(lambda p, _: p.mean(axis=(1, 2))), atol=1e-6)
    np.testing.assert_allclose(full, oracle(lambda p, size: p.sum(axis=(1, 2)) / size), atol=1e-6)


@pytest.mark.parametrize(
    ("size", "out"),
    [(112, 56), (56, 28), (28, 14), (14, 7), (113, 56)],  # GoogLeNet's, with ceil
)
def test_googlenets_sizes(size, out):
    x = jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)
    assert jax.eval_shape(lambda x: max_pool(x, 3, strides=2, ceil=True), x).shape == (1, out, out, 1)


def loop_gradient(x, given, window, strides, padding, ceil):
    """What is given to every window, added to the first of its greatest pixels."""
    strides = strides or window
    tops, lefts = (starts(size, window, strides, padding, ceil) for size in x.shape[1:3])
    gradient = np.zeros(x.shape)
    for i, top in enumerate(tops):
        for j, left in enumerate(lefts):
            for image, channel in np.ndindex(x.shape[0], x.shape[3]):
                pixels = x[image, max(top, 0) : top + window, max(left, 0) : left + window, channel]
                row, column = np.unravel_index(np.argmax(pixels), pixels.shape)
                gradient[image, max(top, 0) + row, max(left, 0) + column, channel] += given[image, i, j, channel]
    return gradient


@pytest.mark.parametrize(("window", "strides", "padding", "ceil"), [*SETTINGS, (5, 2, 2, False), (6, 6, 0, False)])
def test_the_gradient_goes_to_the_greatest_pixel(window, strides, padding, ceil):
    pool = partial(max_pool, window=window, strides=strides, padding=padding, ceil=ceil)
    gradient = jax.jit(lambda x, given: jax.vjp(pool, x)[1](given)[0])
    shape = jax.eval_shape(pool, X).shape
    given = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    for x in (X, np.round(X)):  # and with equal pixels
        expected = loop_gradient(x, given, window, strides, padding, ceil)
        np.testing.assert_allclose(gradient(x, given), expected, atol=1e-6)


@pytest.mark.parametrize(("window", "strides", "padding", "ceil"), [*SETTINGS, (5, 2, 2, False)])
def test_a_means_gradient_is_what_it_takes_from_each_pixel(window, strides, padding, ceil):
    """The mean is linear: its gradient, with what is given to windows, is what they are given when x moves by 1."""
    pool = jax.jit(partial(average_pool, window=window, strides=strides, padding=padding, ceil=ceil))
    out, pull = jax.vjp(pool, jnp.asarray(X[:1, :, :, :1]))
    given = np.random.default_rng(1).standard_normal(out.shape).astype(np.float32)
    expected = np.zeros((7, 6))
    for pixel in np.ndindex(7, 6):
        one = np.zeros((1, 7, 6, 1), np.float32)
        one[0, *pixel, 0] = 1
        mean = loop_pool(one, window, strides, padding, ceil, lambda p, size: p.sum(axis=(1, 2)) / size)
        expected[pixel] = np.sum(mean * given)
    np.testing.assert_allclose(jax.jit(pull)(given)[0][0, :, :, 0], expected, atol=1e-6)


@pytest.mark.parametrize("pool", [max_pool, average_pool])
def test_gradient_of_gradient(pool):
    """Along a direction, beside central differences of the gradient."""
    with jax.enable_x64(True):
        x, along = (jnp.asarray(np.random.default_rng(seed).standard_normal((1, 7, 6, 2))) for seed in (0, 1))
        gradient = jax.jit(jax.grad(lambda x: jnp.sum(pool(x, 3, strides=2, padding=1) ** 3)))
        second = jax.grad(lambda x: jnp.vdot(gradient(x), along))(x)
        expected = (gradient(x + 1e-6 * along) - gradient(x - 1e-6 * along)) / 2e-6
    np.testing.assert_allclose(second, expected, atol=1e-7)


@pytest.mark.slow
def test_the_gradient_of_a_window_of_more_pixels_than_a_byte_counts():
    """Compiled, where XLA once computed the index in the window anew for every pixel, and ran out of memory."""
    x = np.random.default_rng(0).standard_normal((1, 17, 17, 1)).astype(np.float32)
    x[0, 16, 15] = 9
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(max_pool(x, 17))))(jnp.asarray(x))
    np.testing.assert_array_equal(gradient, x == 9)


def test_of_equal_pixels_the_first_has_the_gradient():
    """Windows at rows and columns −1 to 1 and 1 to 3; what lies before 0 is padding."""
    gradient = np.asarray(jax.grad(lambda x: jnp.sum(max_pool(x, 3, strides=2, padding=1)))(jnp.zeros((1, 4, 4, 1))))
    expected = np.zeros((1, 4, 4, 1))
    expected[0, :2, :2] = 1
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize("position", range(4))
def test_what_is_not_a_number_stays_one(position):
    x = jnp.arange(4.0).at[position].set(jnp.nan).reshape(1, 2, 2, 1)
    assert np.isnan(max_pool(x, 2)).all()


@pytest.mark.parametrize("side", [1, 2, 4, 5, 9])
def test_adaptive_windows_are_the_loops(side):
    out = jax.jit(partial(adaptive_average_pool, side=side))(X)
    expected = np.zeros((2, side, side, 3))
    for i in range(side):
        for j in range(side):
            rows = slice(int(np.floor(i * 7 / side)), int(np.ceil((i + 1) * 7 / side)))
            columns = slice(int(np.floor(j * 6 / side)), int(np.ceil((j + 1) * 6 / side)))
            expected[:, i, j] = np.float64(X[:, rows, columns]).mean(axis=(1, 2))
    np.testing.assert_allclose(out, expected, atol=1e-6)
    if side == 1:
        np.testing.assert_allclose(global_average(jnp.asarray(X)), expected[:, 0, 0], atol=1e-6)


def test_adaptive_pooling_to_its_own_size_is_nothing():
    x = jnp.asarray(X[:, :6])
    assert adaptive_average_pool(x, 6) is x


def test_too_small_an_image():
    x = jnp.zeros((1, 2, 9, 1))
    with pytest.raises(ValueError, match=r"images of 2.9 are too small for a 3.3 pooling window with padding 0"):
        max_pool(x, 3)
    assert max_pool(x, 3, ceil=True).shape == (1, 1, 3, 1)
    with pytest.raises(ValueError, match=r"images of 1.9 are too small for a 4.4 pooling window"):
        average_pool(x[:, :1], 4, padding=1)


def test_the_global_maximum_and_its_gradient():
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(global_max(x)))(jnp.asarray(X))
    np.testing.assert_allclose(value, X.max(axis=(1, 2)).sum(), rtol=1e-6)
    np.testing.assert_array_equal(gradient, X.max(axis=(1, 2), keepdims=True) == X)
