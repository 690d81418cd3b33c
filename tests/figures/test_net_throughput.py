import numpy as np
import pytest

from capsnet_jax.figures import speed_ratios
from tests.bench import rows


def test_marks_are_at_the_medians_and_bars_reach_from_least_to_greatest():
    figure = speed_ratios(rows.net("resnet50") + rows.net("alexnet_single", scale=0.5))
    training, inference = figure.axes
    assert [axes.get_xlabel().split(":")[0] for axes in figure.axes] == ["training", "inference"]
    assert [label.get_text() for label in training.get_yticklabels()] == ["alexnet_single", "resnet50"]
    for axes in (training, inference):
        own, last = axes.containers
        for container, middle, bars in (
            (own, [1.0, 2.0], [[1.0, 1.375], [2.0, 2.75]]),
            (last, [1.2, 2.4], [[0.6875, 1.25], [1.375, 2.5]]),
        ):
            points, _, (reach,) = container.lines
            np.testing.assert_allclose(np.asarray(points.get_xdata(), float), middle)
            assert [round(y) for y in points.get_ydata()] == [0, 1]
            np.testing.assert_allclose([segment[:, 0] for segment in reach.get_segments()], bars)
        assert [text.get_text() for text in axes.texts] == ["1.00", "2.00"]  # of the layout that was faster
        assert axes.get_xscale() == "log"


def test_the_caption_tells_sizes_and_rounds():
    text = speed_ratios(rows.net()).get_supxlabel().replace("\n", " ")
    assert text.startswith("224×224×3 images, batch 8; in turns, median of n = 3 rounds")


def test_a_phase_or_a_layout_that_was_not_measured_is_not_drawn():
    found = [r for r in rows.net() if r.quantity == "inference" and r.subject != "torchvision"]
    [axes] = speed_ratios(found).axes
    assert axes.get_xlabel().startswith("inference")
    assert [text.get_text() for text in axes.texts] == ["2.40"]


def test_nothing_to_draw():
    for found in ([], [row for row in rows.net() if row.subject == "capsnet_jax"]):
        with pytest.raises(ValueError, match="no row"):
            speed_ratios(found)
