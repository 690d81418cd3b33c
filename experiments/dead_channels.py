"""How many channels and capsules die through training, by learning rate, squash and routing iterations?

Claim: a step that is too large pushes a ReLU below 0 for every image, from where no gradient brings it back; "as much
as 40 % of the network" can be dead if the learning rate is too high (Karpathy, CS231n notes). For capsules nobody has
counted. Sabour's squash has a gradient that vanishes at 0, so a short capsule may stay short; the exponential one of
Efficient-CapsNet (Mazzia et al. 2021, arXiv:2101.12491) has not. Counted on 1,000 validation images after each epoch,
and on all test images at the end.

    python launch.py --experiment=dead_channels --seeds=3 --set data.validation_fraction=0.25 --set train.batch_size=32

36 runs of the 5,000 embedded digits take seven minutes on 2 cores.

Dead: a channel never above 0 at any position of any image, a capsule never longer than 0.1. Nearly dead: a channel
above 0 at fewer than 0.1 % of positions. Starved: a capsule that sends, or gets, less than 1 % of what it would if all
had as much, by coupling × length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import capsnet_jax.figures.style as style
from capsnet_jax.config import Config
from capsnet_jax.data import Dataset
from capsnet_jax.figures.arms import name_missing
from capsnet_jax.figures.curves import caveats, draw_curve
from capsnet_jax.figures.grouping import (
    Record,
    Setting,
    by_dataset,
    compared_paths,
    each_result,
    mean_curve,
    single_dataset,
)
from capsnet_jax.figures.labels import (
    MODEL,
    dataset_label,
    dataset_slug,
    interval_label,
    label,
    listing,
    possible_range,
    seeds_label,
    setting_label,
)
from capsnet_jax.figures.marks import draw_mean, stacked
from capsnet_jax.overrides import grid
from capsnet_jax.report.render import Table
from capsnet_jax.statistics import PERCENT, cut_label, describe_interval, mean_interval

CONFIG: dict[str, object] = {"train.epochs": 5, "eval.dead": True}

RATE, SQUASHES = "train.learning_rate", ("routing.squash", "model.squash")
RATES = (0.001, 0.01, 0.03)

_CAPSNET = {MODEL: "capsnet_small"}
SWEEP: list[dict[str, object]] = [
    *(_CAPSNET | dict.fromkeys(SQUASHES, "sabour") | arm for arm in grid({"routing.iterations": (1, 3), RATE: RATES})),
    *(
        _CAPSNET | dict.fromkeys(SQUASHES, "exponential") | arm
        for arm in grid({"routing.iterations": (3,), RATE: RATES})
    ),
    *grid({MODEL: ("cnn_small",), RATE: RATES}),
]

CAPTIONS = {
    "through_training": "what is dead by epoch: a row for each setting, a line for each learning rate",
    "against_rate": "what is dead at the end, on test images, against the learning rate",
}

LEVEL = 0.95
COLUMNS = 3  # panels in a row of `against_rate`


class Part(NamedTuple):
    """What can die in a net: a layer's channels, or its capsules.

    Attributes:
        title: what a panel is called.
        dead: the metric, without its split.
        less: the milder one: nearly dead channels, starved capsules.
    """

    title: str
    dead: str
    less: str


def requires(config: Config, data: Dataset | None) -> str | None:
    """Say what a config lacks, and the remedy; None if all is well."""
    if data is not None and not len(data.validation.labels):
        return "dead_channels counts on validation images, and there are none: raise data.validation_fraction"
    return None


def parts_of(records: Sequence[Record]) -> list[Part]:
    """Return what can die in the records' nets: layers in their order, then primary and class capsules."""
    names = dict.fromkeys(name.removeprefix("test_") for record in records for name in record.result)
    layers = [name.removeprefix("dead_channels_") for name in names if name.startswith("dead_channels_")]
    parts = [Part(layer, f"dead_channels_{layer}", f"near_dead_channels_{layer}") for layer in layers]
    kinds = [kind for kind in ("primary", "class") if f"dead_{kind}_capsules" in names]
    return parts + [Part(f"{kind} capsules", f"dead_{kind}_capsules", f"starved_{kind}_capsules") for kind in kinds]


def observed_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return a row for each run and each part of its net: percentages at the end, of the test images."""
    rows: list[dict[str, Any]] = []
    for (dataset, model), members in _by_net(records).items():
        by = _paths(members)
        for record, part in ((record, part) for record in members for part in parts_of(members)):
            row: dict[str, Any] = {
                "dataset": dataset,
                "preset": record.settings.get("preset"),
                "seed": record.seed,
                "epochs": record.settings.get("train.epochs"),
                "model": model,
                "setting": setting_label(by, [record.settings.get(path) for path in by]),
                "learning_rate": record.settings[RATE],
                "part": part.title,
            }
            results = {"dead": part.dead, "nearly_dead_or_starved": part.less, "test_error": "error"}
            rows.append(row | {name: record.result.get(f"test_{metric}", np.nan) for name, metric in results.items()})
    return rows


def observed_tables(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Return a table for each data set and model: a row for each setting and learning rate."""
    tables = []
    for dataset, model in dict.fromkeys((row["dataset"], row["model"]) for row in rows):
        members = [row for row in rows if (row["dataset"], row["model"]) == (dataset, model)]
        parts = list(dict.fromkeys(row["part"] for row in members))
        lines = []
        for setting, rate in dict.fromkeys((row["setting"], row["learning_rate"]) for row in members):
            runs = [row for row in members if (row["setting"], row["learning_rate"]) == (setting, rate)]
            cells = [
                _text([run[name] for run in runs if run["part"] == part])
                for name in ("dead", "nearly_dead_or_starved")
                for part in parts
            ]
            errors = [run["test_error"] for run in runs if run["part"] == parts[0]]
            lines.append([setting, f"{rate:g}", *cells, _text(errors), f"{np.isfinite(errors).sum()} of {len(errors)}"])
        milder = [f"{'starved' if 'capsules' in part else 'nearly dead'}: {part} %" for part in parts]
        header = ["network", "learning rate", *(f"dead: {part} %" for part in parts), *milder, "test error %", "n"]
        notes = ["of test images, mean ± 95 % interval over n seeds; runs that diverged have no numbers"]
        tables.append(Table(f"{dataset_label(dataset)}, {model}: what is dead at the end", header, lines, notes))
    return tables


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Draw for each net what is dead through training, and at the end against the learning rate."""
    drawn: dict[str, Figure] = {}
    for (dataset, model), members in _by_net(records).items():
        if parts_of(members):
            title = f"{dataset_slug(dataset)}-{model}"
            drawn[f"through_training-{title}"] = through_training(members)
            drawn[f"against_rate-{title}"] = against_rate(members)
    return name_missing(drawn, records, SWEEP)


@style.styled
def through_training(records: Sequence[Record]) -> Figure:
    """Draw what is dead by epoch: a row of panels a setting, a column a part, a line a learning rate.

    Args:
        records: finished runs of one net on one data set, of which some were observed.

    Raises:
        ValueError: they are of several data sets.
    """
    by, parts = _paths(records), parts_of(records)
    dataset, groups = _by_setting(records, by)
    rates = sorted({record.settings[RATE] for record in records})
    figure = style.new_figure(1.2 + 1.75 * len(groups))
    panels = figure.subplots(len(groups), len(parts) + 1, squeeze=False, sharex=True, sharey="col")
    for row, (setting, members) in zip(panels, groups.items(), strict=True):
        for rate, runs in members.items():
            look: dict[str, Any] = {"color": style.shade(rates.index(rate), len(rates)), "limits": PERCENT}
            for axes, part in zip(row, parts, strict=False):
                for name, dash in ((part.dead, "-"), (part.less, ":")):
                    if any(f"validation_{name}" in run.metrics for run in runs):
                        curve = mean_curve(runs, f"validation_{name}", LEVEL)
                        text = f"learning rate {rate:g}" if dash == "-" else "_nolegend_"
                        draw_curve(axes, curve, label=text, linestyle=dash, **look)
            draw_curve(row[-1], mean_curve(runs, "validation_error", LEVEL), label="_nolegend_", **look)
        row[0].set_ylabel(setting_label(by, setting), fontsize=9)
    for axes, title in zip(panels[0], [*(f"{part.title} [%]" for part in parts), "validation error [%]"], strict=True):
        axes.set_title(title.replace(" ", "\n", 1), fontsize=9)
    for axes in panels.flat:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        _show_zero(axes)
    for axes in panels[-1]:
        axes.set_xlabel(label("epoch"))
    style.legend(figure, panels.flat)
    counts = [len(runs) for members in groups.values() for runs in members.values()]
    style.caption(
        figure,
        f"{dataset_label(dataset)}, {records[0].settings[MODEL]}, validation images",
        "solid: dead; dotted: nearly dead channels, starved capsules",
        f"line: mean of {seeds_label(counts)}",
        interval_label(counts, LEVEL, "band"),
        caveats(records, ["validation_error"]),
    )
    return figure


@style.styled
def against_rate(records: Sequence[Record]) -> Figure:
    """Draw what is dead at the end against the learning rate, a panel each, and the test error beside it.

    Args:
        records: finished runs of one net on one data set.

    Raises:
        ValueError: they are of several data sets.
    """
    by, parts = _paths(records), parts_of(records)
    dataset, groups = _by_setting(records, by)
    names = {f"test_{part.dead}": f"dead: {part.title}" for part in parts}
    names |= {
        f"test_{part.less}": f"{'starved' if 'starved' in part.less else 'nearly dead'}: {part.title}" for part in parts
    }
    none = [name for name in names if np.nanmax(each_result(records, name)) == 0]
    shown = {name: text for name, text in names.items() if name not in none} | {"test_error": "test error"}
    rates = sorted({record.settings[RATE] for record in records})
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = style.new_figure(0.9 + 2.1 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    cut = False
    for axes, (name, text) in zip(panels, shown.items(), strict=False):
        for index, (setting, members) in enumerate(groups.items()):
            cut |= _draw_rates(axes, members, name, rates, setting_label(by, setting), index, len(groups))
        axes.set_title(f"{text} [%]", fontsize=9)
        axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(label(RATE))
        _show_zero(axes)
    for axes in panels[len(shown) :]:
        axes.remove()
    style.legend(figure, panels[:1])
    counts = [len(runs) for members in groups.values() for runs in members.values()]
    style.caption(
        figure,
        f"{dataset_label(dataset)}, {records[0].settings[MODEL]}, test images",
        f"dot: one seed; larger mark: mean of {seeds_label(counts)}",
        interval_label(counts, LEVEL, "bar"),
        cut_label(PERCENT) if cut else "",
        f"0 % in every run: {listing([names[name] for name in none], len(none))}" if none else "",
    )
    return figure


def _draw_rates(
    axes: Axes,
    members: Mapping[float, Sequence[Record]],
    name: str,
    rates: Sequence[float],
    text: str,
    index: int,
    count: int,
) -> bool:
    """Draw the `index`-th of `count` settings: seeds, mean and interval at each rate; return whether a bar is cut."""
    look: dict[str, Any] = style.series_style(index)
    cut, means, marker = False, [], style.MARKERS[index % len(style.MARKERS)]
    for rate, runs in members.items():
        values = each_result(runs, name)
        estimate = mean_interval(values, LEVEL)
        x = rates.index(rate) + min(0.22, 0.8 / count) * (index - (count - 1) / 2)
        axes.plot(x - 0.08 - stacked(values, 0.03, 0.06), values, "o", color=look["color"], alpha=0.45, ms=3.5, mew=0)
        mark: dict[str, Any] = {"fmt": marker, "markersize": 4.5, "capsize": 3, "linewidth": 1.2}
        limits = possible_range(name)
        cut |= draw_mean(
            axes, x, estimate.mean, estimate.half_width, along="y", limits=limits, color=look["color"], **mark
        )
        means.append((x, estimate.mean))
    axes.plot(*zip(*means, strict=True), linewidth=1, zorder=1, label="_nolegend_", **look)
    axes.plot([], [], marker=marker, label=text, **look)
    return cut


def _show_zero(axes: Axes) -> None:
    """Begin a panel of percentages a little below 0, so that a line of zeros is seen; it spans at least 1 %."""
    top = min(105.0, max(1.0, axes.get_ylim()[1]))
    axes.set_ylim(-0.04 * top, top)


def _by_net(records: Sequence[Record]) -> dict[tuple[str, str], list[Record]]:
    """Return the runs of each data set and model."""
    found: dict[tuple[str, str], list[Record]] = {}
    for dataset, members in by_dataset(records).items():
        for record in members:
            found.setdefault((dataset, record.settings[MODEL]), []).append(record)
    return found


def _by_setting(records: Sequence[Record], by: Sequence[str]) -> tuple[str, dict[Setting, dict[float, list[Record]]]]:
    """Return the data set, and {setting: {learning rate: runs}}."""
    dataset, groups = single_dataset(records, [*by, RATE])
    found: dict[Setting, dict[float, list[Record]]] = {}
    for (*setting, _), runs in groups.items():
        found.setdefault(tuple(setting), {})[runs[0].settings[RATE]] = runs
    return dataset, found


def _paths(records: Sequence[Record]) -> list[str]:
    """Return the paths that tell runs of one net apart beside the rate; both squashes are one where they agree."""
    paths = [path for path in compared_paths(records) if path not in (RATE, MODEL)]
    if all(len({record.settings.get(path) for path in SQUASHES}) == 1 for record in records):
        paths = [path for path in paths if path != SQUASHES[1]]
    return paths or [MODEL]


def _text(values: Sequence[float]) -> str:
    estimate = mean_interval(values, LEVEL)
    return (
        f"{estimate.mean:.1f}{describe_interval(estimate.mean, estimate.half_width, 1, PERCENT)}" if estimate.n else ""
    )
