"""Records as text for the terminal: means with intervals, settings paired by seed, and the best settings of a sweep."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from capsnet_jax.statistics import describe, mean_interval, paired_difference
from capsnet_jax.sweeps.files import write_text
from capsnet_jax.sweeps.records import Record, compared_paths, format_setting, varying_paths

_NAMES = {"data.dataset": "dataset", "train.epochs": "epochs"}
_SAME = ("data.dataset", "data.label", "data.transform", "data.train_size")  # what makes data the same
# What is told of settings that differ in it, with its unit: {name in `Record.result`: (heading, a unit's worth)}.
_COSTS = {"parameters": ("parameters", 1), "flops": ("MFLOP/image", 1e6)}
_ERRORS = {"test_error": "test error %", "test_top5_error": "top-5 error %", "validation_error": "validation error %"}
_MANY = 10  # settings, from which the best are worth a table of their own
_BEST = 5

Key = tuple[str, ...]


def summary(records: Sequence[Record], swept: Sequence[str]) -> str:
    """Every setting with mean and 95 % interval over its seeds."""
    paths, groups = _grouped(records, varying_paths(records, ["train.epochs", *swept]))
    return align(_rows(paths, groups), rule=True)


def best(records: Sequence[Record], swept: Sequence[str]) -> str:
    """The settings of least validation error, where data has many; the test error beside it chose nothing."""
    paths, groups = _grouped(records, varying_paths(records, ["train.epochs", *swept]))
    tables = []
    for keys in _by_data(paths, groups).values():
        if len(keys) > _MANY:
            order = sorted(keys, key=lambda key: _mean(groups[key], "validation_error"))[:_BEST]
            table = align(_rows(paths, {key: groups[key] for key in order}), rule=True)
            tables.append(f"the {_BEST} settings of least validation error:\n{table}")
    return "\n\n".join(tables)


def paired(records: Sequence[Record], swept: Sequence[str], level: float = 0.95) -> str:
    """Test errors of every setting less those of the first on the same data, seed by seed; "" where none has both."""
    paths, groups = _grouped(records, compared_paths(records, swept))
    errors = {key: {m.seed: m.result.get("test_error", math.nan) for m in members} for key, members in groups.items()}
    rows = [[*(_NAMES.get(path, path) for path in paths), "difference %", "p (paired t)"]]
    for first, *others in _by_data(paths, groups).values():
        for key in others:
            own, reference = errors[key], errors[first]
            seeds = [seed for seed in own if seed in reference]
            found = paired_difference([own[s] for s in seeds], [reference[s] for s in seeds], level)
            if found.n >= 2:
                difference = f"{found.mean:+.2f} ± {found.half_width:.2f} (n = {found.n})"
                rows.append([*key, difference, f"{found.p_value:.2g}"])
    return align(rows, rule=True) if len(rows) > 1 else ""


def align(rows: Sequence[Sequence[str]], *, rule: bool = False) -> str:
    """Rows as lines with columns under each other, with a rule under the first if asked for; "" without rows."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], *(["  ".join("-" * width for width in widths)] if rule else []), *lines[1:]])


def _grouped(records: Sequence[Record], by: Sequence[str]) -> tuple[list[str], dict[Key, list[Record]]]:
    """The paths by which settings are told apart, the data set first, and each setting's records by their values.

    What makes no difference to a run's network is left empty, and runs that differ in nothing else count once.
    """
    paths = ["data.dataset", *by]
    groups: dict[Key, dict[int, Record]] = {}
    for record in records:
        key = tuple(format_setting(record, path) for path in paths)
        groups.setdefault(key, {}).setdefault(record.seed, record)
    return paths, {key: list(members.values()) for key, members in groups.items()}


def _by_data(paths: Sequence[str], keys: Iterable[Key]) -> dict[Key, list[Key]]:
    """The settings of each data: of one set and variant, and of one size."""
    found: dict[Key, list[Key]] = {}
    for key in keys:
        data = tuple(value for path, value in zip(paths, key, strict=True) if path in _SAME)
        found.setdefault(data, []).append(key)
    return found


def _rows(paths: Sequence[str], groups: dict[Key, list[Record]]) -> list[list[str]]:
    everyone = [member for members in groups.values() for member in members]
    costs = [name for name in _COSTS if len({member.result.get(name) for member in everyone}) > 1]
    errors = [name for name in _ERRORS if name != "test_top5_error" or any(name in m.result for m in everyone)]
    header = [*(_NAMES.get(path, path) for path in paths), *(_COSTS[name][0] for name in costs)]
    rows = [[*header, *(_ERRORS[name] for name in errors), "images/s"]]
    for key, members in groups.items():
        cost = [_thousands(members[0].result.get(name, math.nan) / _COSTS[name][1]) for name in costs]
        estimates = [describe(mean_interval([m.result.get(name, math.nan) for m in members])) for name in errors]
        speed = np.median([m.result.get("images_per_second", math.nan) for m in members])
        rows.append([*key, *cost, *estimates, f"{speed:,.0f}"])
    return rows


def _thousands(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() else f"{value:,.1f}"


def _mean(members: Sequence[Record], name: str) -> float:
    mean = mean_interval([member.result.get(name, math.nan) for member in members]).mean
    return math.inf if math.isnan(mean) else mean


def as_text(records, swept, baseline):
    parts = [
        summary(records, swept) + "\n(mean ± 95 % interval over seeds)",
        paired(records, swept),
        best(records, swept),
    ]
    return "\n\n".join(part for part in parts if part)


def write_csv(path: Path, records: Sequence[Record], swept: Sequence[str]) -> None:
    """A tidy table: one row for every setting and seed."""
    results = list(dict.fromkeys(name for record in records for name in record.result))
    results = ["test_error", *(name for name in results if name != "test_error")]
    settings = [path for path in varying_paths(records, swept) if path not in ("preset", "train.epochs")]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["dataset", "preset", "seed", "epochs", *settings, *results])
    for record in records:
        s = record.settings
        fixed = [s["data.dataset"], s["preset"], record.seed, s["train.epochs"]]
        values = [format_setting(record, path) for path in settings]
        table.writerow([*fixed, *values, *(_decimal(record.result.get(name, math.nan)) for name in results)])
    write_text(path, text.getvalue())


def _decimal(value: float) -> str:
    """Six digits, but whole numbers, such as those of parameters, in full."""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.6g}"
