"""Final errors: every seed a dot, the mean and its interval beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation

import capsnet_jax.figures.style as style
from capsnet_jax.figures.groups import Record, by_dataset, results
from capsnet_jax.figures.labels import dataset_label, interval_label, label, seeds_label, setting_label
from capsnet_jax.figures.rows import BEYOND, Row, draw_rows
from capsnet_jax.statistics import Estimate, describe, mean_interval

_DODGE = 12  # points between series that share an x value
_BESIDE = 5  # points between a mean and the dots of its seeds, against an axis


@style.styled
def error_against(
    records: Sequence[Record],
    path: str,
    *,
    by: Sequence[str] = (),
    quantity: str = "test_error",
    level: float = 0.95,
) -> Figure:
    """Draws the test error against a numeric setting, one panel a data set.

    Args:
        records: finished runs, in any order.
        path: the setting on the x axis, such as `routing.iterations`.
        by: paths whose distinct values give a series each.
        quantity: the name in `Record.result` on the y axis.
        level: the coverage of the intervals.

    Raises:
        ValueError: there are no records, none has a path or the quantity, or `path` is not numeric.
    """
    datasets = by_dataset(records, [*by, path])
    keys = [key for groups in datasets.values() for key in groups]
    positions = sorted({_number(key[-1], path) for key in keys})
    series = list(dict.fromkeys(key[:-1] for key in keys))
    columns = 2 if len(datasets) == 4 else min(len(datasets), 3)
    rows = -(-len(datasets) // columns)
    figure = style.new_figure(0.9 + 2.7 * rows + 0.2 * len(series))
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    estimates: list[Estimate] = []
    for axes, (dataset, groups) in zip(panels, datasets.items(), strict=False):
        for index, name in enumerate(series):
            seeds = {_number(k[-1], path): results(v, quantity) for k, v in groups.items() if k[:-1] == name}
            colour = style.series_style(index)["color"]
            offset = _DODGE * (index - (len(series) - 1) / 2)
            if seeds:
                estimates += _draw_series(axes, seeds, setting_label(by, name), colour, offset, level)
        if not any((results(runs, quantity) < 0).any() for runs in groups.values()):
            axes.set_ylim(bottom=max(0, axes.get_ylim()[0]))  # where an interval may reach below
        axes.set(xlabel=label(path), ylabel=label(quantity), title=dataset_label(dataset))
        _ticks(axes, positions)
    for axes in panels[len(datasets) :]:
        axes.remove()
    if len(series) > 1:
        style.legend(figure, panels[: len(datasets)])
    style.caption(figure, _caption(datasets, estimates, len(records), level))
    return figure


@style.styled
def error_by_setting(
    records: Sequence[Record], by: Sequence[str], *, quantity: str = "test_error", level: float = 0.95
) -> Figure:
    """Draws one row a setting: its seeds as dots, the mean with its interval, and both in words.

    Args:
        records: finished runs, in any order.
        by: the paths whose distinct values are the settings compared.
        quantity: the name in `Record.result` on the x axis.
        level: the coverage of the intervals.

    Returns:
        The figure: one panel a data set, the first setting on top.

    Raises:
        ValueError: there are no records, or none has a path or the quantity.
    """
    datasets = by_dataset(records, by)
    rows = [len(groups) for groups in datasets.values()]
    figure = style.new_figure(0.8 + sum(0.7 + 0.5 * count for count in rows))
    panels = figure.subplots(len(rows), 1, squeeze=False, height_ratios=[count + 0.6 for count in rows]).ravel()
    estimates: list[Estimate] = []
    beyond = False
    for axes, (dataset, groups) in zip(panels, datasets.items(), strict=True):
        lines: list[Row] = []
        for key, runs in groups.items():
            values = results(runs, quantity)
            found = mean_interval(values, level)
            estimates.append(found)
            colour = style.series_style(len(lines))["color"]
            name = setting_label(by, key)
            lines.append(Row(name, values, found.mean, found.half_width, describe(found), colour))
        beyond |= draw_rows(axes, lines)
        axes.set(xlabel=label(quantity), title=dataset_label(dataset))
    style.caption(figure, _caption(datasets, estimates, len(records), level) + BEYOND * beyond)
    return figure


def _draw_series(
    axes: Axes, seeds: Mapping[float, np.ndarray], name: str, colour: str, offset: float, level: float
) -> list[Estimate]:
    """Draws the values of all seeds at each x, their means and intervals, `offset` points to the side."""
    estimates = [mean_interval(values, level) for values in seeds.values()]
    figure = axes.get_figure(root=True)
    assert figure is not None, "axes are drawn in a figure"
    place = axes.transData + ScaledTranslation(offset / 72, 0, figure.dpi_scale_trans)
    beside = place + ScaledTranslation(-_BESIDE / 72, 0, figure.dpi_scale_trans)
    x, sizes = np.array(list(seeds)), [values.size for values in seeds.values()]
    dots = np.concatenate(list(seeds.values()))
    axes.plot(x.repeat(sizes), dots, "o", color=colour, alpha=0.4, markersize=4.5, mew=0, transform=beside)
    mean = np.array([estimate.mean for estimate in estimates])
    half = np.array([estimate.half_width for estimate in estimates])
    shape: dict[str, Any] = {"fmt": "D-", "markersize": 5.5, "capsize": 4, "linewidth": 1.2}
    axes.errorbar(x, mean, yerr=half, color=colour, label=name, transform=place, **shape)
    # Shifted artists do not count when the axes find their limits: give the values themselves.
    low, high = mean - np.nan_to_num(half), mean + np.nan_to_num(half)
    axes.update_datalim(np.column_stack([[*x.repeat(sizes), *x, *x], [*dots, *low, *high]]))
    axes.autoscale_view()
    return estimates


def _ticks(axes: Axes, positions: Sequence[float]) -> None:
    """Puts a tick at each value that was run; the axis is logarithmic where the values span much."""
    if positions[0] > 0 and positions[-1] >= 10 * positions[0]:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(positions))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.12)


def _number(value: object, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{path} holds {value!r}, which is not a number: error_by_setting draws such settings")
    return float(value)


def _caption(datasets: Iterable[object], estimates: Sequence[Estimate], runs: int, level: float) -> str:
    counts = [estimate.n for estimate in estimates]
    names = ", ".join(dataset_label(dataset) for dataset in datasets)
    missing = runs - sum(counts)
    left_out = f"; {missing} of {runs} runs left out: no finite value" if missing else ""
    marks = f"dot: one seed; diamond: mean of {seeds_label(counts)}"
    return f"{names}; {marks}; {interval_label(counts, level, 'bar')}{left_out}"
