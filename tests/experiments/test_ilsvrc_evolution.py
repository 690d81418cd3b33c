import csv
import json

import pytest

from capsnet_jax.sweeps.interrupt import Interrupted
from experiments import ilsvrc_evolution


def test_what_is_counted_is_kept_and_not_counted_again(tmp_path, monkeypatch):
    monkeypatch.setattr(ilsvrc_evolution, "TOP5", {"alexnet_single": 20.91, "resnet18": 10.92})
    signals = iter([0, 15])
    with pytest.raises(Interrupted):
        ilsvrc_evolution.measure([], tmp_path, lambda: next(signals))
    assert list(json.loads((tmp_path / "ilsvrc_evolution.json").read_text())) == ["alexnet_single"]
    ilsvrc_evolution.measure([], tmp_path, lambda: 0)
    monkeypatch.setattr("capsnet_jax.models.summary.outline", lambda name: pytest.fail("counted again"))
    ilsvrc_evolution.measure([], tmp_path, lambda: 0)

    text, rows = ilsvrc_evolution.report(tmp_path)
    assert [(row["model"], row["parameters"]) for row in rows] == [
        ("alexnet_single", 61_100_840),
        ("resnet18", 11_689_512),
    ]
    # Published: 0.71 and 1.81 to 1.82 billion multiplications, here doubled.
    assert [round(row["flops"] / 2e9, 2) for row in rows] == pytest.approx([0.71, 1.81], abs=0.011)
    assert "11,689,512" in text
    with (tmp_path / "ilsvrc_evolution.csv").open() as file:
        assert [row["top5_error"] for row in csv.DictReader(file)] == ["20.91", "10.92"]
    assert set(ilsvrc_evolution.figures(rows)) == {"winners", "cost"}


def test_nothing_was_counted(tmp_path):
    assert ilsvrc_evolution.report(tmp_path) == ("", [])
