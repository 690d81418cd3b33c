import itertools
import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from capsnet_jax.figures import error_by_setting, paired_differences
from capsnet_jax.figures.forest import Row, forest_plot, has_pairs
from capsnet_jax.statistics import mean_interval
from tests.figures.synthetic import fake_record

ERRORS = {1: [0.9, 0.8, 1.0], 3: [0.5, 0.7, 0.6]}


def rows(*means, spread=0.1):
    return [Row(f"arm {i}", [m - spread, m + spread], m, 2 * spread, f"{m}", "black") for i, m in enumerate(means)]


def panel(lines, **more):
    axes = Figure().subplots()
    return axes, forest_plot(axes, lines, **more)


@pytest.mark.parametrize(("means", "sign"), [((1.0, 90.0, 2.0), 1), ((50.0, 51.0, 3.0), -1)])
def test_a_row_far_from_all_others_is_left_off_the_axis_with_an_arrow(means, sign):
    axes, beyond = panel(rows(*means))
    assert beyond
    position = means.index(90.0 if sign > 0 else 3.0)
    others = [mean for mean in means if mean != means[position]]
    low, high = axes.get_xlim()
    # The others' intervals, and 6 % of their width more.
    width = max(others) - min(others) + 0.4
    np.testing.assert_allclose((low, high), (min(others) - 0.2 - 0.06 * width, max(others) + 0.2 + 0.06 * width))
    arrow = axes.lines[-1]
    assert (arrow.get_marker(), arrow.get_ydata()[0]) == (">" if sign > 0 else "<", position)
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


def test_error_by_setting_rows():
    records = [
        fake_record(seed, routing__name=name, test_error=error)
        for name, errors in (("static", ERRORS[1]), ("dynamic", ERRORS[3]))
        for seed, error in enumerate(errors)
    ]
    (axes,) = error_by_setting(records, ["routing.name"]).axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["static routing", "dynamic routing"]
    assert axes.yaxis_inverted()
    assert [text.get_text() for text in axes.texts] == ["0.90 ± 0.25 (n = 3)", "0.60 ± 0.25 (n = 3)"]
    for row, (container, values) in enumerate(zip(axes.containers, ERRORS.values(), strict=True)):
        estimate = mean_interval(values)
        assert container.lines[0].get_xydata().tolist() == [[pytest.approx(estimate.mean), row]]
        ends = np.array(container.lines[2][0].get_segments()[0])[:, 0]
        expected = [estimate.mean - estimate.half_width, estimate.mean + estimate.half_width]
        np.testing.assert_allclose(ends, expected)
    dots = [line for line in axes.lines if line.get_alpha() == 0.45]
    np.testing.assert_array_equal([line.get_xdata() for line in dots], list(ERRORS.values()))
    assert axes.get_xlabel() == "test error [%]"


def test_one_seed_has_no_bar():
    record = fake_record(test_error=0.5)
    (axes,) = error_by_setting([record], ["routing.name"]).axes
    assert axes.texts[0].get_text() == "0.50 (n = 1)"
    assert not axes.containers[0].has_xerr


def test_a_setting_without_any_finite_value_keeps_its_row():
    (axes,) = error_by_setting([fake_record(test_error=np.nan)], ["routing.name"]).axes
    assert axes.texts[0].get_text() == "no finite value (n = 0)"


def test_left_out_runs_are_said():
    records = [
        fake_record(seed, routing__iterations=r, test_error=e) for r, es in ERRORS.items() for seed, e in enumerate(es)
    ]
    records[0].result["test_error"] = np.nan
    text = error_by_setting(records, ["routing.iterations"]).get_supxlabel().replace("\n", " ")
    assert "mean of n = 2 to 3 seeds" in text
    assert "1 of 6 runs left out: no finite value" in text
    with pytest.raises(ValueError, match="no records to draw"):
        error_by_setting([], ["routing.name"])


def ends(container):
    """Of a mean's bar."""
    [segment] = container.lines[2][0].get_segments()
    return segment[:, 0].tolist()


def test_intervals_end_at_what_is_possible():
    low = [fake_record(seed, routing__name="low", test_error=0.5 + seed) for seed in range(2)]
    high = [fake_record(seed, routing__name="high", test_error=99 - seed) for seed in range(2)]
    (axes,) = error_by_setting(low + high, ["routing.name"]).axes
    # Two seeds that differ by 1: the half width is 6.35.
    np.testing.assert_allclose([ends(c) for c in axes.containers], [[0, 7.3531], [92.1469, 100]], atol=1e-4)
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["1.00 [0.00, 7.35] (n = 2)", "98.50 [92.15, 100.00] (n = 2)"]
    arrows = {line.get_marker(): line.get_xydata().tolist() for line in axes.lines if line.get_marker() in "<>"}
    assert arrows == {"<": [[0, 0]], ">": [[100, 1]]}
    assert "intervals are cut at 0 and 100 %" in axes.figure.get_supxlabel().replace("\n", " ")
    (axes,) = paired_differences(low + high, ["routing.name"]).axes
    np.testing.assert_allclose(ends(axes.containers[0]), [97.5 - 12.7062, 100], atol=1e-4)
    assert axes.texts[0].get_text().startswith("+97.50 [84.79, 100.00]\n(p = ")
    assert "intervals are cut at −100 and 100 %" in axes.figure.get_supxlabel().replace("\n", " ")


def test_a_setting_has_one_colour_in_every_panel_and_in_both_figures():
    records = [
        fake_record(0, routing__iterations=r, data__dataset=dataset, test_error=float(r))
        for dataset, iterations in (("mnist", (1, 2, 3)), ("kmnist", (1, 3)))
        for r in iterations
    ]
    colours = {}
    for draw in (error_by_setting, paired_differences):
        for axes in draw(records, ["routing.iterations"]).axes:
            names = [tick.get_text() for tick in axes.get_yticklabels()]
            for name, container in zip(names, axes.containers, strict=True):
                colours.setdefault(name, set()).add(container.lines[0].get_color())
    assert {name: len(found) for name, found in colours.items()} == {"r = 1": 1, "r = 2": 1, "r = 3": 1}
    assert len(set.union(*colours.values())) == 3


def arm(r, errors, dataset="mnist"):
    return [fake_record(seed, 2, 1.0, e, routing__iterations=r, data__dataset=dataset) for seed, e in errors.items()]


def test_differences_are_of_the_same_seed():
    first, third, fifth = {0: 1.0, 1: 2.0, 2: 4.0}, {2: 3.5, 1: 1.0}, {9: 1.0}
    figure = paired_differences([*arm(1, first), *arm(3, third), *arm(5, fifth)], ["routing.iterations"])
    [axes] = figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["r = 3"]  # no seed of the other is the first's
    dots = axes.lines[0]
    np.testing.assert_allclose(sorted(dots.get_xdata()), [-1.0, -0.5])
    # Differences -1 and -0.5: mean -0.75, t(0.975; 1) = 12.7062, so ± 3.18.
    assert axes.texts[0].get_text() == "−0.75 ± 3.18\n(p = 0.2, n = 2)"
    assert axes.get_xlabel() == "test error [%], less that of: r = 1"
    assert "1 runs without a partner of the same seed" in figure.get_supxlabel().replace("\n", " ")


def test_a_panel_for_each_data_set():
    records = arm(1, {0: 1.0}) + arm(3, {0: 2.0}) + arm(1, {0: 9.0}, "kmnist") + arm(3, {0: 8.5}, "kmnist")
    figure = paired_differences(records, ["routing.iterations"])
    assert [axes.get_title() for axes in figure.axes] == ["MNIST", "KMNIST"]
    assert "one seed has no interval" in figure.get_supxlabel()
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["+1.00 (n = 1)", "−0.50 (n = 1)"]


def test_every_panel_is_against_the_same_arm_and_what_is_not_finite_is_left_out():
    records = arm(1, {0: 1.0, 1: 2.0}) + arm(3, {0: 2.0, 1: math.nan}) + arm(3, {0: 9.0}, "kmnist")
    records += arm(5, {0: 8.5}, "kmnist")
    figure = paired_differences(records, ["routing.iterations"])
    assert [axes.get_title() for axes in figure.axes] == ["MNIST"]  # the other has no r = 1
    assert figure.axes[0].texts[0].get_text() == "+1.00 (n = 1)"
    assert "3 runs without a partner" in figure.get_supxlabel().replace("\n", " ")


def test_the_arm_to_compare_with_can_be_named():
    records = arm(1, {0: 1.0}) + arm(3, {0: 3.0}) + arm(5, {0: 4.0})
    [axes] = paired_differences(records, ["routing.iterations"], baseline={"routing.iterations": 3, "other": 0}).axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["r = 1", "r = 5"]
    assert [text.get_text() for text in axes.texts] == ["−2.00 (n = 1)", "+1.00 (n = 1)"]
    assert axes.get_xlabel() == "test error [%], less that of: r = 3"
    [axes] = paired_differences(records, ["routing.iterations"], baseline={"routing.iterations": 9}).axes
    assert axes.get_xlabel() == "test error [%], less that of: r = 1"


def test_no_seed_is_shared():
    with pytest.raises(ValueError, match="no arm shares a seed with r = 1"):
        paired_differences(arm(1, {0: 1.0}) + arm(3, {1: 1.0}), ["routing.iterations"])


def test_equal_seeds_lie_under_each_other_within_their_row():
    for count in (3, 60):
        row = Row("arm", [0.5] * count + [0.7], 0.5, 0.1, "", "black")
        axes, _ = panel([row])
        places = axes.lines[0].get_ydata()
        assert len(set(places)) == count
        assert places[-1] == places[0]
        assert max(places) < 0.5
        assert list(axes.lines[0].get_xdata()) == row.values


def test_without_the_baseline_the_first_arm_stands_for_it_and_it_is_said():
    records = arm(1, {0: 1.0}) + arm(3, {0: 2.0})
    told = paired_differences(records, ["routing.iterations"], baseline={"routing.iterations": 5}).get_supxlabel()
    assert "no run of the baseline, so that of the first arm is subtracted" in told.replace("\n", " ")
    told = paired_differences(records, ["routing.iterations"], baseline={"routing.iterations": 3}).get_supxlabel()
    assert "no run of the baseline" not in told.replace("\n", " ")


def test_what_has_pairs():
    assert has_pairs(arm(1, {0: 1.0}) + arm(3, {0: 2.0}), ["routing.iterations"], {})
    assert not has_pairs(arm(1, {0: 1.0}) + arm(3, {1: 2.0}), ["routing.iterations"], {})
    assert not has_pairs(arm(1, {0: 1.0}) + arm(1, {0: 2.0}, "kmnist"), ["routing.iterations"], {})
    assert not has_pairs(arm(1, {0: math.nan}) + arm(3, {0: 2.0}), ["routing.iterations"], {})


def test_of_a_hundred_arms_forty_are_drawn_and_the_baseline_is_never_lost():
    records = [fake_record(train__warmup=number, test_error=1.0 + number) for number in range(100)]
    for record in records:
        record.result["validation_error"] = 100.0 - record.settings["train.warmup"]
    figure = error_by_setting(records, ["train.warmup"])
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == [f"warmup = {n}" for n in range(60, 100)]
    assert "40 of 100 settings are drawn" in figure.get_supxlabel().replace("\n", " ")
    paired = paired_differences(records, ["train.warmup"], baseline={"train.warmup": 0})
    assert paired.axes[0].texts[-1].get_text() == "+99.00 (n = 1)"


def test_long_names_do_not_lie_over_each_other():
    settings = {"data__validation_fraction": 0.1, "data__max_shift": 2, "model__weight_scale": 0.02}
    records = [fake_record(routing__temperature=t, **settings) for t in (0.25, 0.5, 1.0)]
    by = ["routing.temperature", *(path.replace("__", ".") for path in settings)]
    figure = error_by_setting(records, by)
    figure.draw_without_rendering()
    boxes = [tick.get_window_extent() for tick in figure.axes[0].get_yticklabels()]
    assert all(above.y0 >= below.y1 for above, below in itertools.pairwise(boxes))
