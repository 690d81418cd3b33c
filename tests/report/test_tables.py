import math
import re

import pytest

from capsnet_jax.report import tables
from tests.sweeps.test_records import record


def test_the_summary_has_mean_interval_and_count():
    found = [record(s, e, 2 * e, 1000 + s, routing__iterations=1) for s, e in enumerate((0.5, 0.6, 1.0))]
    found += [record(0, 0.4, math.nan, 3000.0, routing__iterations=3)]
    header, rule, one, three = tables.summary(found, ["routing.iterations"]).splitlines()
    assert set(rule) == {"-", " "}
    assert re.split(r"  +", header.strip())[-4:] == [
        "routing.iterations",
        "test error %",
        "validation error %",
        "images/s",
    ]
    # 0.5, 0.6, 1.0: mean 0.7, standard deviation 0.26458, t(0.975; 2) = 4.30265, so ± 0.65725
    assert re.split(r"  +", one.strip())[-4:] == ["1", "0.70 ± 0.66 (n = 3)", "1.40 ± 1.31 (n = 3)", "1,001"]
    assert re.split(r"  +", three.strip())[-4:] == ["3", "0.40 (n = 1)", "no finite value (n = 0)", "3,000"]


def columns(line):
    return re.split(r"  +", line.strip())


def test_settings_are_paired_by_seed_with_the_first_of_their_data_set():
    first = [record(seed, error, 1.0, 1000.0, routing__iterations=1) for seed, error in enumerate((1.0, 2.0, 4.0))]
    third = [record(seed, error, 1.0, 1000.0, routing__iterations=3) for seed, error in ((2, 3.5), (1, 1.0), (7, 9.0))]
    other = [record(0, 50.0, 1.0, 1000.0, routing__iterations=3, data__dataset="kmnist")]
    header, _, *rows = tables.paired([*first, *third, *other], ["routing.iterations"]).splitlines()
    assert columns(header)[-2:] == ["difference %", "p (paired t)"]
    # Seeds 1 and 2: differences -1 and -0.5, mean -0.75, t(0.975; 1) = 12.7062, so ± 12.7062 · 0.25; p of t = 3.
    [row] = rows
    assert columns(row)[-3:] == ["3", "-0.75 ± 3.18 (n = 2)", "0.2"]
    assert tables.paired([*first, *other], ["routing.iterations"]) == ""


def test_what_differs_between_data_sets_alone_is_no_other_setting():
    found = [
        record(seed, r + seed / 10 + shift, routing__iterations=r, data__shift=shift, data__dataset=dataset)
        for dataset, shift in (("mnist", 2), ("kmnist", 1))
        for r in (1, 3)
        for seed in range(3)
    ]
    header, _, *rows = tables.paired(found, ["routing.iterations"]).splitlines()
    assert columns(header)[:2] == ["dataset", "routing.iterations"]
    assert [columns(row)[:3] for row in rows] == [
        ["mnist", "3", "+2.00 ± 0.00 (n = 3)"],
        ["kmnist", "3", "+2.00 ± 0.00 (n = 3)"],
    ]


def test_other_images_or_more_of_them_have_their_own_first_setting():
    found = [
        record(seed, error + seed / 10, data__train_size=size, train__epochs=epochs, transfer__source=source)
        for size, epochs, errors in ((100, 9, (5.0, 4.0)), (1000, 2, (2.0, 2.5)))
        for source, error in zip(("none", "mnist"), errors, strict=True)
        for seed in range(3)
    ]
    rows = tables.paired(found, ["data.train_size", "train.epochs", "transfer.source"]).splitlines()[2:]
    assert [columns(row)[1:5] for row in rows] == [
        ["100", "9", "mnist", "-1.00 ± 0.00 (n = 3)"],
        ["1000", "2", "mnist", "+0.50 ± 0.00 (n = 3)"],
    ]


def test_what_makes_no_difference_is_not_told_and_counts_no_run_twice():
    found = [
        record(seed, 1.0 + seed, routing__name=name, routing__iterations=r)
        for name in ("dynamic", "learned")
        for r in (1, 3)
        for seed in (0, 1)
    ]
    _, _, *rows = tables.summary(found, ["routing.name", "routing.iterations"]).splitlines()
    assert [columns(row)[2:5] for row in rows] == [
        ["dynamic", "1", "1.50 ± 6.35 (n = 2)"],
        ["dynamic", "3", "1.50 ± 6.35 (n = 2)"],
        ["learned", "1.50 ± 6.35 (n = 2)", "2.00 ± 0.00 (n = 2)"],
    ]


def test_the_best_of_many_settings_have_the_least_validation_error():
    found = [record(0, 9.0 - rate, abs(rate - 7.2), 1.0, train__learning_rate=float(rate)) for rate in range(1, 12)]
    found.append(record(0, 0.0, math.nan, 1.0, train__learning_rate=0.5))
    title, _, _, *rows = tables.best(found, ["train.learning_rate"]).splitlines()
    assert title == "the 5 settings of least validation error:"
    assert [columns(row)[-4] for row in rows] == ["7.0", "8.0", "6.0", "9.0", "5.0"]
    assert tables.best(found[:10], ["train.learning_rate"]) == ""


def test_costs_that_differ_and_top5_errors_have_columns():
    found = [record(seed, 1.0, 2.0, 10.0, model__name=name) for name in ("resnet8", "resnet56") for seed in (0, 1)]
    for member in found:
        first = member.settings["model.name"] == "resnet8"
        costs = {"parameters": 75_002, "flops": 18_290_432} if first else {"parameters": 852_730, "flops": 191e6}
        member.result.update(costs | {"test_top5_error": 0.25 + member.seed})
    header, _, small, large = tables.summary(found, []).splitlines()
    tail = ["parameters", "MFLOP/image", "test error %", "top-5 error %", "validation error %", "images/s"]
    assert columns(header)[-6:] == tail
    assert columns(small)[-6:-4] == ["75,002", "18.3"]
    assert columns(large)[-6:-4] == ["852,730", "191"]
    assert columns(small)[-3] == "0.75 ± 6.35 (n = 2)"  # t(0.975; 1) = 12.7062 times 0.5
    # What all have alike need not be told.
    assert "parameters" not in tables.summary(found[:2], [])


@pytest.mark.parametrize("rule", [False, True])
def test_columns_stand_under_each_other(rule):
    lines = tables.align([["a", "bbb"], ["cc", "d"]], rule=rule).splitlines()
    assert lines == ["a   bbb", *(["--  ---"] if rule else []), "cc  d"]
    assert tables.align([]) == ""
