"""Learning curves: a metric against the epoch, mean over seeds and the interval of that mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

import capsnet_jax.figures.style as style
from capsnet_jax.figures.groups import Curve, Record, by_dataset, mean_curve
from capsnet_jax.figures.labels import dataset_label, interval_label, label, seeds_label, setting_label

METRICS = ("validation_error", "train_error")  # losses of other forms, or with a decoder, are other quantities


@style.styled
def learning_curves(
    records: Sequence[Record], by: Sequence[str], *, metrics: Sequence[str] = METRICS, level: float = 0.95
) -> Figure:
    """Draws each metric against the epoch, one colour a setting, one row of panels a data set.

    Args:
        records: finished runs, in any order.
        by: the paths whose distinct values are the settings compared.
        metrics: names in `Record.metrics`, one panel each.
        level: the coverage of the bands.

    Returns:
        The figure. A panel's y axis is logarithmic where its means span more than a decade. Where seeds ran
        for different numbers of epochs, the mean at an epoch is over those that reached it.

    Raises:
        ValueError: there are no records, or none has a path or metric asked for.
    """
    datasets = by_dataset(records, by)
    settings = list(dict.fromkeys(key for groups in datasets.values() for key in groups))
    figure = style.new_figure(0.9 + 2.6 * len(datasets) + 0.2 * len(settings))
    panels = figure.subplots(len(datasets), len(metrics), squeeze=False, sharex="row")
    counts: list[int] = []
    for row, (dataset, groups) in zip(panels, datasets.items(), strict=True):
        counts += [len(runs) for runs in groups.values()]
        for axes, metric in zip(row, metrics, strict=True):
            curves = {key: mean_curve(runs, metric, level) for key, runs in groups.items()}
            for key, curve in curves.items():
                name = f"{setting_label(by, key)} (n = {len(groups[key])})"
                draw_curve(axes, curve, label=name, **style.series_style(settings.index(key)))
            _scale(axes, list(curves.values()))
            axes.set(xlabel=label("epoch"), ylabel=label(metric))
            if len(datasets) > 1:
                axes.set_title(dataset_label(dataset))
    style.legend(figure, panels.flat)
    names = ", ".join(dataset_label(dataset) for dataset in datasets)
    text = f"{names}; line: mean of {seeds_label(counts)}; {interval_label(counts, level, 'band')}"
    style.caption(figure, text + remarks(records, metrics))
    return figure


def draw_curve(axes: Axes, curve: Curve, *, label: str, color: str, linestyle: str = "-") -> None:
    """Draws the mean as a line (a dot where there is one epoch) and its interval as a band."""
    marker = "o" if curve.epochs.size == 1 else ""
    axes.plot(curve.epochs, curve.mean, label=label, color=color, linestyle=linestyle, marker=marker)
    if np.isfinite(curve.half_width).any():
        low, high = curve.mean - curve.half_width, curve.mean + curve.half_width
        axes.fill_between(curve.epochs, low, high, color=color, alpha=style.BAND_ALPHA, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def remarks(records: Sequence[Record], metrics: Sequence[str]) -> str:
    """Returns what a reader of the means must know: values that are left out, seeds that stop early."""
    series = [[np.asarray(r.metrics[m], np.float64) for m in metrics if m in r.metrics] for r in records]
    broken = sum(any(not np.isfinite(values).all() for values in run) for run in series)
    datasets = [r.settings["data.dataset"] for r in records]
    lengths = {(dataset, values.size) for dataset, run in zip(datasets, series, strict=True) for values in run}
    text = f"; values that are not finite are left out ({broken} of {len(records)} runs)" if broken else ""
    return text + ("; a mean is over the seeds that reached its epoch" if len(lengths) > len(set(datasets)) else "")


def _scale(axes: Axes, curves: Sequence[Curve]) -> None:
    """Makes the y axis logarithmic where the means span a decade; otherwise keeps it from going below zero.

    On the logarithmic axis the limits are those of the means: the lower edge of a wide band can be negative.
    """
    means = np.concatenate([curve.mean for curve in curves])
    means = means[np.isfinite(means)]
    if means.size and means.min() > 0 and means.max() > 10 * means.min():
        axes.set_yscale("log")
        axes.set_ylim(means.min() / 1.3, means.max() * 1.3)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif means.size and means.min() >= 0 and axes.get_ylim()[0] < 0:
        axes.set_ylim(bottom=0)
