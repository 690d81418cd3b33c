import numpy as np
import pytest

from capsnet_jax.figures import tile_grid
from capsnet_jax.figures.tiles import near_square

RANDOM = np.random.default_rng(0)


def mosaic(figure):
    return np.asarray(figure.axes[0].images[0].get_array())


def tiles_of(picture, count, side, columns):
    """Cut tiles out of a mosaic without names: the gap is what is left of the picture's width."""
    gap = (picture.shape[1] - columns * side) // max(1, columns - 1)
    starts = [divmod(i, columns) for i in range(count)]
    return np.stack([picture[r * (side + gap) :, c * (side + gap) :][:side, :side] for r, c in starts])


def test_one_scale_for_all_channels():
    maps = RANDOM.normal(size=(6, 16, 16))
    figure = tile_grid(maps, note="conv1")
    tiles = tiles_of(mosaic(figure), 6, 48, 3)
    expected = (maps - maps.min()) / (maps.max() - maps.min())
    np.testing.assert_allclose(tiles, expected.repeat(3, axis=1).repeat(3, axis=2), atol=1e-6)
    limits = f"black {maps.min():.3g} … white {maps.max():.3g}, one scale"
    assert figure.get_supxlabel().startswith(f"conv1; {limits}")


def test_a_scale_of_its_own_for_each():
    maps = np.stack([np.full((48, 48), 3.0), 5 + RANDOM.random((48, 48))])
    tiles = tiles_of(mosaic(tile_grid(maps, scale="own")), 2, 48, 2)
    assert not tiles[0].any()  # a constant is black, and nothing is divided by 0
    assert (tiles[1].min(), tiles[1].max()) == (0, 1)


def test_a_symmetric_scale_is_white_at_0():
    weights = np.zeros((3, 1, 48))
    weights[:, 0, 1], weights[1, 0, 2] = [0.25, -0.5, 0.5], 0.125
    figure = tile_grid(weights.reshape(3, 1, 48).repeat(48, axis=1), scale="symmetric")
    tiles = tiles_of(mosaic(figure), 3, 48, 3)
    assert tiles[0, 0, 0].min() > 0.96  # white
    red, blue = tiles[2, 0, 1], tiles[1, 0, 1]
    assert red[0] > red[2] + 0.2
    assert blue[2] > blue[0] + 0.2
    assert mosaic(figure)[0, 48].max() < 0.7  # the gap is not white too
    bar = figure.axes[1]
    np.testing.assert_allclose(bar.get_ylim(), (-0.5, 0.5))
    colours = mosaic(tile_grid(weights[:, :, :3, None].repeat(3, axis=3), scale="symmetric"))
    assert colours[0, 0] == pytest.approx([0.5] * 3)


def test_colours_and_bytes_are_kept_as_pixels():
    photos = RANDOM.integers(0, 256, (2, 50, 50, 3), dtype=np.uint8)
    figure = tile_grid(photos, scale="pixels", note="photos")
    np.testing.assert_allclose(tiles_of(mosaic(figure), 2, 50, 2), photos / 255, atol=1e-6)
    assert figure.get_supxlabel() == "photos"


def test_sizes_that_differ_are_enlarged_to_the_largest():
    small, large = RANDOM.random((24, 24)), RANDOM.random((48, 48, 3))
    tiles = tiles_of(mosaic(tile_grid([small, large], scale="pixels")), 2, 48, 2)
    np.testing.assert_allclose(tiles[0], np.kron(small, np.ones((2, 2)))[..., None].repeat(3, axis=2), atol=1e-6)


@pytest.mark.parametrize(
    ("count", "columns"), [(1, 1), (2, 2), (3, 3), (7, 4), (10, 5), (32, 8), (64, 8), (96, 12), (128, 16), (512, 32)]
)
def test_grids_are_nearly_square_and_no_higher_than_wide(count, columns):
    assert near_square(count) == columns


def test_names():
    figure = tile_grid(
        RANDOM.random((6, 9, 9)), names=list("abcdef"), row_names=["first", "second"], column_names=[1, 2, 3]
    )
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == list("abcdef")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["first", "second"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "3"]
    heights = [text.get_position()[1] for text in axes.texts]
    assert mosaic(figure)[: int(heights[0]), :].min() == 1  # there is nothing behind a name
    assert not tile_grid(RANDOM.random((61, 3, 3)), names=[""] * 61).axes[0].texts


def test_what_is_not_finite_is_drawn(recwarn):
    maps = np.stack([np.array([[np.nan, np.inf], [0, 1]])] * 2)
    assert np.isfinite(mosaic(tile_grid(maps))).all()
    assert not recwarn.list


@pytest.mark.parametrize(
    ("tiles", "settings", "message"),
    [
        (np.zeros((0, 3, 3)), {}, "no tiles"),
        (np.zeros((2, 2, 3, 3, 2)), {}, "need tiles of shape"),
        (np.zeros((3, 3)), {}, "need tiles of shape"),
        (np.zeros((2, 3, 3)), {"names": ["a"]}, "one name a tile, got 1 for 2"),
        (np.zeros((2, 3, 3)), {"columns": 1, "row_names": ["a"]}, "one name a row, got 1 for 2"),
        (np.zeros((2, 3, 3)), {"scale": "same"}, "scale is one of shared"),
    ],
)
def test_what_does_not_fit_is_told(tiles, settings, message):
    with pytest.raises(ValueError, match=message):
        tile_grid(tiles, **settings)
