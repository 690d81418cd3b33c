import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.config import ConfigError
from capsnet_jax.interpret import occlusion

WEIGHTS = np.asarray(jax.random.normal(jax.random.key(1), (13, 11, 3, 5)))


def images(channels=3):
    return np.asarray(jax.random.uniform(jax.random.key(0), (2, 13, 11, channels)))


def net(pixels):
    logits = jnp.tensordot(pixels, WEIGHTS[:, :, : pixels.shape[-1]], 3)
    return {"logits": logits + 0.1 * logits**2}


def by_brute_force(pixels, classes, window, stride, fill):
    """Every square that fits, one stride after the other, and one that ends at the border."""
    total, times = np.zeros((2, *pixels.shape[:3]))
    starts = [sorted({*range(0, size - window + 1, stride), size - window}) for size in pixels.shape[1:3]]
    of = lambda x: np.asarray(net(x)["logits"])[np.arange(len(x)), classes]  # noqa: E731
    for row in starts[0]:
        for column in starts[1]:
            place = (slice(None), slice(row, row + window), slice(column, column + window))
            hidden = pixels.copy()
            hidden[place] = np.broadcast_to(fill, pixels.shape)[place]
            total[place] += (of(pixels) - of(hidden))[:, None, None]
            times[place] += 1
    assert times.min() >= 1
    return (total / times)[..., None]


@pytest.mark.parametrize(
    ("channels", "window", "stride", "fill"),
    [(3, 4, 3, None), (1, 11, 5, 0.5), (3, None, None, "other images")],
)
def test_maps_are_those_of_every_square_hidden_in_turn(channels, window, stride, fill):
    pixels = images(channels)
    if fill == "other images":
        fill = pixels[::-1]
    maps = occlusion(net, pixels, [3, 0], window=window, stride=stride, fill=fill, chunk=7)
    expected = by_brute_force(
        pixels, [3, 0], window or 2, stride or 1, pixels.mean(axis=(1, 2), keepdims=True) if fill is None else fill
    )
    assert maps.shape == (2, 13, 11, 1)
    np.testing.assert_allclose(maps, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_what_supports_a_class_is_positive():
    pixels = np.zeros((1, 13, 11, 1), np.float32)
    pixels[0, 6:, :, 0] = 1
    maps = occlusion(lambda x: x[:, 8, 7, 0] - x[:, 9, 3, 0], pixels, window=3, stride=1, fill=0.0)[0, ..., 0]
    assert np.unravel_index(maps.argmax(), maps.shape) == (8, 7)
    assert np.unravel_index(maps.argmin(), maps.shape) == (9, 3)
    assert not maps[:6].any()  # hidden black is no change


def test_chunks_and_bytes_make_no_difference():
    pixels = np.round(255 * images()).astype(np.uint8)
    whole = occlusion(net, pixels.astype(np.float32) / 255, window=4, stride=3)
    for chunk in (1, 100):
        maps = occlusion(net, pixels, window=4, stride=3, chunk=chunk)
        np.testing.assert_allclose(maps, whole, atol=1e-4 * np.abs(whole).max())


def test_a_window_larger_than_the_image_hides_all():
    pixels = images()
    fall = np.asarray(net(pixels)["logits"][:, 2] - net(np.zeros_like(pixels))["logits"][:, 2])
    maps = occlusion(net, pixels, 2, window=40, stride=9, fill=0.0)
    np.testing.assert_allclose(maps, np.broadcast_to(fall[:, None, None, None], maps.shape), rtol=1e-4)


@pytest.mark.parametrize("given", [{"window": 0}, {"stride": 0}, {"stride": -2}])
def test_a_window_or_stride_of_no_pixel_is_told(given):
    [(name, value)] = given.items()
    with pytest.raises(ConfigError, match=f"{name} is {value}; give 1 or more"):
        occlusion(net, images(), **given)


def test_squares_that_leave_pixels_between_them_are_told():
    with pytest.raises(ConfigError, match="2 pixels, 5 apart"):
        occlusion(net, images(), window=2, stride=5)
