import numpy as np
import pytest

from capsnet_jax.figures import learning_curves
from capsnet_jax.figures.grouping import Arms
from capsnet_jax.statistics import mean_interval
from tests.figures.synthetic import fake_record


def runs(seeds=3, iterations=(1, 3), **settings):
    return [fake_record(s, routing__iterations=r, floor=0.5 + r, **settings) for r in iterations for s in range(seeds)]


def band(axes, index):
    """The lower and the upper edge of a band, by epoch."""
    vertices = axes.collections[index].get_paths()[0].vertices
    edges = {x: vertices[vertices[:, 0] == x, 1] for x in np.unique(vertices[:, 0])}
    return np.array([(y.min(), y.max()) for y in edges.values()]).T


def test_lines_are_means_and_bands_are_t_intervals():
    records = runs()
    figure = learning_curves(records, ["routing.iterations"], level=0.9)
    for axes, metric in zip(figure.axes, ("validation_error", "train_error"), strict=True):
        assert len(axes.lines) == len(axes.collections) == 2
        for index, members in enumerate((records[:3], records[3:])):
            values = np.array([record.metrics[metric] for record in members])
            estimates = [mean_interval(column, 0.9) for column in values.T]
            half = np.array([estimate.half_width for estimate in estimates])
            np.testing.assert_array_equal(axes.lines[index].get_xdata(), np.arange(1, 11))
            np.testing.assert_allclose(axes.lines[index].get_ydata(), values.mean(axis=0))
            np.testing.assert_allclose(band(axes, index), [values.mean(axis=0) - half, values.mean(axis=0) + half])


def test_labels():
    figure = learning_curves(runs(), ["routing.iterations"])
    assert [axes.get_ylabel() for axes in figure.axes] == ["validation error [%]", "training error [%]"]
    assert {axes.get_xlabel() for axes in figure.axes} == {"epoch"}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["r = 1 (n = 3)", "r = 3 (n = 3)"]
    assert figure.get_supxlabel() == "MNIST; line: mean of n = 3 seeds; band: 95% Student t interval of the mean"


def test_a_row_of_panels_a_data_set_and_one_colour_a_setting():
    records = runs() + runs(iterations=(3, 5), data__dataset="cifar10")
    figure = learning_curves(records, ["routing.iterations"])
    assert [axes.get_title() for axes in figure.axes] == ["MNIST", "MNIST", "CIFAR-10", "CIFAR-10"]
    colours = [[line.get_color() for line in axes.lines] for axes in figure.axes]
    assert colours[0][1] == colours[2][0]
    assert len({*colours[0], *colours[2]}) == len(figure.legends[0].get_texts()) == 3


def test_one_seed_has_a_line_and_no_band():
    figure = learning_curves(runs(seeds=1), ["routing.iterations"])
    assert not any(axes.collections for axes in figure.axes)
    assert "one seed has no interval" in figure.get_supxlabel()


@pytest.mark.parametrize(("last", "scale"), [(0.5, "linear"), (0.05, "log")])
def test_the_axis_is_logarithmic_beyond_a_decade(last, scale):
    record = fake_record(epochs=2)
    record.metrics["train_loss"] = np.array([1.0, last])
    (axes,) = learning_curves([record], ["routing.name"], metrics=["train_loss"]).axes
    assert axes.get_yscale() == scale
    assert axes.get_ylim()[0] < last < 1.0 < axes.get_ylim()[1]


def test_a_wide_band_does_not_pull_the_axis_below_zero():
    records = [fake_record(seed, epochs=2) for seed in range(2)]
    records[0].metrics["train_loss"] = np.array([1.0, 0.5])
    records[1].metrics["train_loss"] = np.array([1.5, 0.9])
    (axes,) = learning_curves(records, ["routing.name"], metrics=["train_loss"]).axes
    assert axes.get_ylim()[0] == 0


def test_different_lengths_and_broken_values():
    records = [fake_record(0, epochs=4), fake_record(1, epochs=6), fake_record(2, epochs=6)]
    records[2].metrics["train_error"][3:] = np.nan
    figure = learning_curves(records, ["routing.name"])
    values = [records[0].metrics["train_error"][3], records[1].metrics["train_error"][3]]
    assert figure.axes[1].lines[0].get_ydata()[3] == pytest.approx(np.mean(values))
    assert figure.axes[1].lines[0].get_ydata()[5] == pytest.approx(records[1].metrics["train_error"][5])
    assert "not finite are left out (1 of 3 runs)" in figure.get_supxlabel().replace("\n", " ")
    assert "over the seeds that reached its epoch" in figure.get_supxlabel().replace("\n", " ")


def test_data_sets_may_be_trained_for_different_numbers_of_epochs():
    records = [fake_record(0, epochs=4), fake_record(0, epochs=6, data__dataset="fashion_mnist")]
    figure = learning_curves(records, ["routing.name"])
    assert "reached its epoch" not in figure.get_supxlabel().replace("\n", " ")


def test_a_single_epoch_is_a_dot():
    figure = learning_curves([fake_record(epochs=1)], ["routing.name"])
    assert figure.axes[0].lines[0].get_marker() == "o"


def unknown(records, metric):
    for record in records:
        record.metrics[metric][:] = np.nan
    return records


def test_a_metric_that_no_run_has_has_no_panel_and_it_is_said():
    records = unknown(runs(data__validation_fraction=0.0), "validation_error")
    figure = learning_curves(records, ["routing.iterations"])
    assert [axes.get_ylabel() for axes in figure.axes] == ["training error [%]"]
    text = figure.get_supxlabel().replace("\n", " ")
    assert "no run has a validation error, as no image is held out" in text
    assert "not finite" not in text


def test_runs_that_lack_a_metric_have_no_line_there_and_it_is_said():
    records = runs()
    unknown(records[:3], "validation_error")
    figure = learning_curves(records, ["routing.iterations"])
    assert [len(axes.lines) for axes in figure.axes] == [1, 2]
    text = figure.get_supxlabel().replace("\n", " ")
    assert "3 of 6 runs have no validation error" in text
    assert "held out" not in text


def test_a_panel_without_a_line_says_so():
    records = runs(iterations=(1,)) + unknown(runs(iterations=(1,), data__dataset="kmnist"), "validation_error")
    figure = learning_curves(records, ["routing.iterations"])
    assert [[text.get_text() for text in axes.texts] for axes in figure.axes] == [
        [],
        [],
        ["no finite validation error"],
        [],
    ]
    nothing = unknown(unknown(runs(), "validation_error"), "train_error")
    figure = learning_curves(nothing, ["routing.iterations"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["no finite validation error"]
    assert not figure.legends
    with pytest.raises(ValueError, match="no record has the metric 'nonsense'"):
        learning_curves(runs(), ["routing.iterations"], metrics=["nonsense"])


@pytest.mark.parametrize("by", [["routing.name"], []])
def test_no_records(by):
    with pytest.raises(ValueError, match="no records to draw"):
        learning_curves([], by)


def test_a_band_of_errors_ends_at_zero():
    records = [fake_record(seed, epochs=2) for seed in range(2)]
    for record, error in zip(records, (1.0, 2.0), strict=True):
        record.metrics["train_error"] = np.array([error, error])
    figure = learning_curves(records, ["routing.name"], metrics=["train_error"])
    (axes,) = figure.axes
    assert "intervals are cut at 0 and 100 %" in figure.get_supxlabel().replace("\n", " ")
    # 1.5 ± 12.706 · 0.5
    np.testing.assert_allclose(band(axes, 0), [[0, 0], [7.8531, 7.8531]], atol=1e-4)


def test_some_of_the_runs_have_the_colours_that_they_have_among_all():
    everything = runs(iterations=(1, 2, 3))
    some = [record for record in everything if record.settings["routing.iterations"] != 2]
    colours = {
        line.get_label(): line.get_color() for line in learning_curves(everything, ["routing.iterations"]).axes[0].lines
    }
    drawn = learning_curves(some, ["routing.iterations"], arms=Arms(everything)).axes[0].lines
    assert [line.get_label() for line in drawn] == ["r = 1 (n = 3)", "r = 3 (n = 3)"]
    assert all(line.get_color() == colours[line.get_label()] for line in drawn)


def test_of_a_hundred_arms_as_many_are_drawn_as_can_be_told_apart():
    records = [fake_record(train__warmup=number, epochs=2) for number in range(100)]
    figure = learning_curves(records, ["train.warmup"])
    assert len(figure.axes[0].lines) == 28
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert "28 of 100 settings are drawn" in figure.get_supxlabel().replace("\n", " ")
    figure.draw_without_rendering()
    height = figure.get_size_inches()[1] * figure.dpi
    assert figure.axes[0].get_window_extent().height > 0.15 * height
    assert len(looks) == 28
