import csv
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from capsnet_jax import overrides
from capsnet_jax.report import pairing, render, tables
from capsnet_jax.report.grouping import group
from capsnet_jax.statistics import mean_interval
from capsnet_jax.sweeps.records import Record, Run

ITERATIONS = ["routing.iterations"]


def run(seed=0, test_error=1.0, validation_error=2.0, wrong=None, revision="0123456789", **changes) -> Record:
    """A finished run; settings are given as `routing__iterations=3`."""
    config = overrides.build({name.replace("__", "."): value for name, value in changes.items()})
    result = {"test_error": test_error, "validation_error": validation_error, "images_per_second": 1000.0 + seed}
    return Record(
        Run(config, seed).name,
        overrides.flatten(config),
        seed,
        metrics={},
        result=result | {"diverged_step": -1},
        workdir=Path("nowhere"),
        environment={"git_revision": revision, "device": "cpu", "cores": 2, "packages": {"jax": "0.10.2"}},
        wrong=None if wrong is None else np.array(wrong, bool),
    )


def runs(errors, **changes) -> list[Record]:
    """A run for each of the test errors, with seeds 0, 1, …"""
    return [run(seed, error, **changes) for seed, error in enumerate(errors)]


def column(table: render.Table, heading: str) -> list[str]:
    return [row[table.header.index(heading)] for row in table.rows]


def compared(records, swept=(), baseline=None) -> list[tuple[str, str]]:
    """The swept values of each setting that is compared, and those of its reference."""
    found = pairing.compare(group(records, swept), baseline or {})
    return [(" ".join(c.setting.cells(swept)), " ".join(c.reference.cells(swept))) for c in found]


def test_the_summary_has_mean_interval_and_count():
    finished = runs((0.5, 0.6, 1.0), routing__iterations=1)
    finished.append(run(0, 0.4, math.nan, routing__iterations=3))
    table = tables.summary(finished, ITERATIONS)
    assert table.header[0] == "dataset"
    assert table.header[-4:] == ["routing.iterations", "test error %", "validation error %", "images/s"]
    # 0.5, 0.6, 1.0: mean 0.7, standard deviation 0.26458, t(0.975; 2) = 4.30265, so ± 0.65725
    assert table.rows[0][-4:] == ["1", "0.70 ± 0.66 (n = 3)", "2.00 ± 0.00 (n = 3)", "1,001"]
    assert table.rows[1][-4:] == ["3", "0.40 (n = 1)", "no finite value (n = 0)", "1,000"]


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
    assert column(table, "test error %") == ["0.60 ± 1.27 (n = 2)"]
    assert column(table, "images/s") == ["1,000"]
    assert table.notes[-1] == "1 of 3 runs diverged"


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
    assert column(table, "top-5 error %")[0] == "0.75 ± 6.35 (n = 2)"  # t(0.975; 1) = 12.7062 times 0.5
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


def test_settings_are_paired_by_seed():
    first = runs((1.0, 2.0, 4.0), routing__iterations=1)
    third = [run(seed, error, routing__iterations=3) for seed, error in ((2, 3.5), (1, 1.0), (7, 9.0))]
    other = runs((50.0,), routing__iterations=3, data__dataset="kmnist")
    table = tables.paired([*first, *third, *other], ITERATIONS, {})
    assert table.title == "test error less that of routing.iterations=1"
    # Seeds 1 and 2: differences -1 and -0.5, mean -0.75, t(0.975; 1) = 12.7062, so ± 12.7062 · 0.25; p of t = 3.
    assert table.rows == [["mnist_5k", "3", "-0.75 ± 3.18 (n = 2)", "0.2", "0.2", ""]]
    assert tables.paired([*first, *other], ITERATIONS, {}).rows == []


def test_p_values_are_corrected_by_holms_method_over_the_table():
    """The least of three is tripled, the next doubled, none is less than one before it; one without p counts not."""
    errors = {1: (1.0, 2.0, 3.0), 2: (2.0, 3.1, 3.9), 3: (1.5, 2.0, 3.6), 5: (1.2, 2.5, 2.9), 7: (9.0,)}
    finished = [one for r, values in errors.items() for one in runs(values, routing__iterations=r)]
    table = tables.paired(finished, ITERATIONS, {})
    p = [stats.ttest_rel(errors[r], errors[1]).pvalue for r in (2, 3, 5)]
    assert p[0] < p[1] < p[2]
    corrected = [3 * p[0], max(3 * p[0], 2 * p[1]), max(2 * p[1], p[2])]
    assert column(table, "p (paired t)") == [*(f"{value:.2g}" for value in p), ""]
    assert column(table, "p (Holm)") == [*(f"{value:.2g}" for value in corrected), ""]
    assert "for the 3 tests" in table.notes[0]
    assert column(table, "difference %")[-1] == "+8.00 (n = 1)"


def test_mcnemar_counts_an_image_once_whatever_the_number_of_seeds():
    first = [[0, 0, 0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0, 0, 1, 0]]
    third = [[1, 1, 1, 1, 1, 1, 0, 0, 1], [1, 1, 1, 1, 1, 1, 1, 0, 0]]
    finished = [run(seed, wrong=wrong, routing__iterations=1) for seed, wrong in enumerate(first)]
    finished += [run(seed, wrong=wrong, routing__iterations=3) for seed, wrong in enumerate(third)]
    # Wrong answers of both seeds: the third has more on images 0 to 6, fewer on image 7, as many on image 8.
    [p] = column(tables.paired(finished, ITERATIONS, {}), "p (McNemar)")
    assert p == f"{stats.binomtest(7, 8).pvalue:.2g}" == "0.07"
    # One seed: 6 against 1 image.
    [p] = column(tables.paired(finished[::2], ITERATIONS, {}), "p (McNemar)")
    assert p == f"{stats.binomtest(6, 7).pvalue:.2g}"


def test_mcnemar_is_left_empty_where_the_images_are_not_known():
    first, third = run(wrong=[0, 1], routing__iterations=1), run(wrong=[0, 1, 1], routing__iterations=3)
    fifth = run(routing__iterations=5)
    assert column(tables.paired([first, third, fifth], ITERATIONS, {}), "p (McNemar)") == ["", ""]
    # A seed whose images are not known does not count.
    more = [run(1, wrong=[0, 0, 1], routing__iterations=1), run(1, wrong=[0, 0, 1], routing__iterations=5)]
    assert column(tables.paired([first, fifth, *more], ITERATIONS, {}), "p (McNemar)") == ["1"]


def test_pairs_differ_in_one_setting_alone():
    swept = ["routing.iterations", "train.learning_rate"]
    finished = [
        run(routing__iterations=r, train__learning_rate=rate) for r in (1, 3, 5) for rate in (0.001, 0.01) if r < 5
    ]
    finished.append(run(routing__iterations=5, train__learning_rate=0.1))  # differs from each in both
    assert compared(finished, swept) == [("1 0.01", "1 0.001"), ("3 0.001", "1 0.001"), ("3 0.01", "1 0.01")]
    table = tables.paired(finished, swept, {})
    assert table.title == "test error less that of the setting compared with"
    assert column(table, "compared with") == [
        "train.learning_rate=0.001",
        "routing.iterations=1",
        "routing.iterations=1",
    ]


def test_routers_are_compared_at_equal_other_settings():
    """What a router alone has is no other setting, nor is what has no meaning with one iteration."""
    swept = ["routing.name", "routing.iterations", "routing.gradient", "train.epochs"]
    finished = [run(routing__iterations=3), run(routing__iterations=3, routing__gradient="stop")]
    finished += [
        run(routing__iterations=1),
        run(routing__name="learned"),
        run(routing__name="learned", train__epochs=2),
    ]
    assert compared(finished, swept) == [
        ("dynamic 3 stop 10", "dynamic 3 full 10"),
        ("dynamic 1  10", "dynamic 3 full 10"),
        ("learned   10", "dynamic 3 full 10"),
        ("learned   2", "learned   10"),
    ]


def test_what_either_of_two_settings_lacks_is_no_difference():
    swept = ["routing.iterations", "routing.gradient"]
    finished = [
        run(routing__iterations=1),
        run(routing__iterations=3),
        run(routing__iterations=3, routing__gradient="stop"),
    ]
    assert compared(finished, swept) == [("3 full", "1 "), ("3 stop", "1 ")]


def test_a_presets_name_is_no_setting():
    small, paper = run(routing__iterations=1), run(routing__iterations=3)
    paper.settings["preset"] = "paper"
    assert compared([small, paper], ITERATIONS) == [("3", "1")]


def test_the_loss_that_comes_with_a_net_is_no_other_setting():
    capsnet, cnn = run(), run(model__name="cnn_small")
    swept = ["model.name", "loss.name"]
    assert compared([capsnet, cnn], swept) == [("cnn_small cross_entropy", "capsnet_small margin")]
    margin = run(model__name="cnn_small", loss__name="margin")
    assert compared([run(loss__name="cross_entropy"), margin], swept) == []
    assert compared([capsnet, margin], swept) == [("cnn_small margin", "capsnet_small margin")]


def test_a_baseline_is_compared_with_every_other_setting_on_the_same_data():
    swept = ["routing.iterations", "routing.gradient"]
    finished = [run(routing__iterations=r) for r in (1, 2, 3)]
    finished += [run(routing__iterations=r, routing__gradient="stop") for r in (2, 3)]
    finished += [run(data__dataset="kmnist", routing__iterations=r) for r in (1, 3)]
    finished += [run(data__dataset="kmnist", data__transform="rotated", routing__iterations=1)]
    pairs = [("1 ", "3 full"), ("2 full", "3 full"), ("2 stop", "3 stop"), ("1 ", "3 full")]
    assert compared(finished, swept, {"routing.iterations": "3"}) == pairs
    assert compared(finished, swept, {"routing.iterations": 3}) == pairs
    table = tables.paired(finished, swept, {"routing.iterations": 3})
    assert column(table, "compared with") == ["routing.iterations=3"] * 4


@pytest.mark.parametrize("value", [0.003, "0.003", "3e-3"])
def test_a_baselines_value_may_be_given_as_people_type_it(value):
    finished = [run(train__learning_rate=rate) for rate in (0.001, 0.003)]
    assert compared(finished, ["train.learning_rate"], {"train.learning_rate": value}) == [("0.001", "0.003")]


def test_a_baseline_that_no_setting_has_is_told():
    finished = [run(routing__iterations=r) for r in (1, 3)]
    table = tables.paired(finished, ITERATIONS, {"routing.iterations": "9"})
    assert (table.rows, len(table.notes)) == ([], 1)
    assert "Nothing is compared with routing.iterations=9" in tables.as_text(finished, [], {"routing.iterations": "9"})


def test_what_differs_between_data_sets_alone_is_no_other_setting():
    finished = [
        run(seed, r + seed / 10 + shift, routing__iterations=r, data__max_shift=shift, data__dataset=dataset)
        for dataset, shift in (("mnist", 2), ("kmnist", 1))
        for r in (1, 3)
        for seed in range(3)
    ]
    table = tables.paired(finished, ITERATIONS, {})
    assert table.header[:2] == ["dataset", "routing.iterations"]
    assert [row[:3] for row in table.rows] == [
        ["mnist", "3", "+2.00 ± 0.00 (n = 3)"],
        ["kmnist", "3", "+2.00 ± 0.00 (n = 3)"],
    ]


def test_other_images_or_more_of_them_are_other_data():
    finished = [
        run(seed, error + seed / 10, data__train_size=size, train__epochs=epochs, finetune__source=source)
        for size, epochs, errors in ((100, 9, (5.0, 4.0)), (1000, 2, (2.0, 2.5)))
        for source, error in zip(("none", "mnist"), errors, strict=True)
        for seed in range(3)
    ]
    table = tables.paired(finished, ["data.train_size", "train.epochs", "finetune.source"], {})
    assert column(table, "data.train_size") == ["100", "1000"]
    assert column(table, "compared with") == ["finetune.source=none"] * 2
    assert column(table, "difference %") == ["-1.00 ± 0.00 (n = 3)", "+0.50 ± 0.00 (n = 3)"]


def test_the_terminal_shows_every_table_and_the_code():
    finished = [*runs((1, 2), routing__iterations=1), run(0, 3.0, revision="fedcba9876", routing__iterations=3)]
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


def test_markdown_has_the_same_rows():
    table = render.Table("a title", ["a|b", "c"], [["1", ""]], ["a note"])
    assert render.to_markdown(table) == "**a title**\n\n| a\\|b | c |\n| --- | --- |\n| 1 |  |\n\na note"
    assert render.to_text(table) == "a title\na|b  c\n---  -\n1\na note"
    assert render.to_markdown(render.Table("", [], [], ["a note"])) == "a note"
    assert render.to_text(render.Table("", [], [], ["a note"])) == "a note"


@pytest.mark.parametrize("rule", [False, True])
def test_columns_stand_under_each_other(rule):
    lines = render.align([["a", "bbb"], ["cc", "d"]], rule=rule).splitlines()
    assert lines == ["a   bbb", *(["--  ---"] if rule else []), "cc  d"]
    assert render.align([]) == ""
