import csv
import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from capsnet_jax.report import tables
from capsnet_jax.statistics import mean_interval
from capsnet_jax.sweeps.train import by_selection
from tests.report.finished import ITERATIONS, column, run, runs


def test_the_summary_has_mean_interval_and_count():
    finished = runs((0.5, 0.6, 1.0), routing__iterations=1)
    finished.append(run(0, 0.4, math.nan, routing__iterations=3))
    table = tables.summary(finished, ITERATIONS)
    assert table.header[0] == "dataset"
    assert table.header[-4:] == ["routing.iterations", "test error %", "validation error %", "images/s"]
    # 0.5, 0.6, 1.0: mean 0.7, standard deviation 0.26458, t(0.975; 2) = 4.30265, so ± 0.65725
    assert table.rows[0][-4:] == ["1", "0.70 ± 0.66 (n = 3)", "2.00 ± 0.00 (n = 3)", "1,001"]
    assert table.rows[1][-4:] == ["3", "0.40 (n = 1)", "no finite value (n = 0)", "1,000"]


def test_a_mean_over_runs_of_different_code_is_announced():
    finished = runs((0.5, 0.6), routing__iterations=1) + runs((0.5, 0.6), routing__iterations=3)
    assert not any("different code" in note for note in tables.summary(finished, ITERATIONS).notes)
    finished[1] = dataclasses.replace(finished[1], code={"routing/dynamic.py": "changed"})
    notes = tables.summary(finished, ITERATIONS).notes
    assert "1 of these settings mix runs of different code; --rerun trains them anew" in notes


def test_a_setting_that_a_net_does_not_have_is_an_empty_cell():
    finished = [*runs((1, 2), routing__iterations=1), *runs((1, 2), routing__iterations=3)]
    finished += runs((1, 2), model__name="cnn_small")
    table = tables.summary(finished, ["model.name", *ITERATIONS])
    assert column(table, "routing.iterations") == ["1", "3", ""]
    assert column(table, "model.name") == ["capsnet_small", "capsnet_small", "cnn_small"]


def test_a_run_that_diverged_is_told_and_counts_in_no_mean():
    finished = runs((0.5, 0.7, math.nan))
    finished[2].result.update(diverged_step=7, images_per_second=math.nan)
    table = tables.summary(finished, [])
    assert column(table, "test error %") == ["0.60 [0.00, 1.87] (n = 2)"]
    assert column(table, "images/s") == ["1,000"]
    assert "1 of 3 runs diverged" in table.notes


def test_costs_that_differ_and_top5_errors_have_columns():
    finished = [*runs((1, 1), model__name="resnet8"), *runs((1, 1), model__name="resnet56")]
    for one in finished:
        small = one.settings["model.name"] == "resnet8"
        costs = {"parameters": 75_002, "flops": 18_290_432} if small else {"parameters": 852_730, "flops": 191e6}
        one.result.update(costs | {"test_top5_error": 0.25 + one.seed})
    table = tables.summary(finished, [])
    columns = ["parameters", "MFLOP/image", "test error %", "top-5 error %", "validation error %", "images/s"]
    assert table.header[-6:] == columns
    assert column(table, "parameters") == ["75,002", "852,730"]
    assert column(table, "MFLOP/image") == ["18.3", "191"]
    assert column(table, "top-5 error %")[0] == "0.75 [0.00, 7.10] (n = 2)"  # t(0.975; 1) = 12.7062 times 0.5
    assert "parameters" not in tables.summary(finished[:2], []).header  # the same for all


def test_what_varies_between_presets_alone_has_no_column():
    changes = {"train__epochs": 15, "train__batch_size": 64, "preset": "paper", "model__name": "capsnet"}
    finished = [one for r in (1, 3) for one in runs((1, 2), routing__iterations=r)]
    finished += [one for r in (1, 3) for one in runs((1, 2), routing__iterations=r, **changes)]
    table = tables.summary(finished, ITERATIONS)
    assert set(table.header[:4]) == {"dataset", "epochs", "routing.iterations", "preset"}
    assert table.header[4] == "test error %"
    assert len(table.rows) == 4


def test_the_best_of_many_settings_have_the_least_validation_error():
    finished = [run(0, 9.0 - rate, abs(rate - 7.2), train__learning_rate=float(rate)) for rate in range(1, 12)]
    finished.append(run(0, 0.0, math.nan, train__learning_rate=0.5))
    [table] = tables.best(finished, ["train.learning_rate"])
    assert table.title == "the 5 settings of least validation error"
    assert column(table, "train.learning_rate") == ["7.0", "8.0", "6.0", "9.0", "5.0"]
    assert tables.best(finished[:10], ["train.learning_rate"]) == []


def test_the_terminal_shows_every_table_and_the_code():
    finished = [*runs((1, 1.1), routing__iterations=1), run(0, 3.0, revision="fedcba9876", routing__iterations=3)]
    text = tables.as_text(finished, ITERATIONS, {})
    summary, paired, code = text.split("\n\n")
    assert summary.endswith("mean ± 95 % interval over n seeds; images/s: median")
    assert paired.startswith("test error less that of routing.iterations=1\ndataset ")
    assert code == "code of revision 0123456 (2 runs), fedcba9 (1 run)"


def test_an_experiment_counts_more_of_each_run():
    experiment = SimpleNamespace(count=lambda record: {"flops": 1e6 * record.settings["routing.iterations"]})
    finished = [run(routing__iterations=1), run(routing__iterations=3)]
    table = tables.summary(tables.with_counts(finished, experiment), ITERATIONS)
    assert column(table, "MFLOP/image") == ["1", "3"]
    assert "flops" not in finished[0].result


def test_a_csv_file_lets_every_mean_and_interval_be_computed_again(tmp_path):
    errors = {1: (1 / 3, 2 / 3, 0.75), 3: (0.25, 0.5, 0.125)}
    finished = [one for r, values in errors.items() for one in runs(values, routing__iterations=r)]
    finished += runs((1.25,), model__name="cnn_small", preset="small")
    finished[0].result["parameters"] = 12_345_678
    path = tmp_path / "study.csv"
    tables.write_csv(path, finished, ["routing.iterations", "model.name"])
    rows = list(csv.DictReader(path.open()))
    columns = ["dataset", "preset", "seed", "epochs", "routing.iterations", "model.name"]
    assert list(rows[0])[: len(columns)] == columns
    results = [name for name in rows[0] if name in finished[0].result]
    assert results[0] == "test_error"
    assert (rows[0]["test_error"], rows[0]["parameters"], rows[1]["parameters"]) == ("0.333333", "12345678", "")
    assert [rows[-1][name] for name in ("seed", "routing.iterations", "model.name")] == ["0", "", "cnn_small"]
    for r, values in errors.items():
        again = mean_interval([float(row["test_error"]) for row in rows if row["routing.iterations"] == str(r)])
        assert again.mean == pytest.approx(np.mean(values), abs=1e-6)
        assert again.half_width == pytest.approx(stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / 3**0.5, abs=1e-5)


def test_an_interval_ends_at_what_an_error_can_be_and_a_note_says_so():
    table = tables.summary([*runs((1.0, 99.0)), *runs((1.0, 1.1), routing__iterations=1)], ITERATIONS)
    assert column(table, "test error %") == ["50.00 [0.00, 100.00] (n = 2)", "1.05 ± 0.64 (n = 2)"]
    note = "[low, high]: intervals are cut at 0 and 100 %"
    assert note in table.notes
    assert note not in tables.summary(runs((1.0, 1.1)), ITERATIONS).notes


def with_setting(records, path, value):
    return [dataclasses.replace(one, settings=one.settings | {path: value}) for one in records]


def test_a_setting_of_another_version_is_told_and_never_pooled():
    ours, theirs = runs((1.0, 1.1)), with_setting(runs((3.0, 3.1)), "train.sharpness", 0.05)
    table = tables.summary([*ours, *theirs], [])
    assert column(table, "train.sharpness") == ["", "0.05"]
    assert column(table, "test error %") == ["1.05 ± 0.64 (n = 2)", "3.05 ± 0.64 (n = 2)"]
    told = "settings that this version does not know, as other versions have them: train.sharpness (2 runs)"
    assert told in table.notes
    alone = tables.summary(theirs, [])
    assert told in alone.notes
    assert len(alone.rows) == 1
    assert "does not know" not in " ".join(tables.summary(ours, []).notes)


@pytest.mark.parametrize("lacking", ["preset", "train.epochs", "train.optimizer", "model.name", "data.label"])
def test_a_record_that_lacks_a_setting_has_a_row_of_its_own(lacking, tmp_path):
    older = [dataclasses.replace(one, settings=dict(one.settings)) for one in runs((3.0, 3.1))]
    for one in older:
        del one.settings[lacking]
    finished = [*runs((1.0, 1.1)), *older]
    assert len(tables.summary(finished, []).rows) == 2
    assert len(tables.as_text(finished, [], {"routing.iterations": 1}).splitlines()) > 4
    tables.write_csv(tmp_path / "a.csv", finished, [])
    assert len(list(csv.DictReader((tmp_path / "a.csv").open()))) == 4


def test_each_rule_of_choosing_an_epoch_has_a_column():
    finished = runs((1.0, 2.0, 3.0))
    assert not tables.selection(finished, []).rows
    for one, chosen, picked in zip(finished, (1.5, 2.5, 3.5), (0.9, 1.8, 0.6), strict=True):
        one.result.update(test_error_by_validation=chosen, test_error_picked_on_test=picked)
    table = tables.selection([*finished, run(3, 9.0)], [])  # of the last not every epoch was tested
    assert column(table, "last epoch")[0].startswith("2.00 ")
    assert column(table, "best by validation")[0].startswith("2.50 ")
    assert column(table, "picked on test (overfit)")[0].startswith("1.10 ")
    assert column(table, "epoch and seed picked on test (overfit)") == ["0.60"]
    assert "they are no results" in table.notes[0]


def test_epochs_are_chosen_by_the_rules():
    errors = {"validation_error": (3.0, 1.0, 1.0, 2.0), "test_error_at_epoch": (0.5, 2.0, 1.5, 0.4)}
    rows = [dict(zip(errors, values, strict=True)) for values in zip(*errors.values(), strict=True)]
    expected = {"test_error_by_validation": 2.0, "test_error_picked_on_test": 0.4}  # of equal epochs the first
    assert by_selection(rows) == expected
    assert by_selection([]) == {}
    assert by_selection([{"validation_error": 1.0}]) == {}
    nothing_held_out = [row | {"validation_error": math.nan} for row in rows]
    assert by_selection(nothing_held_out) == {"test_error_picked_on_test": 0.4}
    assert by_selection([*rows, dict.fromkeys(errors, math.nan)]) == {}  # diverged


def test_beside_the_seeds_stands_what_so_many_images_can_tell():
    """7.6 % of 10,000 images: Wilson's interval, as computed by hand in test_statistics."""
    finished = [
        dataclasses.replace(one, wrong=np.zeros(10_000, bool)) for one in runs((7.5, 7.7), model__name="cnn_small")
    ]
    finished += [dataclasses.replace(one, wrong=np.zeros(500, bool)) for one in runs((0.0, 0.0), model__name="resnet8")]
    table = tables.summary(finished, [])
    assert column(table, "test error % by images") == ["7.10 to 8.14", "0.00 to 0.76"]
    assert any("on 10,000 or 500 images" in note for note in table.notes)
    finished[0] = dataclasses.replace(finished[0], wrong=None)
    assert "test error % by images" not in tables.summary(finished, []).header
