import numpy as np
import pytest

from capsnet_jax.figures import SLIDE_POINTS, routing_against_backprop
from tests.figures.synthetic import fake_record


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


def test_arms_and_series_are_in_their_places(arms):
    figure = routing_against_backprop(*arms)
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
    figure = routing_against_backprop(*arms)
    values = [record.metrics["train_error"][0] for record in arms[0]]
    vertices = figure.axes[2].collections[0].get_paths()[0].vertices
    edges = vertices[vertices[:, 0] == 1, 1]
    # t(0.975; 2) = 4.303
    assert np.ptp(edges) == pytest.approx(2 * 4.3027 * np.std(values, ddof=1) / np.sqrt(3) / 100, rel=1e-4)


def test_words(arms):
    figure = routing_against_backprop(*arms)
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
    swapped = routing_against_backprop(with_, without)
    assert swapped.axes[0].get_title() == "without backpropagation\n(gradient through all iterations)"


def test_columns_share_their_y_axes(arms):
    figure = routing_against_backprop(*arms)
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    assert figure.axes[2].get_ylim() == figure.axes[3].get_ylim()


def test_the_slides_points_are_hollow_circles(arms):
    figure = routing_against_backprop(*arms, reference=SLIDE_POINTS)
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
    figure = routing_against_backprop(arm("stop", 8.0, seeds=1, epochs=2), arm("full", 7.5, seeds=2, epochs=4))
    assert not figure.axes[0].collections
    assert figure.axes[1].collections
    text = figure.get_supxlabel().replace("\n", " ")
    assert "n = 1 to 2 seeds" in text


def test_an_arm_is_one_setting(arms):
    mixed = [arms[0][0], arms[1][1]]
    with pytest.raises(ValueError, match=r"the arm 'with' mixes values of routing\.gradient"):
        routing_against_backprop(arms[0], mixed)
    with pytest.raises(ValueError, match="no records to draw"):
        routing_against_backprop([], arms[1])
