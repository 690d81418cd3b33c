"""Test errors of networks against what they cost: parameters, and computing for one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation

import capsnet_jax.figures.style as style
from capsnet_jax.figures.groups import Record, Setting, by_dataset, results
from capsnet_jax.figures.labels import dataset_label, interval_label, label, seeds_label, setting_label
from capsnet_jax.statistics import Estimate, mean_interval

# Name in `Record.result`, a unit's worth, and the axis in words.
_COSTS = (("parameters", 1e6, "parameters [millions]"), ("flops", 1e6, "computing for one image [MFLOP]"))
_MARKERS = "Dsov^<>PX"  # colours are not all that tells networks apart
_NEAR = 1.15  # costs within this factor count as equal, and their marks stand side by side
_DODGE = 9  # points between them


@style.styled
def error_by_cost(
    records: Sequence[Record], by: Sequence[str], *, quantity: str = "test_error", level: float = 0.95
) -> Figure:
    """Draws the mean error of every setting against its parameters and its FLOPs, one row of panels a data set.

    Args:
        records: finished runs, in any order, with "parameters" and "flops" in their results.
        by: the paths whose distinct values are the settings compared.
        quantity: the name in `Record.result` on the y axes.
        level: the coverage of the intervals.

    Returns:
        The figure. The x axes are logarithmic; a setting without its cost or any finite error has no mark there.

    Raises:
        ValueError: there are no records, or none has a path, the quantity or one of the costs.
    """
    datasets = by_dataset(records, by)
    settings = list(dict.fromkeys(key for groups in datasets.values() for key in groups))
    figure = style.new_figure(1.1 + 2.7 * len(datasets) + 0.1 * len(settings))
    panels = figure.subplots(len(datasets), len(_COSTS), squeeze=False, sharey="row")
    counts: list[int] = []
    for row, (dataset, groups) in zip(panels, datasets.items(), strict=True):
        errors = {key: mean_interval(results(runs, quantity), level) for key, runs in groups.items()}
        counts += [estimate.n for estimate in errors.values()]
        for axes, (cost, unit, words) in zip(row, _COSTS, strict=True):
            costs = {key: float(results(runs, cost)[0]) / unit for key, runs in groups.items()}
            _draw(axes, costs, errors, by, settings)
            axes.set_xlabel(words)
            axes.set_title(dataset_label(dataset))
        row[0].set_ylabel(label(quantity))
    style.legend(figure, panels.flat)
    missing = len(records) - sum(counts)
    left_out = f"; {missing} of {len(records)} runs left out: no finite value" if missing else ""
    marks = f"mark: mean of {seeds_label(counts)}; {interval_label(counts, level, 'bar')}"
    beside = "marks of about the same cost stand side by side; a multiplication and an addition are two FLOP"
    style.caption(figure, f"{marks}; {beside}{left_out}")
    return figure


def _draw(
    axes: Axes,
    costs: Mapping[Setting, float],
    errors: Mapping[Setting, Estimate],
    by: Sequence[str],
    settings: Sequence[Setting],
) -> None:
    """Draws one data set's settings over one cost."""
    figure = axes.get_figure(root=True)
    assert figure is not None, "axes are drawn in a figure"
    axes.set_xscale("log")
    offsets = _side_by_side({key: cost for key, cost in costs.items() if np.isfinite([cost, errors[key].mean]).all()})
    for key, offset in offsets.items():
        error, index = errors[key], settings.index(key)
        place = axes.transData + ScaledTranslation(offset / 72, 0, figure.dpi_scale_trans)
        half = None if np.isnan(error.half_width) else error.half_width
        colour, form = style.series_style(index)["color"], _MARKERS[index % len(_MARKERS)]
        shape: dict[str, Any] = {"fmt": form, "color": colour, "markersize": 6.5, "capsize": 3.5}
        axes.errorbar(costs[key], error.mean, yerr=half, label=setting_label(by, key), transform=place, **shape)
        # Shifted artists do not count when the axes find their limits: give the values themselves.
        reach = half or 0
        axes.update_datalim([[costs[key], error.mean - reach], [costs[key], error.mean + reach]])
    axes.margins(x=0.12, y=0.08)
    axes.autoscale_view()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _side_by_side(costs: Mapping[Setting, float]) -> dict[Setting, float]:
    """Points by which each mark is moved to the right, so that marks of about the same cost do not cover each other."""
    clusters: list[list[Setting]] = []
    for key in sorted(costs, key=lambda key: costs[key]):
        if clusters and costs[key] <= _NEAR * costs[clusters[-1][-1]]:
            clusters[-1].append(key)
        else:
            clusters.append([key])
    return {key: _DODGE * (i - (len(keys) - 1) / 2) for keys in clusters for i, key in enumerate(keys)}
