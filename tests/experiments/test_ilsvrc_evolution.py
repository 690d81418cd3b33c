import csv

import pytest

from capsnet_jax.sweeps.files import read_lines
from capsnet_jax.sweeps.interrupt import Interrupted
from experiments import ilsvrc_evolution
from experiments.ilsvrc_evolution import error_against_cost, winners


@pytest.mark.slow
def test_what_is_counted_is_kept_and_not_counted_again(tmp_path, monkeypatch):
    monkeypatch.setattr(ilsvrc_evolution, "TOP5", {"alexnet_single": 20.91, "resnet18": 10.92})
    signals = iter([0, 15])
    with pytest.raises(Interrupted):
        ilsvrc_evolution.measure([], tmp_path, lambda: next(signals))
    assert [row["model"] for row in read_lines(tmp_path / "ilsvrc_evolution.jsonl")] == ["alexnet_single"]
    ilsvrc_evolution.measure([], tmp_path, lambda: 0)
    monkeypatch.setattr(ilsvrc_evolution, "outline", lambda config: pytest.fail("counted again"))
    ilsvrc_evolution.measure([], tmp_path, lambda: 0)

    text, rows = ilsvrc_evolution.report(tmp_path)
    assert [(row["model"], row["parameters"]) for row in rows] == [
        ("alexnet_single", 61_100_840),
        ("resnet18", 11_689_512),
    ]
    # Published: 0.71 and 1.81 to 1.82 billion multiplications, here doubled.
    assert [round(row["flops"] / 2e9, 2) for row in rows] == pytest.approx([0.71, 1.81], abs=0.011)
    assert "11,689,512" in text
    written = csv.DictReader(ilsvrc_evolution.to_csv(rows).splitlines())
    assert [row["top5_error"] for row in written] == ["20.91", "10.92"]
    assert set(ilsvrc_evolution.figures(rows)) == {"winners", "cost"}


def test_nothing_was_counted(tmp_path):
    assert ilsvrc_evolution.report(tmp_path) == ("", [])


ROWS = [
    {"model": "vgg_d", "top5_error": 9.62, "parameters": 138_357_544, "flops": 30_940_000_000},
    {"model": "vgg_a", "top5_error": 11.37, "parameters": 132_863_336, "flops": 15_220_000_000},
    {"model": "googlenet_bn", "top5_error": 10.47, "parameters": 6_624_904, "flops": 3_000_000_000},
]


def test_every_year_has_its_error_and_depth():
    [axes] = winners().axes
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
