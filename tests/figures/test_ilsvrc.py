import pytest

from capsnet_jax.figures import error_against_cost, ilsvrc_winners

ROWS = [
    {"model": "vgg_d", "top5_error": 9.62, "parameters": 138_357_544, "flops": 30_940_000_000},
    {"model": "vgg_a", "top5_error": 11.37, "parameters": 132_863_336, "flops": 15_220_000_000},
    {"model": "googlenet_bn", "top5_error": 10.47, "parameters": 6_624_904, "flops": 3_000_000_000},
]


def test_every_year_has_its_error_and_depth():
    [axes] = ilsvrc_winners().axes
    assert [bar.get_height() for bar in axes.patches] == [28.2, 25.8, 16.4, 11.7, 7.3, 6.7, 3.57, 2.99, 2.25]
    words = [text.get_text() for text in axes.texts]
    assert "3.57\n152 layers" in words
    assert "a person: 5.1" in words


def test_errors_stand_over_millions_and_gigaflops():
    figure = error_against_cost(ROWS)
    parameters, computing = figure.axes
    [vgg] = [line for line in parameters.lines if line.get_label() == "VGG"]
    assert list(vgg.get_xdata()) == pytest.approx([132.863336, 138.357544])  # in order, whatever order they came in
    assert list(vgg.get_ydata()) == [11.37, 9.62]
    [google] = [line for line in computing.lines if line.get_label() == "GoogLeNet"]
    assert list(google.get_xdata()) == pytest.approx([3.0])
    with pytest.raises(ValueError, match="no networks"):
        error_against_cost([])
