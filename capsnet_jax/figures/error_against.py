"""The final error against a setting that is a number: every seed a dot, the mean and its interval beside them.

The values of the setting stand at equal distances, as categories do: it is set, not measured, so marks that would hide
each other may stand side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import capsnet_jax.figures.style as style
from capsnet_jax.figures.grouping import Arms, Record, best_settings, each_result, group_by_dataset, results
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
from capsnet_jax.statistics import cut_label, mean_interval

_WIDTH = 0.8  # of what all series of one value take; the next value is 1 away
_MOST_LETTERS, _MOST_TICKS = 100, 60  # of tick labels under a figure, side by side and upright


@style.styled
def error_against(
    records: Sequence[Record],
    path: str,
    *,
    by: Sequence[str] = (),
    quantity: str = "test_error",
    arms: Arms | None = None,
    level: float = 0.95,
) -> Figure:
    """Draw the test error against a numeric setting, one panel a data set.

    Args:
        records: finished runs, in any order.
        path: the setting on the x axis, such as `routing.iterations`. Its values stand at equal distances.
        by: paths whose distinct values give a series each: one marker, joined by a line.
        quantity: the name in `Record.result` on the y axis.
        arms: of the whole experiment, if `records` are some of its runs. They decide the colours.
        level: the coverage of the intervals.

    Raises:
        ValueError: there are no records, none has the quantity, or `path` is not a number in all of them.
    """
    arms = arms or Arms(records)
    results(records, quantity)  # raises where no run has it
    shown, left_out = best_settings(records, by, len(style.MARKERS))
    datasets = group_by_dataset(shown, [*by, path])
    settings = [setting for groups in datasets.values() for setting in groups]
    values = sorted({_number(setting[-1], path) for setting in settings})
    series = list(dict.fromkeys(setting[:-1] for setting in settings))
    columns = 2 if len(datasets) == 4 else min(len(datasets), 3)
    rows = -(-len(datasets) // columns)
    figure = style.new_figure(0.9 + 2.7 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    counts: list[int] = []
    limits, cut = possible_range(quantity), False
    for axes, (dataset, groups) in zip(panels, datasets.items(), strict=False):
        errors = {setting: each_result(runs, quantity) for setting, runs in groups.items()}
        counts += [int(np.isfinite(seeds).sum()) for seeds in errors.values()]
        colours = {setting: style.series_style(arms.number(runs))["color"] for setting, runs in groups.items()}
        for index, name in enumerate(series):
            points = {values.index(_number(s[-1], path)): (errors[s], colours[s]) for s in groups if s[:-1] == name}
            cut |= _draw_series(axes, points, setting_label(by, name), index, len(series), limits, level)
        axes.set(xlabel=label(path), ylabel=label(quantity), title=dataset_label(dataset))
        if any(np.isfinite(seeds).any() for seeds in errors.values()):
            _ticks(axes, values, columns)
        else:
            style.say(axes, f"no finite {label(quantity).split(' [')[0]}")
        if axes.get_ylim()[0] < limits[0]:
            axes.set_ylim(bottom=limits[0])
    for axes in panels[len(datasets) :]:
        axes.remove()
    if len(series) > 1:
        style.legend(figure, panels[: len(datasets)])
    style.caption(
        figure,
        ", ".join(dataset_label(dataset) for dataset in datasets),
        f"dot: one seed; {'diamond' if len(series) == 1 else 'larger mark'}: mean of {seeds_label(counts)}",
        interval_label(counts, level, "bar"),
        cut_label(limits) if cut else "",
        "" if np.allclose(np.diff(values, 2), 0) else "values stand at equal distances",
        left_out_label(len(shown) - sum(counts), len(shown)),
        left_out,
    )
    return figure


def _draw_series(
    axes: Axes,
    points: Mapping[int, tuple[np.ndarray, str]],
    name: str,
    index: int,
    count: int,
    limits: tuple[float, float],
    level: float,
) -> bool:
    """Draw the `index`-th of `count` series: {position: (a value a seed, colour)}; return whether a bar is cut off."""
    width = min(0.4, _WIDTH / count)
    middle = (index - (count - 1) / 2) * width
    beside = 0.2 * width if count > 1 else 0.0
    marker, cut, means = style.MARKERS[index], False, []
    for x, (seeds, colour) in points.items():
        to_the_left = stacked(seeds, 0.15 * width, 0.3 * width)
        place = x + middle - (0.2 if count > 1 else 0.1) * width - to_the_left
        axes.plot(place, seeds, "o", color=colour, alpha=0.45, markersize=4.5, mew=0)
        estimate = mean_interval(seeds, level)
        means.append((x + middle + beside, estimate.mean))
        look: dict[str, Any] = {"fmt": marker, "markersize": 5.5, "capsize": 4, "linewidth": 1.2}
        cut |= draw_mean(axes, *means[-1], estimate.half_width, along="y", limits=limits, color=colour, **look)
    colours = {colour for _, colour in points.values()}
    colour = colours.pop() if len(colours) == 1 else style.GREY
    line: dict[str, Any] = {"color": colour, "linestyle": style.DASHES[index % len(style.DASHES)]}
    if means:
        axes.plot(*zip(*means, strict=True), linewidth=1, zorder=1, **line)
        axes.plot([], [], marker=marker, label=name, **line)
    return cut


def _ticks(axes: Axes, values: Sequence[float], columns: int) -> None:
    """Put a tick at each value that was run, upright where they would not fit, and at some of very many alone."""
    names = [f"{value:g}" for value in values]
    every = -(-len(values) * columns // _MOST_TICKS)
    upright = columns * sum(len(name) + 2 for name in names) > _MOST_LETTERS
    axes.set_xticks(range(0, len(values), every), names[::every], rotation=90 if upright else 0)
    axes.set_xlim(-0.6, len(values) - 0.4)


def _number(value: object, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{path} holds {value!r}, which is not a number: error_by_setting draws such settings")
    return float(value)
