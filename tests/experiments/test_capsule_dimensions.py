import numpy as np
import pytest

from capsnet_jax.overrides import build
from experiments import capsule_dimensions
from experiments.capsule_dimensions import dimension_grid
from tests.figures.synthetic import fake_record


def test_rows_are_dimensions_and_columns_offsets():
    moved = np.random.default_rng(0).uniform(size=(3, 5, 6, 7, 1))
    figure = dimension_grid(moved, np.linspace(-0.1, 0.1, 5), row_names=["a", "b", "c"], note="MNIST")
    [axes] = figure.axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["−0.10", "−0.05", "+0.00", "+0.05", "+0.10"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b", "c"]
    [mosaic] = [np.asarray(image.get_array()) for image in axes.images]
    for (row, column), _ in np.ndenumerate(np.zeros((3, 5))):
        top, left = 8 * row, 9 * column  # two white pixels between 6×7 pictures
        np.testing.assert_array_equal(mosaic[top : top + 6, left : left + 7], moved[row, column, :, :, 0])
        assert abs(axes.get_xticks()[column] - left - 3.5) < 1e-9
    assert figure.get_supxlabel().startswith("MNIST; ")


def test_names_and_offsets_must_fit():
    with pytest.raises(ValueError, match="need 2 names and 3 offsets, got 1 and 3"):
        dimension_grid(np.zeros((2, 3, 4, 4, 1)), np.zeros(3), row_names=["a"])


def test_of_very_many_dimensions_those_that_change_the_picture_most_have_a_row(monkeypatch):
    """Two of three classes have images; the second one's dimensions 36 to 67 change its picture most."""
    moved = np.zeros((2, 70, 3, 4, 4, 1), np.uint8)
    moved[1, 35:67, 2] = 200
    observed = {
        **{name: np.zeros((2, 4, 4, 1), np.uint8) for name in ("images", "reconstructions")},
        **{name: np.array([0, 2]) for name in ("labels", "predictions", "shown")},
        "moved": moved,
        "offsets": np.array([-0.1, 0, 0.1]),
        "names": np.array(["a", "b", "c"]),
        "split": np.array("training"),
    }
    monkeypatch.setattr(capsule_dimensions, "load_observation", lambda record, name: observed)
    drawn = capsule_dimensions.figures([fake_record(1), fake_record(0)])
    rows = {title: [tick.get_text() for tick in figure.axes[0].get_yticklabels()] for title, figure in drawn.items()}
    assert rows["dimensions-mnist"] == ["a: 1", "c: 36"]
    assert rows["all_dimensions-mnist"] == [f"dimension {number}" for number in range(36, 68)]
    caption = drawn["all_dimensions-mnist"].get_supxlabel().replace("\n", " ")
    assert caption.startswith("MNIST, training images; dynamic routing, seed 0")
    assert "2 of 3 classes, the first that have images" in caption
    assert "change most, c, its 32 dimensions of 70 that do" in caption


def test_settings_do_not_hide_each_other(monkeypatch):
    monkeypatch.setattr(capsule_dimensions, "load_observation", lambda record, name: {"of": record})
    monkeypatch.setattr(capsule_dimensions, "_draw", lambda arrays, note: {"dimensions": arrays["of"]})
    found = [fake_record(seed, routing__iterations=r) for r in (1, 3) for seed in (1, 0)]
    drawn = capsule_dimensions.figures(found)
    assert drawn == {"dimensions-mnist-iterations1": found[1], "dimensions-mnist-iterations3": found[3]}


def test_what_it_requires():
    assert capsule_dimensions.requires(build({}), None) is None
    told = capsule_dimensions.requires(build({"loss.reconstruction": False}), None)
    assert told == "capsule_dimensions draws what a decoder makes: leave out loss.reconstruction=false"
    told = capsule_dimensions.requires(build({"model.name": "cnn_small"}), None)
    assert told.endswith("cnn_small has none; use --set model.name=capsnet_small")
