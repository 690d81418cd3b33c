"""Forest plots: a row a setting, its seeds as dots, their mean with its interval, and both as text.

`error_by_setting` draws the settings themselves, `paired_differences` what each differs from one of them.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import capsnet_jax.figures.style as style
from capsnet_jax.figures.grouping import (
    Arms,
    Groups,
    Record,
    Setting,
    best_settings,
    each_result,
    group_by_dataset,
    interval_reach,
    is_arm,
    results,
)
from capsnet_jax.figures.labels import (
    dataset_label,
    interval_label,
    label,
    left_out_label,
    possible_range,
    seeds_label,
    setting_label,
)
from capsnet_jax.figures.marks import draw_mean, stacked
from capsnet_jax.statistics import (
    PairedDifference,
    cut_label,
    describe,
    describe_interval,
    is_cut,
    mean_interval,
    paired_difference,
)

BEYOND = "large arrow: far off the axis"  # for a caption, where `forest_plot` returns True
MOST = 40  # rows
_BELOW = 0.22  # rows between a mean and the dots of its seeds
_STEP = 0.09  # rows between the dots of equal seeds
_NAME = 30  # letters in a line of a setting's name
_FAR = 5  # a row is left off the axis where it would make the axis so many times as wide as the others need
_ANYTHING = (-math.inf, math.inf)


class Row(NamedTuple):
    """What a row shows.

    Attributes:
        name: of the setting.
        values: of its seeds.
        mean: of them.
        half_width: of the mean's interval; nan if there is none.
        text: what stands to the right.
        colour: of its marks.
    """

    name: str
    values: Sequence[float] | np.ndarray
    mean: float
    half_width: float
    text: str
    colour: str


@style.styled
def error_by_setting(
    records: Sequence[Record],
    by: Sequence[str],
    *,
    quantity: str = "test_error",
    arms: Arms | None = None,
    level: float = 0.95,
) -> Figure:
    """Draw one row a setting, the first on top, in one panel a data set.

    Args:
        records: finished runs, in any order.
        by: the paths whose distinct values are the settings compared.
        quantity: the name in `Record.result` on the x axis.
        arms: of the whole experiment, if `records` are some of its runs. They decide the colours.
        level: the coverage of the intervals.

    Raises:
        ValueError: there are no records, or none has the quantity.
    """
    arms = arms or Arms(records)
    results(records, quantity)  # raises where no run has it
    shown, left_out = best_settings(records, by, MOST)
    datasets = group_by_dataset(shown, by)
    limits = possible_range(quantity)
    panels: dict[str, list[Row]] = {}
    counts: list[int] = []
    for dataset, groups in datasets.items():
        rows = panels.setdefault(dataset, [])
        for setting, runs in groups.items():
            values = each_result(runs, quantity)
            estimate = mean_interval(values, level)
            counts.append(estimate.n)
            colour = style.series_style(arms.number(runs))["color"]
            name, text = setting_label(by, setting), describe(estimate, limits=limits)
            rows.append(Row(name, values, estimate.mean, estimate.half_width, text, colour))
    figure, notes = _draw_panels(panels, label(quantity), limits=limits)
    style.caption(
        figure,
        ", ".join(dataset_label(dataset) for dataset in datasets),
        f"dot: one seed; diamond: mean of {seeds_label(counts)}",
        interval_label(counts, level, "bar"),
        *notes,
        left_out_label(len(shown) - sum(counts), len(shown)),
        left_out,
    )
    return figure


@style.styled
def paired_differences(
    records: Sequence[Record],
    by: Sequence[str],
    *,
    baseline: Mapping[str, object] | None = None,
    quantity: str = "test_error",
    arms: Arms | None = None,
    level: float = 0.95,
) -> Figure:
    """Draw the difference of every setting from one of them, seed by seed, in one panel a data set.

    Pairs take out what two runs of one seed have in common.

    Args:
        records: finished runs, in any order.
        by: the paths whose distinct values are the settings compared.
        baseline: {path: value} of the setting that the others are compared with; the first where there is no such
            setting. A data set that lacks it has no panel.
        quantity: the name in `Record.result`.
        arms: of the whole experiment, if `records` are some of its runs. They decide the colours.
        level: the coverage of the intervals.

    Raises:
        ValueError: there are no records, none has the quantity, or no setting shares a seed with the baseline.
    """
    arms = arms or Arms(records)
    results(records, quantity)  # raises where no run has it
    chosen, found = _find(records, by, baseline or {})
    shown, left_out = best_settings(records, by, MOST, keep=chosen)
    datasets = group_by_dataset(shown, by)
    pairs = {dataset: _pairs(groups, chosen, quantity) for dataset, groups in datasets.items()}
    pairs = {dataset: others for dataset, others in pairs.items() if others}
    if not pairs:
        raise ValueError(f"no arm shares a seed with {setting_label(by, chosen)}")
    least, greatest = possible_range(quantity)
    limits = (least - greatest, greatest - least)
    panels: dict[str, list[Row]] = {}
    counts: list[int] = []
    for dataset, others in pairs.items():
        rows = panels.setdefault(dataset, [])
        for setting, (values, baseline_values) in others.items():
            difference = paired_difference(values, baseline_values, level)
            counts.append(difference.n)
            colour = style.series_style(arms.number(datasets[dataset][setting]))["color"]
            name, text = setting_label(by, setting), _difference_text(difference, limits)
            dots = np.subtract(values, baseline_values)
            rows.append(Row(name, dots, difference.mean, difference.half_width, text, colour))
    xlabel = textwrap.fill(f"{label(quantity)}, less that of: {setting_label(by, chosen)}", 70)
    figure, notes = _draw_panels(panels, xlabel, origin=0, limits=limits)
    compared = sum(len(runs) for groups in datasets.values() for setting, runs in groups.items() if setting != chosen)
    alone = compared - sum(counts)
    style.caption(
        figure,
        f"dot: one seed's difference; diamond: mean of {seeds_label(counts)}",
        interval_label(counts, level, "bar"),
        "p of the paired t test, not corrected for the number of arms",
        "" if found else "no run of the baseline, so that of the first arm is subtracted",
        f"{alone} runs without a partner of the same seed, or not finite, left out" if alone else "",
        *notes,
        left_out,
    )
    return figure


def has_pairs(
    records: Sequence[Record], by: Sequence[str], baseline: Mapping[str, object], quantity: str = "test_error"
) -> bool:
    """Whether some arm shares a seed with the baseline, so that `paired_differences` has something to draw."""
    chosen, _ = _find(records, by, baseline)
    known = [record for record in records if np.isfinite(record.result.get(quantity, math.nan))]
    return bool(known) and any(_pairs(groups, chosen, quantity) for groups in group_by_dataset(known, by).values())


def forest_plot(
    axes: Axes, rows: Sequence[Row], *, origin: float | None = None, limits: tuple[float, float] = _ANYTHING
) -> bool:
    """Draw the rows, the first on top.

    One row may be so far from all others that they could not be told apart. It is left off the axis, with an arrow at
    the end that it lies beyond.

    Args:
        axes: the panel.
        rows: what to draw.
        origin: a value that the axis shows in any case, with a line at it.
        limits: the least and the greatest possible value; intervals are cut off there.

    Returns:
        Whether a row lies beyond the axis.
    """
    for position, row in enumerate(rows):
        height = position + _BELOW + stacked(row.values, _STEP, 0.45 - _BELOW)
        axes.plot(row.values, height, "o", color=row.colour, alpha=0.45, markersize=5, mew=0)
        look: dict[str, Any] = {"fmt": "D", "markersize": 6, "capsize": 4}
        draw_mean(axes, row.mean, position, row.half_width, along="x", limits=limits, color=row.colour, **look)
        axes.text(1.02, position, row.text, transform=axes.get_yaxis_transform(), va="center", fontsize=9)
    if origin is not None:
        axes.axvline(origin, color=style.GREY, linewidth=1)
    axes.set_yticks(range(len(rows)), [textwrap.fill(row.name, _NAME) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    if not any(np.isfinite(row.values).any() for row in rows):
        axes.set_xticks([])
    far = _far_row(rows, [] if origin is None else [origin], limits)
    if far is None:
        return False
    position, low, high = far
    axes.set_xlim(low - 0.06 * (high - low), high + 0.06 * (high - low))
    right = rows[position].mean > high
    axes.plot(
        0.985 if right else 0.015,
        position,
        ">" if right else "<",
        color=rows[position].colour,
        markersize=9,
        transform=axes.get_yaxis_transform(),
    )
    return True


def _draw_panels(
    panels: Mapping[str, Sequence[Row]], xlabel: str, *, origin: float | None = None, limits: tuple[float, float]
) -> tuple[Figure, list[str]]:
    """Draw a forest plot a data set; return the figure, and what a caption must say of cut bars and far rows."""
    lines = [max(len(textwrap.wrap(row.name, _NAME)) for row in rows) for rows in panels.values()]
    heights = [len(rows) * max(0.5, style.LINE_HEIGHT * n) for rows, n in zip(panels.values(), lines, strict=True)]
    figure = style.new_figure(0.8 + sum(0.7 + height for height in heights))
    column = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[height + 0.3 for height in heights]).ravel()
    beyond = False
    for axes, (dataset, rows) in zip(column, panels.items(), strict=True):
        beyond |= forest_plot(axes, rows, origin=origin, limits=limits)
        axes.set(xlabel=xlabel, title=dataset_label(dataset))
    cut = any(is_cut(row.mean, row.half_width, limits) for rows in panels.values() for row in rows)
    return figure, [cut_label(limits) if cut else "", BEYOND if beyond else ""]


def _find(records: Sequence[Record], by: Sequence[str], wanted: Mapping[str, object]) -> tuple[Setting, bool]:
    """Return the setting that has all `wanted` values at the paths compared, or the first; and whether it has."""
    groups = group_by_dataset(records, by)
    first = {setting: runs[0] for of_dataset in groups.values() for setting, runs in of_dataset.items()}
    for setting, record in first.items():
        # What no run has is not compared.
        if is_arm(record, {path: value for path, value in wanted.items() if path in by or path in record.settings}):
            return setting, True
    return next(iter(first)), False


def _pairs(groups: Groups, baseline: Setting, quantity: str) -> dict[Setting, tuple[list[float], list[float]]]:
    """Return, for every other setting, its values and the baseline's, of the seeds for which both are finite."""
    by_seed = {
        setting: {r.seed: v for r, v in zip(runs, each_result(runs, quantity), strict=True) if np.isfinite(v)}
        for setting, runs in groups.items()
    }
    reference = by_seed.pop(baseline, {})
    shared = {setting: [seed for seed in values if seed in reference] for setting, values in by_seed.items()}
    return {
        setting: ([by_seed[setting][seed] for seed in seeds], [reference[seed] for seed in seeds])
        for setting, seeds in shared.items()
        if seeds
    }


def _difference_text(difference: PairedDifference, limits: tuple[float, float]) -> str:
    n, mean = difference.n, f"{difference.mean:+z.2f}"
    interval = describe_interval(difference.mean, difference.half_width, limits=limits)
    p = f" (n = {n})" if math.isnan(difference.p_value) else f"\n(p = {difference.p_value:.2g}, n = {n})"
    return f"{mean}{interval}{p}".replace("-", "−")


def _far_row(
    rows: Sequence[Row], shown: Sequence[float], limits: tuple[float, float]
) -> tuple[int, float, float] | None:
    """Return the position of the one row that is far from all others, and their least and greatest value."""
    ends: list[tuple[float, float] | None] = []
    for row in rows:
        below, above = np.nan_to_num(interval_reach(row.mean, row.half_width, limits))
        values = [v for v in (*row.values, row.mean - below, row.mean + above) if np.isfinite(v)]
        ends.append((min(values), max(values)) if values else None)
    for position, pair in enumerate(ends):
        others = [value for other, both in enumerate(ends) if both and other != position for value in both]
        if pair is None or len(others) < 4:
            continue
        low, high = min(*others, *shown), max(*others, *shown)
        if max(high, pair[1]) - min(low, pair[0]) > _FAR * (high - low) > 0:
            return position, low, high
    return None
