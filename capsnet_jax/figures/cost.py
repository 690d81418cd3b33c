"""Test errors of networks against what they cost: parameters, and computing for one image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

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
from capsnet_jax.figures.marks import draw_mean
from capsnet_jax.statistics import Estimate, cut_label, mean_interval

# Name in `Record.result`, a unit's worth, and the label of the axis.
_COSTS = (("parameters", 1e6, "parameters [millions]"), ("flops", 1e6, "computing for one image [MFLOP]"))
_MARGIN = 0.1  # of the axes' data on each side


@style.styled
def error_by_cost(
    records: Sequence[Record],
    by: Sequence[str],
    *,
    quantity: str = "test_error",
    arms: Arms | None = None,
    level: float = 0.95,
) -> Figure:
    """Draw the mean error of every setting against its parameters and its FLOPs, one row of panels a data set.

    Args:
        records: finished runs, in any order, with "parameters" and "flops" in their results.
        by: the paths whose distinct values are the settings compared.
        quantity: the name in `Record.result` on the y axes.
        arms: of the whole experiment, if `records` are some of its runs. They decide the colours and markers.
        level: the coverage of the intervals.

    Returns:
        The figure. The x axes are logarithmic. Every mark stands where its cost is: marks are hollow, and bars at one
        cost have caps of different widths, so that none hides another. A setting without its cost or any finite error
        has no mark there.

    Raises:
        ValueError: there are no records, or none has the quantity.
    """
    arms = arms or Arms(records)
    results(records, quantity)  # raises where no run has it
    shown, left_out = best_settings(records, by, style.MOST)
    datasets = group_by_dataset(shown, by)
    figure = style.new_figure(1.1 + 2.7 * len(datasets))
    panels = figure.subplots(len(datasets), len(_COSTS), squeeze=False, sharey="row")
    counts: list[int] = []
    limits, cut = possible_range(quantity), False
    for row, (dataset, groups) in zip(panels, datasets.items(), strict=True):
        errors = {setting: mean_interval(each_result(runs, quantity), level) for setting, runs in groups.items()}
        counts += [estimate.n for estimate in errors.values()]
        for axes, (cost, unit, xlabel) in zip(row, _COSTS, strict=True):
            costs = {setting: runs[0].result.get(cost, math.nan) / unit for setting, runs in groups.items()}
            cut |= _draw(axes, groups, costs, errors, by, arms, limits)
            axes.set(xlabel=xlabel, title=dataset_label(dataset))
        row[0].set_ylabel(label(quantity))
    style.legend(figure, panels.flat)
    style.caption(
        figure,
        f"mark: mean of {seeds_label(counts)}",
        interval_label(counts, level, "bar"),
        cut_label(limits) if cut else "",
        "a multiplication and an addition are two FLOP",
        left_out_label(len(shown) - sum(counts), len(shown)),
        left_out,
    )
    return figure


def _draw(
    axes: Axes,
    groups: Groups,
    costs: Mapping[Setting, float],
    errors: Mapping[Setting, Estimate],
    by: Sequence[str],
    arms: Arms,
    limits: tuple[float, float],
) -> bool:
    """Draw one data set's settings over one cost; return whether a bar is cut off."""
    known = [s for s in groups if np.isfinite([costs[s], errors[s].mean]).all() and costs[s] > 0]
    if not known:
        style.say(axes, "no run has both an error and this cost")
        return False
    axes.set_xscale("log")
    cut = False
    by_cost = sorted(known, key=lambda setting: costs[setting])
    for setting in known:
        number, error = arms.number(groups[setting]), errors[setting]
        marker, capsize = style.MARKERS[number % len(style.MARKERS)], 3 + 1.5 * (by_cost.index(setting) % 4)
        look: dict[str, Any] = {
            "fmt": marker,
            "mfc": "none",
            "mew": 1.5,
            "markersize": 7,
            "label": setting_label(by, setting),
        }
        look |= {"capsize": capsize, "elinewidth": 1.2}
        at, colour = (costs[setting], error.mean), style.series_style(number)["color"]
        cut |= draw_mean(axes, *at, error.half_width, along="y", limits=limits, color=colour, **look)
    axes.margins(x=_MARGIN, y=_MARGIN)
    style.log_ticks(axes.xaxis)
    return cut
