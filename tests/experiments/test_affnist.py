import dataclasses
import itertools

import numpy as np
import pytest

from capsnet_jax.sweeps import records
from experiments import affnist
from experiments.cli import study
from tests.figures.synthetic import fake_record

# What each second level adds to the error of the synthetic nets.
ADDED = {
    "model.kernel": 2.0,
    "model.share_weights": -1.0,
    "routing.name": 0.5,
    "loss.name": 0.0,
    "loss.reconstruction": 3,
}


def synthetic(arm, seed):
    error = 20.0 + seed
    for path, first, _ in affnist.FACTORS.values():
        error += ADDED[path] * (1 + 0.1 * seed) * (arm[path] != first)
    record = fake_record(seed, 4, 2.0, error, **{path.replace(".", "__"): value for path, value in arm.items()})
    record.settings["data.dataset"] = "affnist"
    record.metrics["train_error"] = np.array([30.0, 21.0, 22.0, 3.0])
    record.metrics["test_error_at_epoch"] = np.array([50.0, 2 * error, 7.0, error])
    record.result |= affnist.count(record)
    return record


RECORDS = [synthetic(arm, seed) for arm in affnist.SWEEP for seed in range(3)]


def test_half_of_the_combinations_are_balanced_over_every_pair_of_choices():
    assert len(affnist.SWEEP) == 16
    for a, b in itertools.combinations(affnist.FACTORS.values(), 2):
        pairs = [(arm[a[0]], arm[b[0]]) for arm in affnist.SWEEP]
        assert all(pairs.count(pair) == 4 for pair in itertools.product(a[1:], b[1:]))


def test_nets_are_compared_where_their_training_error_is_the_same():
    record = synthetic(affnist.SWEEP[0], 0)
    assert affnist.count(record) == {"test_error_at_stop": 40.0, "stop_epoch": 2.0}
    record.metrics["train_error"] = np.array([30.0, 25.0, 17.0, 1.0])
    assert affnist.count(record) == {"test_error_at_stop": (40.0 + 7.0) / 2, "stop_epoch": 2.5}
    record.metrics["train_error"] = np.array([9.0, 3.0, 2.0, 1.0])
    assert affnist.count(record) == {"test_error_at_stop": 50.0, "stop_epoch": 1.0}
    record = fake_record(0, 4)
    assert affnist.count(record) == {}
    record.metrics |= {"train_error": np.full(4, 21.1), "test_error_at_epoch": np.ones(4)}
    assert np.isnan(affnist.count(record)["test_error_at_stop"])


def test_effects_are_what_was_added():
    rows = affnist.observed_rows(RECORDS)
    assert len(rows) == 15
    for row in rows:
        expected = ADDED[affnist.FACTORS[row["choice"]][0]] * (1 + 0.1 * row["seed"])
        assert row["test_error"] == pytest.approx(expected)
        assert row["test_error_at_stop"] == pytest.approx(2 * expected)
    at_stop, last = affnist.observed_tables(rows)
    assert last.rows[0][:2] == ["affNIST", "kernel 5, not 9"]
    # 2.0, 2.2, 2.4: mean 2.2, deviation 0.2, so ± 4.3027 · 0.2 / √3.
    assert last.rows[0][2] == "+2.20 ± 0.50 (n = 3)"
    assert at_stop.rows[0][2] == "+4.40 ± 0.99 (n = 3)"


def test_studies_of_other_sizes_are_not_mixed():
    look = [synthetic(arm, seed) for arm in affnist.SWEEP for seed in range(2)]
    for record in look:
        record.settings["data.train_size"] = 100
        record.result["test_error"] += 40.0 * (record.settings["model.kernel"] == 5)
    rows = affnist.observed_rows([*look, *RECORDS])
    assert len(rows) == 25
    assert affnist.observed_rows(RECORDS) == [
        row | {"study": "affNIST"} for row in rows if row["study"] != rows[0]["study"]
    ]
    last = affnist.observed_tables(rows)[1]
    assert [row[2].split(" ±")[0] for row in last.rows if row[1] == "kernel 5, not 9"] == ["+42.10", "+2.20"]
    assert len(affnist.figures([*look, *RECORDS])["effects"].axes) == 4


def test_a_seed_that_lacks_a_setting_has_no_effects():
    assert {row["seed"] for row in affnist.observed_rows(RECORDS[1:])} == {1, 2}
    assert affnist.observed_rows(RECORDS[:3]) == []


def test_what_is_printed_counts_too(monkeypatch, tmp_path, capsys):
    bare = [dataclasses.replace(r, result={"test_error": r.result["test_error"], "diverged_step": -1}) for r in RECORDS]
    monkeypatch.setattr(records, "load", lambda *_: (bare, []))
    study._print_observed("affnist", affnist, tmp_path)
    assert "+4.40 ± 0.99 (n = 3)" in capsys.readouterr().out


def test_figures():
    drawn = affnist.figures(RECORDS)
    assert list(drawn) == ["effects", "test_error_at_stop", "test_error", "learning_curves"]
    assert [text.get_text() for text in drawn["effects"].axes[0].get_yticklabels()] == list(affnist.FACTORS)
    assert "effects" not in affnist.figures(RECORDS[:3])
