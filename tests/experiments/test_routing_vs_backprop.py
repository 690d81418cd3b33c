import itertools

import numpy as np
import pytest

from experiments import routing_vs_backprop as experiment
from experiments.routing_vs_backprop import SLIDE_POINTS, routing_vs_backprop
from tests.figures.synthetic import fake_record


def records(arms=experiment.SWEEP, dataset="fashion_mnist", seeds=2, **more):
    return [
        fake_record(
            seed,
            4,
            5.0 + number,
            data__dataset=dataset,
            **{path.replace(".", "__"): value for path, value in arm.items()},
            **more,
        )
        for number, arm in enumerate(arms)
        for seed in range(seeds)
    ]


def test_the_arms():
    assert [tuple(arm.values()) for arm in experiment.SWEEP] == [
        ("dynamic", 3, "full", "none"),
        ("dynamic", 3, "stop", "none"),
        ("dynamic", 1, "none"),
        ("learned", "none"),
        ("random", "none"),
        ("dynamic", 3, "full", "class_capsules"),
        ("dynamic", 3, "full", "conv1+primary+class_capsules"),
    ]
    assert experiment.SWEEP[0] == experiment.BASELINE


def test_all_figures_are_drawn():
    drawn = experiment.figures(records())
    assert list(drawn) == ["error_by_arm", "learning_curves", "paired", "with_and_without-fashion_mnist"]


def test_the_slides_figure_for_each_data_set_but_its_points_for_its_own_alone():
    drawn = experiment.figures(records() + records(dataset="mnist"))
    assert list(drawn) == [
        "error_by_arm",
        "learning_curves",
        "paired",
        "with_and_without-fashion_mnist",
        "with_and_without-mnist",
    ]
    marked = {name: "read off the slide" in figure.get_supxlabel().replace("\n", " ") for name, figure in drawn.items()}
    assert marked["with_and_without-fashion_mnist"]
    assert not marked["with_and_without-mnist"]


@pytest.mark.parametrize("present", [0, 1])
def test_no_such_figure_without_both_of_its_arms(present):
    found = records([experiment.SWEEP[present], *experiment.SWEEP[2:]])
    assert list(experiment.figures(found)) == ["error_by_arm", "learning_curves", "paired"]


def test_the_left_column_is_the_stopped_gradient():
    found = records()
    figure = experiment.figures(found)["with_and_without-fashion_mnist"]
    for column, gradient in enumerate(("stop", "full")):
        group = [
            r.metrics["train_loss"]
            for r in found
            if tuple(r.settings.get(path) for path in experiment.BASELINE) == ("dynamic", 3, gradient, "none")
        ]
        [line] = [line for line in figure.axes[column].lines if line.get_label().startswith("loss")]
        np.testing.assert_allclose(line.get_ydata(), np.mean(group, axis=0))


def test_another_swept_path_does_not_mix_the_arms():
    found = records(train__learning_rate=0.1) + records(train__learning_rate=0.2)
    drawn = experiment.figures(found)
    assert list(drawn)[:2] == ["error_by_arm", "learning_curves"]


def arm(gradient, floor, seeds=3, epochs=5):
    settings = {"routing__gradient": gradient, "data__dataset": "fashion_mnist"}
    return [fake_record(seed, epochs, floor, **settings) for seed in range(seeds)]


@pytest.fixture
def arms():
    return arm("stop", 8.0), arm("full", 7.5)


def mean(records, metric):
    return np.mean([record.metrics[metric] for record in records], axis=0)


def line(axes, start):
    return next(line.get_ydata() for line in axes.lines if line.get_label().startswith(start))


def test_each_series_is_in_its_panel(arms):
    figure = routing_vs_backprop(*arms)
    for column, records in enumerate(arms):
        losses, accuracies = figure.axes[column], figure.axes[2 + column]
        assert len(losses.lines) == len(losses.collections) == 3
        np.testing.assert_allclose(line(losses, "capsnet_loss"), mean(records, "train_classification_loss"))
        np.testing.assert_allclose(line(losses, "decoder_loss"), mean(records, "train_reconstruction_mse"))
        np.testing.assert_allclose(line(losses, "loss"), mean(records, "train_loss"))
        assert len(accuracies.lines) == len(accuracies.collections) == 2
        np.testing.assert_allclose(line(accuracies, "capsnet_acc"), 1 - mean(records, "train_error") / 100)
        np.testing.assert_allclose(line(accuracies, "val_capsnet_acc"), 1 - mean(records, "validation_error") / 100)


def test_bands_of_accuracies_are_in_fractions(arms):
    figure = routing_vs_backprop(*arms)
    values = [record.metrics["train_error"][0] for record in arms[0]]
    vertices = figure.axes[2].collections[0].get_paths()[0].vertices
    edges = vertices[vertices[:, 0] == 1, 1]
    # t(0.975; 2) = 4.303
    assert np.ptp(edges) == pytest.approx(2 * 4.3027 * np.std(values, ddof=1) / np.sqrt(3) / 100, rel=1e-4)


def test_labels(arms):
    figure = routing_vs_backprop(*arms)
    titles = [axes.get_title() for axes in figure.axes[:2]]
    assert titles == [
        "without backpropagation\n(gradient stopped through the inner iterations)",
        "with backpropagation\n(gradient through all iterations)",
    ]
    assert [axes.get_ylabel() for axes in figure.axes] == ["training loss", "", "accuracy [fraction]", ""]
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "", "epoch", "epoch"]
    assert figure.get_supxlabel().startswith("Fashion-MNIST; line: mean of n = 3 seeds; band: 95%")
    assert "slide" not in figure.get_supxlabel()


def test_the_title_says_what_the_records_say(arms):
    without, with_ = arms
    swapped = routing_vs_backprop(with_, without)
    assert swapped.axes[0].get_title() == "without backpropagation\n(gradient through all iterations)"


def test_columns_share_their_y_axes(arms):
    figure = routing_vs_backprop(*arms)
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    assert figure.axes[2].get_ylim() == figure.axes[3].get_ylim()


def test_the_slides_points_are_hollow_circles(arms):
    figure = routing_vs_backprop(*arms, reference=SLIDE_POINTS)
    for column, name in enumerate(("without", "with")):
        for axes, series in (
            (figure.axes[column], ["capsnet_loss", "decoder_loss", "loss"]),
            (figure.axes[2 + column], ["capsnet_acc", "val_capsnet_acc"]),
        ):
            circles = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
            drawn = {tuple(map(tuple, circle.get_xydata().tolist())) for circle in circles}
            assert drawn == {tuple(SLIDE_POINTS[name][key]) for key in series}
    assert "hollow circle: read off the slide" in figure.get_supxlabel().replace("\n", " ")


def test_the_slides_losses_add_up():
    for points in SLIDE_POINTS.values():
        last = {series: values[-1] for series, values in points.items()}
        assert {epoch for epoch, _ in last.values()} == {50}
        assert last["loss"][1] == pytest.approx(last["capsnet_loss"][1] + 0.392 * last["decoder_loss"][1], abs=4e-4)


def test_arms_of_different_lengths_and_one_seed():
    figure = routing_vs_backprop(arm("stop", 8.0, seeds=1, epochs=2), arm("full", 7.5, seeds=2, epochs=4))
    assert not figure.axes[0].collections
    assert figure.axes[1].collections
    text = figure.get_supxlabel().replace("\n", " ")
    assert "n = 1 to 2 seeds" in text


def test_an_arm_is_one_setting(arms):
    mixed = [arms[0][0], arms[1][1]]
    with pytest.raises(ValueError, match=r"the arm 'with' mixes values of routing\.gradient"):
        routing_vs_backprop(arms[0], mixed)
    with pytest.raises(ValueError, match="no records to draw"):
        routing_vs_backprop([], arms[1])


def told(figure) -> str:
    return figure.get_supxlabel().replace("\n", " ")


@pytest.mark.parametrize("size", [1, 6, *(pytest.param(size, marks=pytest.mark.slow) for size in (2, 3, 4, 5, 7))])
def test_every_part_of_the_arms_is_drawn_and_what_is_missing_is_said(size):
    for arms in itertools.combinations(experiment.SWEEP, size):
        drawn = experiment.figures(records(arms, seeds=1))
        assert len(drawn["error_by_arm"].axes[0].get_yticks()) == size
        assert len(drawn["learning_curves"].axes[0].lines) == size
        assert ("paired" in drawn) == (size > 1)
        assert ("with_and_without-fashion_mnist" in drawn) == all(arm in arms for arm in experiment.SWEEP[:2])
        assert ("no run of" in told(drawn["error_by_arm"])) == (size < 7)


def test_arms_that_share_no_seed_have_no_paired_figure():
    found = records(experiment.SWEEP[:1]) + records(experiment.SWEEP[2:3], dataset="mnist")
    assert list(experiment.figures(found)) == ["error_by_arm", "learning_curves"]


def test_an_arm_has_its_colour_whichever_others_were_run():
    def colours(found):
        axes = experiment.figures(found)["error_by_arm"].axes[0]
        names = [tick.get_text() for tick in axes.get_yticklabels()]
        return {name: c.lines[0].get_color() for name, c in zip(names, axes.containers, strict=True)}

    everything = colours(records())
    assert len(set(everything.values())) == 7
    assert everything.items() >= colours(records(experiment.SWEEP[2:5])).items()
    assert everything.items() >= colours(records(experiment.SWEEP[::-1])).items()


def test_without_validation_images_there_is_no_line_and_no_word_of_one(arms):
    for record in [*arms[0], *arms[1]]:
        record.metrics["validation_error"][:] = np.nan
        record.settings["data.validation_fraction"] = 0.0
    figure = routing_vs_backprop(*arms)
    names = [text.get_text() for text in figure.axes[3].get_legend().get_texts()]
    assert names == ["capsnet_acc (training)"]
    assert "no run has a validation error, as no image is held out" in told(figure)
    assert "not finite" not in told(figure)
    figure = routing_vs_backprop(*arms, reference=SLIDE_POINTS)
    names = [text.get_text() for text in figure.axes[3].get_legend().get_texts()]
    assert names == ["capsnet_acc (training)", "val_capsnet_acc (slide alone)"]


def test_two_seeds_do_not_stretch_the_axes_beyond_what_is_possible(arms):
    for first, second, *_ in arms:
        for metric, values in (("train_error", (2.0, 95.0)), ("train_loss", (0.01, 3.0))):
            for record, value in zip((first, second), values, strict=True):
                record.metrics[metric][:] = value
    figure = routing_vs_backprop(arms[0][:2], arms[1][:2])
    assert figure.axes[2].get_ylim()[0] >= -0.06
    assert figure.axes[2].get_ylim()[1] <= 1.06
    for cut in ("intervals are cut at 0 and 1;", "intervals are cut at 0;"):
        assert cut in told(figure) + ";"


def test_one_of_several_settings_is_named():
    first, second = (records(experiment.SWEEP[:2], seeds=n, routing__temperature=t) for n, t in ((1, 1.0), (2, 0.25)))
    figure = experiment.figures(first + second)["with_and_without-fashion_mnist"]
    assert "shown: temperature of the softmax = 0.25; not shown: runs of other settings" in told(figure)
    assert "mean of n = 2 seeds" in told(figure)
