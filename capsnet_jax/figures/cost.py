"""Test errors of networks against what they cost: parameters, and computing for one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation
from scipy.optimize import isotonic_regression

import capsnet_jax.figures.style as style
from capsnet_jax.figures.grouping import (
    Record,
    Setting,
    distinct_settings,
    group_by_dataset,
    interval_reach,
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
from capsnet_jax.statistics import Estimate, mean_interval

# Name in `Record.result`, a unit's worth, and the label of the axis.
_COSTS = (("parameters", 1e6, "parameters [millions]"), ("flops", 1e6, "computing for one image [MFLOP]"))
_MARKERS = "Dsov^PX<>"  # colours are not all that tells networks apart
_PANEL = 225  # points that a panel is wide, about
_MARGIN = 0.1  # of the axes' data on each side
_GAP = 7  # points from one mark to the next at least


@style.styled
def error_by_cost(
    records: Sequence[Record], by: Sequence[str], *, quantity: str = "test_error", level: float = 0.95
) -> Figure:
    """Draw the mean error of every setting against its parameters and its FLOPs, one row of panels a data set.

    Args:
        records: finished runs, in any order, with "parameters" and "flops" in their results.
        by: the paths whose distinct values are the settings compared.
        quantity: the name in `Record.result` on the y axes.
        level: the coverage of the intervals.

    Returns:
        The figure. The x axes are logarithmic; a setting without its cost or any finite error has no mark there.

    Raises:
        ValueError: there are no records, or none has the quantity or one of the costs.
    """
    datasets = group_by_dataset(records, by)
    settings = distinct_settings(datasets)
    figure = style.new_figure(1.1 + 2.7 * len(datasets) + 0.1 * len(settings))
    panels = figure.subplots(len(datasets), len(_COSTS), squeeze=False, sharey="row")
    counts: list[int] = []
    for row, (dataset, groups) in zip(panels, datasets.items(), strict=True):
        errors = {setting: mean_interval(results(runs, quantity), level) for setting, runs in groups.items()}
        counts += [estimate.n for estimate in errors.values()]
        for axes, (cost, unit, xlabel) in zip(row, _COSTS, strict=True):
            costs = {setting: float(results(runs, cost)[0]) / unit for setting, runs in groups.items()}
            _draw(axes, costs, errors, by, settings, possible_range(quantity))
            axes.set(xlabel=xlabel, title=dataset_label(dataset))
        row[0].set_ylabel(label(quantity))
    style.legend(figure, panels.flat)
    style.caption(
        figure,
        f"mark: mean of {seeds_label(counts)}",
        interval_label(counts, level, "bar"),
        "marks of about the same cost are moved apart; a multiplication and an addition are two FLOP",
        left_out_label(len(records) - sum(counts), len(records)),
    )
    return figure


def _draw(
    axes: Axes,
    costs: Mapping[Setting, float],
    errors: Mapping[Setting, Estimate],
    by: Sequence[str],
    settings: Sequence[Setting],
    limits: tuple[float, float],
) -> None:
    """Draw one data set's settings over one cost."""
    figure = axes.get_figure(root=True)
    assert figure is not None, "axes are drawn in a figure"
    axes.set_xscale("log")
    known = {setting: cost for setting, cost in costs.items() if np.isfinite([cost, errors[setting].mean]).all()}
    offsets = _offsets(known)
    for index, setting in enumerate(settings):
        if setting not in offsets:
            continue
        cost, error = costs[setting], errors[setting]
        shifted = axes.transData + ScaledTranslation(offsets[setting] / 72, 0, figure.dpi_scale_trans)
        reach = np.vstack(interval_reach(error.mean, error.half_width, limits))
        look: dict[str, Any] = {"fmt": _MARKERS[index % len(_MARKERS)], "markersize": 6.5, "capsize": 3.5}
        axes.errorbar(
            cost,
            error.mean,
            yerr=None if np.isnan(error.half_width) else reach,
            label=setting_label(by, setting),
            color=style.series_style(index)["color"],
            transform=shifted,
            **look,
        )
        # Shifted artists do not count when the axes find their limits: give the values themselves.
        below, above = np.nan_to_num(reach).ravel()
        axes.update_datalim([[cost, error.mean - below], [cost, error.mean + above]])
    axes.margins(x=_MARGIN, y=_MARGIN)
    axes.autoscale_view()
    style.log_ticks(axes.xaxis)


def _offsets(costs: Mapping[Setting, float]) -> dict[Setting, float]:
    """Return by how many points to move each mark to the right, so that neighbours do not cover each other.

    Isotonic regression finds the least moves that leave `_GAP` points between the marks.
    """
    order = sorted(costs, key=lambda setting: costs[setting])
    positions = np.log10([costs[setting] for setting in order])
    span = np.ptp(positions) if len(order) > 1 else 0.0
    positions *= _PANEL / (span * (1 + 2 * _MARGIN)) if span else 0.0
    gaps = _GAP * np.arange(len(order))
    moved = isotonic_regression(positions - gaps).x + gaps if order else positions
    return dict(zip(order, (moved - positions).tolist(), strict=True))
