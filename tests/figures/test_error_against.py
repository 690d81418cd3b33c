import numpy as np
import pytest

from capsnet_jax.figures import error_against, learning_curves
from capsnet_jax.statistics import mean_interval
from tests.figures.synthetic import fake_record

ERRORS = {1: [0.9, 0.8, 1.0], 3: [0.5, 0.7, 0.6]}


def sweep(**settings):
    return [
        fake_record(seed, routing__iterations=r, test_error=error, **settings)
        for r, errors in ERRORS.items()
        for seed, error in enumerate(errors)
    ]


def marks(axes):
    """[(position, mean)] of the means, in the order drawn."""
    return [container.lines[0].get_xydata()[0].tolist() for container in axes.containers]


def bars(axes):
    """[lower end, upper end] of each mean's bar."""
    return [segment[:, 1].tolist() for c in axes.containers for line in c.lines[2] for segment in line.get_segments()]


def dots(axes):
    return [line for line in axes.lines if line.get_alpha() == 0.45]


def test_it_draws_every_seed_the_mean_and_the_interval():
    (axes,) = error_against(sweep(), "routing.iterations", level=0.9).axes
    np.testing.assert_array_equal([line.get_ydata() for line in dots(axes)], list(ERRORS.values()))
    estimates = [mean_interval(values, 0.9) for values in ERRORS.values()]
    np.testing.assert_allclose(marks(axes), [[place, e.mean] for place, e in enumerate(estimates)])
    np.testing.assert_allclose(bars(axes), [[e.mean - e.half_width, e.mean + e.half_width] for e in estimates])


def test_it_shows_all_it_draws():
    (axes,) = error_against(sweep(), "routing.iterations").axes
    low, high = axes.get_ylim()
    assert low < np.min(bars(axes)) < np.max(bars(axes)) < high
    assert axes.get_xlim()[0] < 0 < 1 < axes.get_xlim()[1]
    assert list(axes.get_xticks()) == [0, 1]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "3"]


def test_a_wide_interval_of_an_error_ends_at_zero_in_an_arrow_and_is_said():
    pairs = [fake_record(seed, routing__iterations=r, test_error=1.0 + seed) for r in (1, 3) for seed in range(2)]
    diverged = fake_record(2, routing__iterations=3, test_error=np.nan)
    figure = error_against([*pairs, diverged], "routing.iterations")
    (axes,) = figure.axes
    estimate = mean_interval([1.0, 2.0])
    np.testing.assert_allclose(bars(axes), [[0, 1.5 + estimate.half_width]] * 2)  # 1.5 ± 6.35
    assert axes.get_ylim()[0] == 0
    arrows = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "v"]
    assert arrows == [[[0, 0]], [[1, 0]]]
    assert "intervals are cut at 0 and 100 %" in figure.get_supxlabel().replace("\n", " ")
    assert "cut" not in error_against(sweep(), "routing.iterations").get_supxlabel()


def test_no_mark_hides_another_and_each_stands_nearest_to_its_own_value():
    records = [r for rate in range(9) for r in sweep(train__warmup=rate)]
    (axes,) = error_against(records, "routing.iterations", by=["train.warmup"]).axes
    positions = np.sort([x for x, _ in marks(axes)])
    assert np.diff(positions).min() > 0.05
    assert np.abs(positions - np.round(positions)).max() < 0.5
    assert all(np.abs(line.get_xdata() - np.round(line.get_xdata())).max() < 0.5 for line in dots(axes))


def test_equal_seeds_stand_side_by_side():
    errors = [0.5, 0.5, 0.7, 0.5]
    records = [fake_record(seed, routing__iterations=1, test_error=error) for seed, error in enumerate(errors)]
    (line,) = dots(error_against(records, "routing.iterations").axes[0])
    assert len(set(map(tuple, line.get_xydata().tolist()))) == 4
    assert line.get_ydata().tolist() == errors


def test_an_arm_has_the_colour_that_it_has_in_other_figures():
    records = sweep(routing__gradient="full") + sweep(routing__gradient="stop")
    both = error_against(records, "routing.iterations", by=["routing.gradient"]).axes[0]
    (curves, _) = learning_curves(records, ["routing.iterations", "routing.gradient"]).axes
    colours = {line.get_label(): line.get_color() for line in curves.lines}
    names = ["r = 1, full gradient", "r = 3, full gradient", "r = 1, inner gradient stopped"]
    names += ["r = 3, inner gradient stopped"]
    drawn = [container.lines[0].get_color() for container in both.containers]
    assert drawn == [colours[f"{name} (n = 3)"] for name in names]
    assert len(set(drawn)) == 4


def test_no_finite_value_is_said():
    records = [fake_record(seed, routing__iterations=r, test_error=np.nan) for r in (1, 3) for seed in range(2)]
    figure = error_against(records, "routing.iterations")
    assert [text.get_text() for text in figure.axes[0].texts] == ["no finite test error"]
    assert "4 of 4 runs left out" in figure.get_supxlabel().replace("\n", " ")
    assert "one seed" not in figure.get_supxlabel().replace("dot: one seed", "")


def test_labels():
    records = sweep() + sweep(data__dataset="fashion_mnist")
    figure = error_against(records, "routing.iterations")
    assert [axes.get_title() for axes in figure.axes] == ["MNIST", "Fashion-MNIST"]
    assert {axes.get_xlabel() for axes in figure.axes} == {"routing iterations r"}
    assert {axes.get_ylabel() for axes in figure.axes} == {"test error [%]"}
    assert not figure.legends
    assert figure.get_supxlabel().startswith("MNIST, Fashion-MNIST; dot: one seed; diamond: mean of n = 3 seeds")


def test_it_draws_a_series_for_each_setting():
    records = sweep(routing__gradient="full") + sweep(routing__gradient="stop")
    figure = error_against(records, "routing.iterations", by=["routing.gradient"])
    assert len(figure.axes[0].containers) == 4
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["full gradient", "inner gradient stopped"]
    with pytest.raises(ValueError, match=r"differ in routing\.gradient"):
        error_against(records, "routing.iterations")


@pytest.mark.parametrize(("count", "panels"), [(1, 1), (2, 2), (4, 4), (5, 5)])
def test_it_has_a_panel_a_data_set(count, panels):
    records = [record for i in range(count) for record in sweep(data__dataset=f"set{i}")]
    assert len(error_against(records, "routing.iterations").axes) == panels


@pytest.mark.parametrize(("values", "said"), [((1, 2, 3), False), ((0, 0.0005, 0.005), True), ((7,), False)])
def test_values_stand_at_equal_distances_and_it_is_said_where_it_matters(values, said):
    figure = error_against([fake_record(train__learning_rate=value) for value in values], "train.learning_rate")
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == [f"{value:g}" for value in values]
    assert ("equal distances" in figure.get_supxlabel().replace("\n", " ")) == said


def test_a_hundred_values_have_some_upright_ticks():
    (axes,) = error_against([fake_record(train__warmup=value) for value in range(100)], "train.warmup").axes
    labels = axes.get_xticklabels()
    assert [tick.get_text() for tick in labels] == [str(value) for value in range(0, 100, 2)]
    assert {tick.get_rotation() for tick in labels} == {90}


@pytest.mark.parametrize("value", ["dynamic", True, None])
def test_it_refuses_what_is_no_number(value):
    with pytest.raises(ValueError, match=r"not a number: error_by_setting"):
        error_against([fake_record(model__x=value)], "model.x")


def test_it_other_quantities():
    (axes,) = error_against(sweep(), "routing.iterations", quantity="images_per_second").axes
    assert axes.get_ylabel() == "throughput [images / s]"
    np.testing.assert_allclose([mean for _, mean in marks(axes)], [20_000, 20_000 / 3])


def test_diverged_runs_are_left_out_and_said_so():
    records = sweep()
    records[0].result["test_error"] = np.nan
    text = error_against(records, "routing.iterations").get_supxlabel().replace("\n", " ")
    assert "mean of n = 2 to 3 seeds" in text
    assert "1 of 6 runs left out: no finite value" in text


def test_one_seed_has_no_bar():
    (axes,) = error_against([fake_record(train__epochs=3)], "train.epochs").axes
    assert not axes.containers[0].has_yerr


def test_no_records():
    with pytest.raises(ValueError, match="no records to draw"):
        error_against([], "routing.iterations")
