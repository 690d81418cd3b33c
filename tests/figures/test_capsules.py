import numpy as np
import pytest

from capsnet_jax.figures import couplings_over_image, dimension_grid


def pictures(axes):
    return [np.asarray(image.get_array()) for image in axes.images]


def test_rows_are_dimensions_and_columns_offsets():
    moved = np.random.default_rng(0).uniform(size=(3, 5, 6, 7, 1))
    figure = dimension_grid(moved, np.linspace(-0.1, 0.1, 5), row_names=["a", "b", "c"], note="MNIST")
    [axes] = figure.axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["−0.10", "−0.05", "+0.00", "+0.05", "+0.10"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b", "c"]
    [mosaic] = pictures(axes)
    for (row, column), _ in np.ndenumerate(np.zeros((3, 5))):
        top, left = 8 * row, 9 * column  # two white pixels between 6×7 pictures
        np.testing.assert_array_equal(mosaic[top : top + 6, left : left + 7], moved[row, column, :, :, 0])
        assert abs(axes.get_xticks()[column] - left - 3.5) < 1e-9
    assert figure.get_supxlabel().startswith("MNIST; ")


def test_names_and_offsets_must_fit():
    with pytest.raises(ValueError, match="need 2 names and 3 offsets, got 1 and 3"):
        dimension_grid(np.zeros((2, 3, 4, 4, 1)), np.zeros(3), row_names=["a"])


def test_lengths_and_names_must_fit():
    with pytest.raises(ValueError, match=r"need lengths \[2, 5\] and 5 names, got \(2, 4\) and 5"):
        couplings_over_image(
            np.zeros((9, 9, 1)), np.zeros((2, 3, 3, 5)), np.zeros((2, 4)), receptive=(2, 5), label_names=list("abcde")
        )


def test_the_longest_classes_shares_lie_at_the_centres_of_their_receptive_fields():
    shares = np.random.default_rng(0).uniform(size=(2, 6, 6, 5))
    lengths = np.array([[0.1, 0.2, 0.3, 0.4, 0.5], [0.5, 0.1, 0.9, 0.2, 0.7]])
    image = np.zeros((28, 28, 1))
    figure = couplings_over_image(image, shares, lengths, receptive=(2, 17), label_names=list("abcde"))
    panels = np.array(figure.axes).reshape(2, 4)
    assert [axes.get_title() for axes in panels[1, 1:]] == ["c: 0.90", "e: 0.70", "a: 0.50"]
    assert [axes.get_title() for axes in panels[0, 1:]] == ["c: 0.30", "e: 0.50", "a: 0.10"]
    for t in range(2):
        for axes, k in zip(panels[t, 1:], (2, 4, 0), strict=True):
            np.testing.assert_array_equal(pictures(axes)[1], shares[t, :, :, k])
            # Two 9×9 kernels, the second with stride 2: the first position sees pixels 0 to 16, its centre is 8.
            left, right, bottom, top = axes.images[1].get_extent()
            assert (left + 1, top + 1) == (8, 8)
            assert (right - 1, bottom - 1) == (18, 18)
