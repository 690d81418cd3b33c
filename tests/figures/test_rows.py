import numpy as np
import pytest
from matplotlib.figure import Figure

from capsnet_jax.figures.rows import Row, draw_rows


def rows(*means, spread=0.1):
    return [Row(f"arm {i}", [m - spread, m + spread], m, 2 * spread, f"{m}", "black") for i, m in enumerate(means)]


def panel(lines, **more):
    axes = Figure().subplots()
    return axes, draw_rows(axes, lines, **more)


@pytest.mark.parametrize(("means", "sign"), [((1.0, 90.0, 2.0), 1), ((50.0, 51.0, 3.0), -1)])
def test_a_row_far_from_all_others_is_left_off_the_axis_with_an_arrow(means, sign):
    axes, beyond = panel(rows(*means))
    assert beyond
    place = means.index(90.0 if sign > 0 else 3.0)
    others = [mean for mean in means if mean != means[place]]
    low, high = axes.get_xlim()
    # The others' intervals, and 6 % of their width more.
    width = max(others) - min(others) + 0.4
    np.testing.assert_allclose((low, high), (min(others) - 0.2 - 0.06 * width, max(others) + 0.2 + 0.06 * width))
    arrow = axes.lines[-1]
    assert (arrow.get_marker(), arrow.get_ydata()[0]) == (">" if sign > 0 else "<", place)
    assert [text.get_text() for text in axes.texts] == [str(mean) for mean in means]


@pytest.mark.parametrize("means", [(1.0, 2.0, 4.0), (1.0, 90.0), (1.0, 2.0, 90.0, 80.0)])
def test_all_are_shown_where_none_is_alone(means):
    """Two are not more than one another, and two that are far away together keep the axis long."""
    axes, beyond = panel(rows(*means))
    assert not beyond
    low, high = axes.get_xlim()
    assert low < min(means) - 0.2
    assert high > max(means) + 0.2


def test_the_origin_is_shown_and_counts():
    axes, beyond = panel(rows(-1.0, -1.1, 80.0), origin=0)
    assert beyond
    assert axes.get_xlim()[1] == pytest.approx(0 + 0.06 * 1.3)
    assert [0, 0] in [list(line.get_xdata()) for line in axes.lines]
    near, beyond = panel(rows(20.0, 20.1, 100.0), origin=0)
    assert not beyond
    assert near.get_xlim()[0] <= 0


def test_what_is_not_finite_has_no_place():
    lines = [*rows(1.0, 2.0, 90.0), Row("none", [np.nan], np.nan, np.nan, "no finite value", "black")]
    axes, beyond = panel(lines)
    assert beyond
    assert axes.get_xlim()[1] < 3
