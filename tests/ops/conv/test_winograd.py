from functools import partial

import jax
import numpy as np
import pytest

from capsnet_jax.ops.conv import winograd
from capsnet_jax.ops.conv.winograd import winograd_conv
from tests.ops.conv.loops import case, error, loop_conv, loop_gradients

NO_PADS = ((0, 0), (0, 0))


@pytest.mark.parametrize("chunk_bytes", [0, 3000, 2**22])
@pytest.mark.parametrize(
    ("x_shape", "filters", "pads"),
    [
        ((2, 5, 7, 3), 4, NO_PADS),
        ((1, 3, 3, 1), 1, NO_PADS),  # one output of a tile
        ((4, 11, 9, 3), 2, ((1, 1), (1, 1))),
        ((2, 17, 8, 2), 1, ((1, 1), (2, 1))),  # bands of one row of tiles, or of five
        ((2, 4, 5, 2), 3, ((3, 0), (1, 4))),  # padded beyond the kernel
    ],
)
def test_value_and_gradients_are_those_of_the_loops(x_shape, filters, pads, chunk_bytes, monkeypatch):
    """In chunks of one row of tiles, of several rows or images, and of all images."""
    monkeypatch.setattr(winograd, "CHUNK_BYTES", chunk_bytes)
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


@pytest.mark.usefixtures("on_cpu")
def test_rounding_error_is_small(monkeypatch):
    """Less than a third of the error at the usual points 0, ±1, ±2, averaged over four cases."""

    def mean_error() -> float:
        run = jax.jit(partial(winograd_conv, strides=(1, 1), pads=NO_PADS))
        return sum(error(run(*operands), expected) for operands, expected in cases) / len(cases)

    drawn = [case((2, 16, 16, 16), (3, 3, 16, 16), seed) for seed in range(4)]
    cases = [(each, loop_conv(*each, (1, 1), NO_PADS)) for each in drawn]
    assert (ours := mean_error()) < 1e-6
    monkeypatch.setattr(winograd, "POINTS", (0, 1, -1, 2, -2))
    monkeypatch.setattr(winograd, "B_T", np.linalg.inv(winograd._evaluation(6)).T)
    monkeypatch.setattr(winograd, "G", winograd._evaluation(3))
    monkeypatch.setattr(winograd, "A_T", winograd._evaluation(4).T)
    assert 3 * ours < mean_error()


def test_other_windows_and_strides_raise():
    x, kernel = case((1, 8, 8, 2), (3, 3, 2, 3))
    with pytest.raises(ValueError, match=r"3×3 filters with stride 1, not .* strides \(2, 1\)"):
        winograd_conv(x, kernel, strides=(2, 1), pads=NO_PADS)
    with pytest.raises(ValueError, match=r"not \(3, 2\)"):
        winograd_conv(x, kernel[:, :2], strides=(1, 1), pads=NO_PADS)


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
def test_where_it_is_profitable(out, channels, filters, batch, faster):
    assert winograd.is_profitable(batch, out, channels, filters) == faster
