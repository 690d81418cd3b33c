import numpy as np
import pytest

from capsnet_jax.figures import error_against
from capsnet_jax.statistics import mean_interval
from tests.figures.synthetic import fake_record

ERRORS = {1: [0.9, 0.8, 1.0], 3: [0.5, 0.7, 0.6]}


def sweep(**settings):
    return [
        fake_record(seed, routing__iterations=r, test_error=error, **settings)
        for r, errors in ERRORS.items()
        for seed, error in enumerate(errors)
    ]


def vertical_bars(container):
    return [np.array(segment)[:, 1] for segment in container.lines[2][0].get_segments()]


def test_it_draws_every_seed_the_mean_and_the_interval():
    (axes,) = error_against(sweep(), "routing.iterations", level=0.9).axes
    dots = axes.lines[0]
    np.testing.assert_array_equal(dots.get_xdata(), [1, 1, 1, 3, 3, 3])
    np.testing.assert_array_equal(dots.get_ydata(), [*ERRORS[1], *ERRORS[3]])
    (container,) = axes.containers
    np.testing.assert_array_equal(container.lines[0].get_xdata(), [1, 3])
    estimates = [mean_interval(values, 0.9) for values in ERRORS.values()]
    np.testing.assert_allclose(container.lines[0].get_ydata(), [estimate.mean for estimate in estimates])
    expected = [[e.mean - e.half_width, e.mean + e.half_width] for e in estimates]
    np.testing.assert_allclose(vertical_bars(container), expected)


def test_it_shows_all_it_draws():
    (axes,) = error_against(sweep(), "routing.iterations").axes
    low, high = axes.get_ylim()
    bars = np.array(vertical_bars(axes.containers[0]))
    assert low < bars.min() < bars.max() < high
    assert axes.get_xlim()[0] < 1 < 3 < axes.get_xlim()[1]
    assert list(axes.get_xticks()) == [1, 3]


def test_a_wide_interval_of_an_error_ends_at_zero():
    pairs = [fake_record(seed, routing__iterations=r, test_error=1.0 + seed) for r in (1, 3) for seed in range(2)]
    diverged = fake_record(2, routing__iterations=3, test_error=np.nan)
    (axes,) = error_against([*pairs, diverged], "routing.iterations").axes
    bars = vertical_bars(axes.containers[0])
    estimate = mean_interval([1.0, 2.0])
    np.testing.assert_allclose(bars, [[0, 1.5 + estimate.half_width]] * 2)  # 1.5 ± 6.35
    assert axes.get_ylim()[0] == 0


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
    assert len(figure.axes[0].containers) == 2
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["full gradient", "inner gradient stopped"]
    with pytest.raises(ValueError, match=r"differ in routing\.gradient"):
        error_against(records, "routing.iterations")


@pytest.mark.parametrize(("count", "panels"), [(1, 1), (2, 2), (4, 4), (5, 5)])
def test_it_has_a_panel_a_data_set(count, panels):
    records = [record for i in range(count) for record in sweep(data__dataset=f"set{i}")]
    assert len(error_against(records, "routing.iterations").axes) == panels


@pytest.mark.parametrize(
    ("values", "scale"), [((1, 2, 5), "linear"), ((0.03, 0.1, 0.3), "log"), ((1e-4, 1e-3, 1e-1), "log")]
)
def test_it_spreads_values_of_many_magnitudes(values, scale):
    records = [fake_record(train__learning_rate=value) for value in values]
    (axes,) = error_against(records, "train.learning_rate").axes
    assert axes.get_xscale() == scale


@pytest.mark.parametrize("value", ["dynamic", True, None])
def test_it_refuses_what_is_no_number(value):
    with pytest.raises(ValueError, match=r"not a number: error_by_setting"):
        error_against([fake_record(model__x=value)], "model.x")


def test_it_other_quantities():
    (axes,) = error_against(sweep(), "routing.iterations", quantity="images_per_second").axes
    assert axes.get_ylabel() == "throughput [images / s]"
    np.testing.assert_allclose(axes.containers[0].lines[0].get_ydata(), [20_000, 20_000 / 3])


def test_diverged_runs_are_left_out_and_said_so():
    records = sweep()
    records[0].result["test_error"] = np.nan
    text = error_against(records, "routing.iterations").get_supxlabel().replace("\n", " ")
    assert "mean of n = 2 to 3 seeds" in text
    assert "1 of 6 runs left out: no finite value" in text


def test_one_seed_has_no_bar():
    (axes,) = error_against([fake_record(train__epochs=3)], "train.epochs").axes
    [bar] = axes.containers[0].lines[2][0].get_segments()
    assert len(bar) == 0


def test_no_records():
    with pytest.raises(ValueError, match="no records to draw"):
        error_against([], "routing.iterations")
