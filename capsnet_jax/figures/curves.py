"""Learning curves: a metric against the epoch, mean over seeds and the interval of that mean."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import capsnet_jax.figures.style as style
from capsnet_jax.figures.grouping import (
    DATASET,
    Curve,
    Record,
    distinct_settings,
    group_by_dataset,
    interval_reach,
    mean_curve,
)
from capsnet_jax.figures.labels import (
    dataset_label,
    interval_label,
    label,
    possible_range,
    seeds_label,
    setting_label,
)

METRICS = ("validation_error", "train_error")  # different losses, or with and without a decoder, cannot be compared


@style.styled
def learning_curves(
    records: Sequence[Record],
    by: Sequence[str],
    *,
    metrics: Sequence[str] = METRICS,
    all_records: Sequence[Record] | None = None,
    level: float = 0.95,
) -> Figure:
    """Draw each metric against the epoch, one colour a setting, one row of panels a data set.

    Args:
        records: finished runs, in any order.
        by: the paths whose distinct values are the settings compared.
        metrics: names in `Record.metrics`, one panel each.
        all_records: all runs of the experiment, if `records` are some of them. A setting then has the same colour in
            figures of all and of some runs.
        level: the coverage of the bands.

    Returns:
        The figure. A panel's y axis is logarithmic where its means span more than a decade. Where seeds ran
        for different numbers of epochs, the mean at an epoch is over those that reached it.

    Raises:
        ValueError: there are no records, or none has a metric asked for.
    """
    datasets = group_by_dataset(records, by)
    settings = distinct_settings(datasets if all_records is None else group_by_dataset(all_records, by))
    figure = style.new_figure(0.9 + 2.6 * len(datasets) + 0.2 * len(distinct_settings(datasets)))
    panels = figure.subplots(len(datasets), len(metrics), squeeze=False, sharex="row")
    counts: list[int] = []
    for row, (dataset, groups) in zip(panels, datasets.items(), strict=True):
        counts += [len(runs) for runs in groups.values()]
        for axes, metric in zip(row, metrics, strict=True):
            curves = {setting: mean_curve(runs, metric, level) for setting, runs in groups.items()}
            for setting, curve in curves.items():
                name = f"{setting_label(by, setting)} (n = {len(groups[setting])})"
                look = style.series_style(settings.index(setting))
                draw_curve(axes, curve, label=name, limits=possible_range(metric), **look)
            _scale(axes, list(curves.values()))
            axes.set(xlabel=label("epoch"), ylabel=label(metric))
            if len(datasets) > 1:
                axes.set_title(dataset_label(dataset))
    style.legend(figure, panels.flat)
    names = ", ".join(dataset_label(dataset) for dataset in datasets)
    line = f"line: mean of {seeds_label(counts)}"
    style.caption(figure, names, line, interval_label(counts, level, "band"), caveats(records, metrics))
    return figure


def draw_curve(
    axes: Axes,
    curve: Curve,
    *,
    label: str,
    color: str,
    linestyle: str = "-",
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> None:
    """Draw the mean as a line (a dot where there is one point) and its interval as a band.

    Args:
        axes: the panel.
        curve: what to draw.
        label: its name in the legend.
        color: of line and band.
        linestyle: of the line.
        limits: the least and the greatest possible value; the band is cut off there.
    """
    marker = "o" if curve.x.size == 1 else ""
    axes.plot(curve.x, curve.mean, label=label, color=color, linestyle=linestyle, marker=marker)
    if np.isfinite(curve.half_width).any():
        below, above = interval_reach(curve.mean, curve.half_width, limits)
        low, high = curve.mean - below, curve.mean + above
        axes.fill_between(curve.x, low, high, color=color, alpha=style.BAND_ALPHA, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def caveats(records: Sequence[Record], metrics: Sequence[str]) -> str:
    """Return what a reader of the means must know: values that are left out, seeds that stop early; "" if nothing."""
    series = [[np.asarray(r.metrics[m], np.float64) for m in metrics if m in r.metrics] for r in records]
    broken = sum(any(not np.isfinite(values).all() for values in run) for run in series)
    datasets = [record.settings[DATASET] for record in records]
    lengths = {(dataset, values.size) for dataset, run in zip(datasets, series, strict=True) for values in run}
    left_out = f"values that are not finite are left out ({broken} of {len(records)} runs)" if broken else ""
    unequal = "a mean is over the seeds that reached its epoch" if len(lengths) > len(set(datasets)) else ""
    return "; ".join(filter(None, (left_out, unequal)))


def _scale(axes: Axes, curves: Sequence[Curve]) -> None:
    """Make the y axis logarithmic where the means span a decade; otherwise keep it from going below zero.

    On the logarithmic axis the limits are those of the means: the lower edge of a wide band can be negative.
    """
    means = np.concatenate([curve.mean for curve in curves])
    means = means[np.isfinite(means)]
    if means.size and means.min() > 0 and means.max() > 10 * means.min():
        axes.set_yscale("log")
        axes.set_ylim(means.min() / 1.3, means.max() * 1.3)
        style.log_ticks(axes.yaxis)
    elif means.size and means.min() >= 0 and axes.get_ylim()[0] < 0:
        axes.set_ylim(bottom=0)
