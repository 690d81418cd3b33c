import numpy as np
import pytest

from capsnet_jax.figures import overlay
from capsnet_jax.figures.overlays import blend

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.random((3, 28, 28, 1))


def drawn(figure):
    return np.asarray(figure.axes[0].images[0].get_array())


def test_a_map_is_seen_where_it_is():
    maps = np.zeros((1, 50, 40))
    maps[0, :10], maps[0, 40:] = 2.0, -1.0
    grey = np.full((1, 50, 40, 3), 0.5)
    signed = blend(grey, maps, signed=True)[0]
    plain = blend(grey, np.zeros_like(maps), signed=True)[0, 0, 0]
    assert np.ptp(plain) == 0
    np.testing.assert_array_equal(signed[20], np.broadcast_to(plain, (40, 3)))
    red, blue = signed[0, 0], signed[49, 0]
    assert red[0] > 0.9
    assert red[2] < 0.1
    assert blue[2] == pytest.approx(0.45 + 0.55 * plain[2])  # half as strong
    unsigned = blend(grey, maps, signed=False)[0]
    np.testing.assert_array_equal(unsigned[49], np.broadcast_to(plain, (40, 3)))  # below 0 is nothing
    assert unsigned[0, 0, 0] > 0.9


def test_a_single_pixel_does_not_hide_the_others():
    maps = RANDOM.random((1, 28, 28))
    outlier = maps.copy()
    outlier[0, 3, 3] = 1e6
    without, with_it = (blend(IMAGES[:1], each, signed=False) for each in (maps, outlier))
    without[0, 3, 3] = with_it[0, 3, 3]
    np.testing.assert_allclose(without, with_it, atol=0.02)
    alone = np.zeros((1, 28, 28))
    alone[0, 3, 3] = 7  # the 99th percentile is 0
    assert blend(IMAGES[:1], alone, signed=False)[0, 3, 3, 0] > 0.9


def test_maps_of_zeros_leave_the_image(recwarn):
    for signed in (None, True, False):
        figure = overlay(IMAGES, np.zeros_like(IMAGES), signed=signed)
    figure.canvas.draw()
    assert not recwarn.list


def test_channels_are_added_up():
    maps = RANDOM.normal(size=(3, 28, 28, 2))
    np.testing.assert_allclose(drawn(overlay(IMAGES, maps)), drawn(overlay(IMAGES, maps.sum(axis=3))), atol=1e-5)


def test_images_stand_beside_their_maps():
    figure = overlay(IMAGES, RANDOM.random((3, 28, 28)), names=["shirt", "bag", "boot"], note="gradient")
    assert [text.get_text() for text in figure.axes[0].texts] == ["shirt", "", "bag", "", "boot", ""]
    assert "99th percentile" in figure.get_supxlabel()
    assert figure.get_supxlabel().startswith("gradient")
    header = drawn(figure).shape[0] - 56
    np.testing.assert_allclose(drawn(figure)[header : header + 56 : 2, :56:2], IMAGES[0].repeat(3, axis=2), atol=1e-6)


def test_methods_are_columns_each_with_its_kind_of_scale():
    maps = {"gradient": RANDOM.normal(size=IMAGES.shape), "occlusion": RANDOM.random((3, 28, 28))}
    figure = overlay(IMAGES, maps, names=["a", "b", "c"])
    axes, *bars = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["input", *maps]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    labels = [[label.get_text() for label in bar.get_yticklabels()] for bar in bars]
    assert labels == [["0", "most"], ["against", "0", "for"]]
    assert len(overlay(IMAGES, maps, signed=True).axes) == 2


@pytest.mark.parametrize(
    ("maps", "names", "message"),
    [
        (np.zeros((3, 14, 14)), None, "do not fit"),
        (np.zeros((2, 28, 28)), None, "do not fit"),
        ({"gradient": np.zeros((28, 28))}, None, "of gradient"),
        ({}, None, "no maps"),
        (np.zeros((3, 28, 28)), ["a"], "one name an image"),
        ({"gradient": np.zeros((3, 28, 28))}, ["a"], "one name a row"),
    ],
)
def test_what_does_not_fit_is_told(maps, names, message):
    with pytest.raises(ValueError, match=message):
        overlay(IMAGES, maps, names=names)
