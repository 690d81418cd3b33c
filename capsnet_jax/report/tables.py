"""Records as tables: means with intervals, settings paired by seed, the best settings of a sweep; and as a CSV file."""

import csv
import dataclasses
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from capsnet_jax.overrides import all_paths
from capsnet_jax.report.grouping import Setting, by_data, group, headings, shown_paths
from capsnet_jax.report.pairing import paired
from capsnet_jax.report.render import Table, to_text
from capsnet_jax.statistics import PERCENT, cut_label, describe, is_cut, mean_interval, wilson_interval
from capsnet_jax.sweeps.files import write_text
from capsnet_jax.sweeps.records import Record, format_setting
from capsnet_jax.sweeps.varying import varying_paths

# Shown where settings differ in it: {name in `Record.result`: (heading, a unit's worth)}.
COSTS = {"parameters": ("parameters", 1), "flops": ("MFLOP/image", 1e6), "memory_mb": ("memory MB", 1)}
ERRORS = {"test_error": "test error %", "test_top5_error": "top-5 error %", "validation_error": "validation error %"}
SELECTIONS = {
    "test_error": "last epoch",
    "test_error_by_validation": "best by validation",
    "test_error_picked_on_test": "picked on test (overfit)",
}
MANY = 10  # settings; data with more has a table of the best
BEST = 5


def as_text(records: Sequence[Record], swept: Sequence[str], baseline: Mapping[str, Any]) -> str:
    """Return what the terminal prints of records: every table, and which code made them."""
    tables = all_tables(records, swept, baseline)
    return "\n\n".join([*map(to_text, tables), f"code of revision {describe_revisions(records)}"])


def all_tables(records: Sequence[Record], swept: Sequence[str], baseline: Mapping[str, Any]) -> list[Table]:
    """Return every table that has something to tell."""
    tables = [summary(records, swept), selection(records, swept)]
    tables += [paired(records, swept, baseline), *best(records, swept)]
    return [table for table in tables if table.rows or table.notes]


def describe_revisions(records: Sequence[Record]) -> str:
    """Return how many runs were made by which revision of the code: `abc1234 (12 runs), def5678 (1 run)`."""
    counts = Counter(record.revision for record in records)
    return ", ".join(f"{revision} ({count_runs(n)})" for revision, n in counts.items())


def with_counts(records: Sequence[Record], experiment: ModuleType) -> list[Record]:
    """Return the records with what an experiment counts of each, as FLOPs, among the results."""
    if not hasattr(experiment, "count"):
        return list(records)
    return [dataclasses.replace(record, result=record.result | experiment.count(record)) for record in records]


def count_runs(n: int) -> str:
    """Return "1 run" or "12 runs"."""
    return f"{n} run" if n == 1 else f"{n:,} runs"


def summary(records: Sequence[Record], swept: Sequence[str]) -> Table:
    """Make a row for each setting, with means and intervals over its seeds."""
    notes = ["mean ± 95 % interval over n seeds; images/s: median"]
    if diverged := sum(record.diverged for record in records):
        notes.append(f"{diverged} of {count_runs(len(records))} diverged")
    settings = group(records, swept)
    if mixed := sum(len({tuple(record.code.items()) for record in setting.runs.values()}) > 1 for setting in settings):
        notes.append(f"{mixed} of these settings mix runs of different code; --rerun trains them anew")
    if unknown := Counter(path for record in records for path in record.settings if path not in all_paths()):
        paths = ", ".join(f"{path} ({count_runs(n)})" for path, n in unknown.items())
        notes.append(f"settings that this version does not know, as other versions have them: {paths}")
    table = _results(settings, shown_paths(records, swept))
    return table._replace(notes=[*notes, *table.notes])


def selection(records: Sequence[Record], swept: Sequence[str]) -> Table:
    """Make a row for each setting whose epochs were all tested, with the error that each rule of choosing reports.

    The rules: the last epoch, the epoch of least validation error, and what choosing on the test set would have
    claimed, by epoch and by epoch and seed.
    """
    tested = [record for record in records if "test_error_picked_on_test" in record.result]
    if not tested:
        return Table("", [], [], [])
    paths, rows = shown_paths(tested, swept), []
    for setting in group(tested, swept):
        estimates = [mean_interval(setting.results(name)) for name in SELECTIONS]
        picked = np.array(setting.results("test_error_picked_on_test"))
        least = "" if np.isnan(picked).all() else f"{np.nanmin(picked):.2f}"
        rows.append([*setting.cells(paths), *(describe(each, limits=PERCENT) for each in estimates), least])
    header = [*headings(paths), *SELECTIONS.values(), "epoch and seed picked on test (overfit)"]
    notes = [
        "Test error in percent, by the rule that chooses. The last two choose on the test set: they are no results."
    ]
    return Table("what choosing an epoch is worth", header, rows, notes)


def best(records: Sequence[Record], swept: Sequence[str]) -> list[Table]:
    """Make a table of the settings with the least validation error, for data with many settings that have one."""
    tables = []
    for all_settings in by_data(group(records, swept)):
        settings = [setting for setting in all_settings if math.isfinite(_validation_error(setting))]
        if len(settings) > MANY:
            table = _results(sorted(settings, key=_validation_error)[:BEST], shown_paths(records, swept))
            title = f"the {BEST} settings of least validation error"
            notes = ["The test error stands beside it and chose nothing.", *table.notes]
            tables.append(table._replace(title=title, notes=notes))
    return tables


def write_csv(path: Path, records: Sequence[Record], swept: Sequence[str]) -> None:
    """Write a tidy table: a row for each setting and seed, the test error first among the results.

    What a run does not have is left empty.
    """
    results = dict.fromkeys(["test_error", *(name for record in records for name in record.result)])
    paths = [path for path in varying_paths(records, swept) if path not in ("preset", "train.epochs")]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["dataset", "preset", "seed", "epochs", *paths, *results])
    for record in records:
        settings = record.settings
        fixed = [settings["data.dataset"], settings.get("preset"), record.seed, settings.get("train.epochs")]
        values = [format_setting(record, path) for path in paths]
        table.writerow([*fixed, *values, *(_decimal(record.result.get(name)) for name in results)])
    write_text(path, text.getvalue())


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of {column: value} as a CSV file; what a row does not have, and numbers not known, are left empty."""
    columns = dict.fromkeys(name for row in rows for name in row)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    for row in rows:
        cells = (None if isinstance(v := row.get(name), float) and math.isnan(v) else v for name in columns)
        table.writerow([_decimal(value) if isinstance(value, float) else value for value in cells])
    write_text(path, text.getvalue())


def _results(settings: Sequence[Setting], paths: Sequence[str]) -> Table:
    """Make a row for each setting: its values, its costs where they differ, errors, and speed."""
    results = [run.result for setting in settings for run in setting.runs.values()]
    costs = [name for name in COSTS if len({result.get(name) for result in results}) > 1]
    errors = [name for name in ERRORS if name != "test_top5_error" or any(name in result for result in results)]
    rows, cut = [], False
    images = [_test_images(setting) for setting in settings]
    for setting, count in zip(settings, images, strict=True):
        cost = [_thousands(setting.results(name)[0] / COSTS[name][1]) for name in costs]
        estimates = [mean_interval(setting.results(name)) for name in errors]
        cut |= any(is_cut(estimate.mean, estimate.half_width, PERCENT) for estimate in estimates)
        texts = [describe(estimate, limits=PERCENT) for estimate in estimates]
        if all(images):
            texts.insert(1, _by_images(estimates[0].mean, count))
        speeds = [speed for speed in setting.results("images_per_second") if not math.isnan(speed)]
        rows.append([*setting.cells(paths), *cost, *texts, f"{np.median(speeds):,.0f}" if speeds else ""])
    told = [ERRORS[name] for name in errors]
    notes = [f"[low, high]: {cut_label(PERCENT)}"] if cut else []
    if all(images):
        told.insert(1, "test error % by images")
        counts = " or ".join(f"{count:,}" for count in dict.fromkeys(images))
        notes.append(f"by images: Wilson's 95 % interval of a mean error on {counts} images; seeds play no part in it")
    return Table("", [*headings(paths), *(COSTS[name][0] for name in costs), *told, "images/s"], rows, notes)


def _by_images(mean: float, images: int) -> str:
    return "" if math.isnan(mean) else "{:.2f} to {:.2f}".format(*wilson_interval(mean, images))


def _test_images(setting: Setting) -> int:
    """Return how many test images a setting's runs have classified; 0 where that is not known of all, or differs."""
    sizes = {0 if run.wrong is None else run.wrong.size for run in setting.runs.values()}
    return sizes.pop() if len(sizes) == 1 else 0


def _validation_error(setting: Setting) -> float:
    """Return the mean over seeds; infinite where it is not known."""
    mean = mean_interval(setting.results("validation_error")).mean
    return math.inf if math.isnan(mean) else mean


def _thousands(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def _decimal(value: float | None) -> str:
    """Return six significant digits, but whole numbers, such as those of parameters, in full."""
    if value is None:
        return ""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.6g}"
