"""Transfer learning's quadrants: ways to move to new data, for more or less of it, more or less like the old."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import capsnet_jax.figures.style as style
from capsnet_jax.figures.groups import Record, group, results
from capsnet_jax.figures.labels import dataset_label, interval_label, label, seeds_label
from capsnet_jax.statistics import mean_interval

_TARGET = ("data.dataset", "data.variant")
_SIZE = "data.train_size"

Place = tuple[str, str, int]  # data set, variant, number of training images


@style.styled
def transfer_quadrants(
    records: Sequence[Record],
    strategies: Mapping[str, Mapping[str, object]],
    advice: Mapping[Place, str],
    *,
    quantity: str = "test_error",
    level: float = 0.95,
) -> Figure:
    """Draws a panel for each target (down) and number of training images (across), a row in it for each strategy.

    Args:
        records: finished runs, in any order.
        strategies: each one's name → the settings that tell it from the others.
        advice: which strategy was advised where; its row gets a ring.
        quantity: the name in `Record.result`.
        level: the coverage of the intervals.

    Raises:
        ValueError: there are no records, or none has a path or the quantity.
    """
    paths = list(next(iter(strategies.values())))
    names = {tuple(strategy[path] for path in paths): name for name, strategy in strategies.items()}
    groups = group(records, [*_TARGET, _SIZE, *paths])
    targets = list(dict.fromkeys(key[:2] for key in groups))
    sizes = sorted({int(str(key[2])) for key in groups})
    rows = list(strategies)
    figure = style.new_figure(1.0 + 1.75 * len(targets))
    panels = figure.subplots(len(targets), len(sizes), squeeze=False, sharey=True)
    counts: list[int] = []
    for (row, column), axes in np.ndenumerate(panels):
        (dataset, variant), size = targets[row], sizes[column]
        means: dict[str, float] = {}
        for key, runs in groups.items():
            if key[:3] == (dataset, variant, size) and (name := names.get(key[3:])):
                values = results(runs, quantity)
                counts.append(_draw(axes, values, rows.index(name), level))
                means[name] = float(np.nanmean(values))
        if (advised := advice.get((str(dataset), str(variant), size))) in means:
            axes.plot(means[advised], rows.index(advised), "o", ms=15, mfc="none", mec=style.BLACK)
        if means:
            least = min(means, key=lambda name: means[name])
            axes.axhspan(rows.index(least) - 0.5, rows.index(least) + 0.5, color=style.BLACK, alpha=0.07, lw=0)
            axes.set_xlim(0, 1.15 * axes.dataLim.x1)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        kind = "" if variant == "none" else f", {variant}"
        axes.set_title(f"{dataset_label(dataset)}{kind}\n{size:,} images")
        axes.set(xlabel=label(quantity) if row == len(targets) - 1 else "")
    marks = f"dot: one seed; diamond: mean of {seeds_label(counts)}; {interval_label(counts, level, 'bar')}"
    style.caption(figure, f"{marks}; grey: the least error of the panel; ring: what the slides advise")
    return figure


def _draw(axes: Axes, values: np.ndarray, row: int, level: float) -> int:
    """Draws one strategy's seeds, their mean and interval; returns how many there are."""
    estimate = mean_interval(values, level)
    colour = style.series_style(row)["color"]
    axes.plot(values, np.full(values.size, row + 0.25), "o", color=colour, alpha=0.45, markersize=4, mew=0)
    half = None if np.isnan(estimate.half_width) else estimate.half_width
    axes.errorbar(estimate.mean, row, xerr=half, fmt="D", color=colour, markersize=5, capsize=3)
    return estimate.n
