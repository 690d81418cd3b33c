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
_MARKERS = "Dsov^PX<>"  # colours are not all that tells networks apart
_PANEL = 225  # points that a panel is wide, about
_MARGIN = 0.1  # of the axes' data on each side
_GAP = 7  # points from one mark to the next at least


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
    beside = "marks of about the same cost are moved apart; a multiplication and an addition are two FLOP"
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
    offsets = _moved_apart({key: cost for key, cost in costs.items() if np.isfinite([cost, errors[key].mean]).all()})
    for index, key in enumerate(settings):
        if key not in offsets:
            continue
        error = errors[key]
        place = axes.transData + ScaledTranslation(offsets[key] / 72, 0, figure.dpi_scale_trans)
        half = None if np.isnan(error.half_width) else error.half_width
        colour, form = style.series_style(index)["color"], _MARKERS[index % len(_MARKERS)]
        shape: dict[str, Any] = {"fmt": form, "color": colour, "markersize": 6.5, "capsize": 3.5}
        axes.errorbar(costs[key], error.mean, yerr=half, label=setting_label(by, key), transform=place, **shape)
        # Shifted artists do not count when the axes find their limits: give the values themselves.
        reach = half or 0
        axes.update_datalim([[costs[key], error.mean - reach], [costs[key], error.mean + reach]])
    axes.margins(x=_MARGIN, y=_MARGIN)
    axes.autoscale_view()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _moved_apart(costs: Mapping[Setting, float]) -> dict[Setting, float]:
    """Points by which each mark is moved to the right: as little as leaves room for it between its neighbours."""
    from scipy.optimize import isotonic_regression  # here alone, for it takes as long to import as matplotlib

    order = sorted(costs, key=lambda key: costs[key])
    places = np.log10([costs[key] for key in order])
    span = np.ptp(places) if len(order) > 1 else 0.0
    places *= _PANEL / (span * (1 + 2 * _MARGIN)) if span else 0.0
    steps = _GAP * np.arange(len(order))
    moved = isotonic_regression(places - steps).x + steps if order else places
    return dict(zip(order, (moved - places).tolist(), strict=True))
