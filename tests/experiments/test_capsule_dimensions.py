import numpy as np
import pytest

from experiments.capsule_dimensions import dimension_grid


def test_rows_are_dimensions_and_columns_offsets():
    moved = np.random.default_rng(0).uniform(size=(3, 5, 6, 7, 1))
    figure = dimension_grid(moved, np.linspace(-0.1, 0.1, 5), row_names=["a", "b", "c"], note="MNIST")
    [axes] = figure.axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["−0.10", "−0.05", "+0.00", "+0.05", "+0.10"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b", "c"]
    [mosaic] = [np.asarray(image.get_array()) for image in axes.images]
    for (row, column), _ in np.ndenumerate(np.zeros((3, 5))):
        top, left = 8 * row, 9 * column  # two white pixels between 6×7 pictures
        np.testing.assert_array_equal(mosaic[top : top + 6, left : left + 7], moved[row, column, :, :, 0])
        assert abs(axes.get_xticks()[column] - left - 3.5) < 1e-9
    assert figure.get_supxlabel().startswith("MNIST; ")


def test_names_and_offsets_must_fit():
    with pytest.raises(ValueError, match="need 2 names and 3 offsets, got 1 and 3"):
        dimension_grid(np.zeros((2, 3, 4, 4, 1)), np.zeros(3), row_names=["a"])
