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
    Arms,
    Curve,
    Record,
    best_settings,
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
from capsnet_jax.statistics import cut_label, is_cut

HELD_OUT = "data.validation_fraction"
METRICS = ("validation_error", "train_error")  # different losses, or with and without a decoder, cannot be compared


@style.styled
def learning_curves(
    records: Sequence[Record],
    by: Sequence[str],
    *,
    metrics: Sequence[str] = METRICS,
    arms: Arms | None = None,
    level: float = 0.95,
) -> Figure:
    """Draw each metric against the epoch, one colour a setting, one row of panels a data set.

    Args:
        records: finished runs, in any order.
        by: the paths whose distinct values are the settings compared.
        metrics: names in `Record.metrics`, one panel each. One that no run has a finite value of has no panel.
        arms: of the whole experiment, if `records` are some of its runs. They decide the colours.
        level: the coverage of the bands.

    Returns:
        The figure. A panel's y axis is logarithmic where its means span more than a decade. Where seeds ran
        for different numbers of epochs, the mean at an epoch is over those that reached it.

    Raises:
        ValueError: there are no records, or none has a metric asked for.
    """
    arms = arms or Arms(records)
    shown, left_out = best_settings(records, by, style.MOST)
    datasets = group_by_dataset(shown, by)
    known = [metric for metric in metrics if has(shown, metric)] or metrics[:1]
    for metric in known:
        mean_curve(shown, metric)  # raises where no run has it
    figure = style.new_figure(0.9 + 2.6 * len(datasets))
    panels = figure.subplots(len(datasets), len(known), squeeze=False, sharex="row")
    counts: list[int] = []
    cut: set[tuple[float, float]] = set()
    for row, (dataset, groups) in zip(panels, datasets.items(), strict=True):
        counts += [len(runs) for runs in groups.values()]
        for axes, metric in zip(row, known, strict=True):
            limits = possible_range(metric)
            curves = {setting: mean_curve(runs, metric, level) for setting, runs in groups.items() if has(runs, metric)}
            for setting, curve in curves.items():
                name = f"{setting_label(by, setting)} (n = {len(groups[setting])})"
                look = style.series_style(arms.number(groups[setting]))
                if draw_curve(axes, curve, label=name, limits=limits, **look):
                    cut.add(limits)
            _scale(axes, list(curves.values()), limits)
            axes.set(xlabel=label("epoch"), ylabel=label(metric))
            if not curves:
                style.say(axes, f"no finite {label(metric).split(' [')[0]}")
            if len(datasets) > 1:
                axes.set_title(dataset_label(dataset))
    style.legend(figure, panels.flat)
    names = ", ".join(dataset_label(dataset) for dataset in datasets)
    line = f"line: mean of {seeds_label(counts)}"
    cuts = [cut_label(limits) for limits in sorted(cut)]
    style.caption(figure, names, line, interval_label(counts, level, "band"), *cuts, caveats(shown, metrics), left_out)
    return figure


def has(records: Sequence[Record], metric: str) -> bool:
    """Whether some run has a finite value of the metric."""
    return any(_is_known(record, metric) for record in records)


def draw_curve(
    axes: Axes,
    curve: Curve,
    *,
    label: str,
    color: str,
    linestyle: str = "-",
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> bool:
    """Draw the mean as a line (a dot where there is one point) and its interval as a band.

    Args:
        axes: the panel.
        curve: what to draw.
        label: its name in the legend.
        color: of line and band.
        linestyle: of the line.
        limits: the least and the greatest possible value; the band is cut off there.

    Returns:
        Whether the band is cut off somewhere.
    """
    marker = "o" if np.isfinite(curve.mean).sum() == 1 else ""
    axes.plot(curve.x, curve.mean, label=label, color=color, linestyle=linestyle, marker=marker)
    if np.isfinite(curve.half_width).any():
        below, above = interval_reach(curve.mean, curve.half_width, limits)
        low, high = curve.mean - below, curve.mean + above
        axes.fill_between(curve.x, low, high, color=color, alpha=style.BAND_ALPHA, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    return any(is_cut(mean, half, limits) for mean, half in zip(curve.mean, curve.half_width, strict=True))


def caveats(records: Sequence[Record], metrics: Sequence[str]) -> str:
    """Return what a reader of the means must know: what runs lack, what is left out; "" if nothing."""
    told = []
    for metric in metrics:
        if lacking := [record for record in records if not _is_known(record, metric)]:
            which = "no run has" if len(lacking) == len(records) else f"{len(lacking)} of {len(records)} runs have no"
            why = all(record.settings.get(HELD_OUT) == 0 for record in lacking) and metric.startswith("validation")
            what = "" if len(lacking) < len(records) else " a"
            told.append(f"{which}{what} {label(metric).split(' [')[0]}" + (", as no image is held out" if why else ""))
    known = [[np.asarray(r.metrics[m], np.float64) for m in metrics if _is_known(r, m)] for r in records]
    if broken := sum(any(not np.isfinite(values).all() for values in run) for run in known):
        told.append(f"values that are not finite are left out ({broken} of {len(records)} runs)")
    datasets = [record.settings[DATASET] for record in records]
    lengths = {(dataset, values.size) for dataset, run in zip(datasets, known, strict=True) for values in run}
    if len(lengths) > len({dataset for dataset, _ in lengths}):
        told.append("a mean is over the seeds that reached its epoch")
    return "; ".join(told)


def _is_known(record: Record, metric: str) -> bool:
    """Whether a run has a finite value of the metric."""
    return metric in record.metrics and bool(np.isfinite(np.asarray(record.metrics[metric], np.float64)).any())


def _scale(axes: Axes, curves: Sequence[Curve], limits: tuple[float, float]) -> None:
    """Make the y axis logarithmic where the means span a decade; otherwise keep it from going below zero.

    On the logarithmic axis the lower limit is that of the means: the lower edge of a wide band can be zero.
    """
    means = np.concatenate([curve.mean for curve in curves]) if curves else np.zeros(0)
    means = means[np.isfinite(means)]
    if means.size and means.min() > 0 and means.max() > 10 * means.min():
        highest = [np.nanmax(c.mean + np.nan_to_num(interval_reach(c.mean, c.half_width, limits)[1])) for c in curves]
        axes.set_yscale("log")
        axes.set_ylim(means.min() / 1.3, max(highest) * 1.3)
        style.log_ticks(axes.yaxis)
    elif means.size and means.min() >= 0 and axes.get_ylim()[0] < 0:
        axes.set_ylim(bottom=0)
