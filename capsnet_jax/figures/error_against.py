"""The final error against a setting that is a number: every seed a dot, the mean and its interval beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation

import capsnet_jax.figures.style as style
from capsnet_jax.figures.grouping import Record, group_by_dataset, interval_reach, results, summarize
from capsnet_jax.figures.labels import (
    dataset_label,
    interval_label,
    label,
    left_out_label,
    possible_range,
    seeds_label,
    setting_label,
)

_DODGE = 12  # points between series that share an x value
_BESIDE = 5  # points between a mean and the dots of its seeds


@style.styled
def error_against(
    records: Sequence[Record],
    path: str,
    *,
    by: Sequence[str] = (),
    quantity: str = "test_error",
    level: float = 0.95,
) -> Figure:
    """Draw the test error against a numeric setting, one panel a data set.

    Args:
        records: finished runs, in any order.
        path: the setting on the x axis, such as `routing.iterations`.
        by: paths whose distinct values give a series each.
        quantity: the name in `Record.result` on the y axis.
        level: the coverage of the intervals.

    Raises:
        ValueError: there are no records, none has the quantity, or `path` is not a number in all of them.
    """
    datasets = group_by_dataset(records, [*by, path])
    settings = [setting for groups in datasets.values() for setting in groups]
    positions = sorted({_number(setting[-1], path) for setting in settings})
    series = list(dict.fromkeys(setting[:-1] for setting in settings))
    columns = 2 if len(datasets) == 4 else min(len(datasets), 3)
    rows = -(-len(datasets) // columns)
    figure = style.new_figure(0.9 + 2.7 * rows + 0.2 * len(series))
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    counts: list[int] = []
    for axes, (dataset, groups) in zip(panels, datasets.items(), strict=False):
        values = {setting: results(runs, quantity) for setting, runs in groups.items()}
        counts += [int(np.isfinite(seeds).sum()) for seeds in values.values()]
        for index, name in enumerate(series):
            points = {_number(s[-1], path): seeds for s, seeds in values.items() if s[:-1] == name}
            colour = style.series_style(index)["color"]
            offset = _DODGE * (index - (len(series) - 1) / 2)
            if points:
                _draw_series(axes, points, setting_label(by, name), colour, offset, possible_range(quantity), level)
        if not any((seeds < 0).any() for seeds in values.values()):
            axes.set_ylim(bottom=max(0, axes.get_ylim()[0]))  # where an interval may reach below
        axes.set(xlabel=label(path), ylabel=label(quantity), title=dataset_label(dataset))
        _ticks(axes, positions)
    for axes in panels[len(datasets) :]:
        axes.remove()
    if len(series) > 1:
        style.legend(figure, panels[: len(datasets)])
    style.caption(
        figure,
        ", ".join(dataset_label(dataset) for dataset in datasets),
        f"dot: one seed; diamond: mean of {seeds_label(counts)}",
        interval_label(counts, level, "bar"),
        left_out_label(len(records) - sum(counts), len(records)),
    )
    return figure


def _draw_series(
    axes: Axes,
    points: Mapping[float, np.ndarray],
    name: str,
    colour: str,
    offset: float,
    limits: tuple[float, float],
    level: float,
) -> None:
    """Draw the values of all seeds at each x, their means and intervals, `offset` points to the side."""
    figure = axes.get_figure(root=True)
    assert figure is not None, "axes are drawn in a figure"
    shifted = axes.transData + ScaledTranslation(offset / 72, 0, figure.dpi_scale_trans)
    beside = shifted + ScaledTranslation(-_BESIDE / 72, 0, figure.dpi_scale_trans)
    x = np.repeat(list(points), [values.size for values in points.values()])
    dots = np.concatenate(list(points.values()))
    axes.plot(x, dots, "o", color=colour, alpha=0.4, markersize=4.5, mew=0, transform=beside)
    curve = summarize(list(points), points.values(), level)
    reach = np.stack(interval_reach(curve.mean, curve.half_width, limits))
    look: dict[str, Any] = {"fmt": "D-", "markersize": 5.5, "capsize": 4, "linewidth": 1.2}
    axes.errorbar(curve.x, curve.mean, yerr=reach, color=colour, label=name, transform=shifted, **look)
    # Shifted artists do not count when the axes find their limits: give the values themselves.
    below, above = np.nan_to_num(reach)
    ys = np.concatenate([dots, curve.mean - below, curve.mean + above])
    axes.update_datalim(np.column_stack([np.concatenate([x, curve.x, curve.x]), ys]))
    axes.autoscale_view()


def _ticks(axes: Axes, positions: Sequence[float]) -> None:
    """Put a tick at each value that was run; the axis is logarithmic where the values span a decade."""
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
