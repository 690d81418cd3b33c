"""Maps of a result over two numbers: a cell for each pair, the mean in it, the best cell outlined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import capsnet_jax.figures.style as style
from capsnet_jax.figures.grouping import Record, group_by_dataset, results
from capsnet_jax.figures.labels import ITERATIONS, dataset_label, label, seeds_label
from capsnet_jax.statistics import mean_interval

_COLOURS = "cividis"  # reads the same with and without red-green vision


@style.styled
def setting_heatmap(
    records: Sequence[Record], x_path: str, y_path: str, *, quantity: str = "validation_error"
) -> Figure:
    """Draw the mean of a result over seeds for every pair of two settings, one panel a data set.

    Args:
        records: finished runs that differ in these two settings, seed and data set alone.
        x_path: the setting across, a number.
        y_path: the setting down, a number.
        quantity: the name in `Record.result`.

    Raises:
        ValueError: there are no records, or none has the quantity.
    """
    datasets = group_by_dataset(records, [y_path, x_path])
    figure, panels = _panels(len(datasets), max(len({y for y, _ in groups}) for groups in datasets.values()))
    counts: list[int] = []
    for axes, (dataset, groups) in zip(panels, datasets.items(), strict=True):
        numbers: dict[Any, list[Record]] = dict(groups)  # both settings are numbers
        rows, columns = (sorted({pair[i] for pair in numbers}) for i in (0, 1))
        means, half_widths = np.full((2, len(rows), len(columns)), np.nan)
        for (y, x), runs in numbers.items():
            estimate = mean_interval(results(runs, quantity))
            cell = rows.index(y), columns.index(x)
            means[cell], half_widths[cell] = estimate.mean, estimate.half_width
            counts.append(estimate.n)
        _draw_cells(axes, means, half_widths, columns, rows)
        if np.isfinite(means).any():
            _outline(axes, *divmod(int(np.nanargmin(means)), len(columns)))
        axes.set(xlabel=label(x_path), ylabel=label(y_path), title=f"{dataset_label(dataset)}: {label(quantity)}")
    style.caption(figure, *_caption(counts, len(records)), "the least is outlined")
    return figure


@style.styled
def train_test_grid(records: Sequence[Record], *, quantity: str = "test_error_at_{}") -> Figure:
    """Draw the error of networks trained with r and tested with r′ routing iterations, one panel a data set.

    Args:
        records: finished runs that differ in their iterations, seed and data set alone.
        quantity: names in `Record.result`, {} standing for r′ = 1, 2, …

    Raises:
        ValueError: there are no records, or none was tested with other iterations.
    """
    datasets = group_by_dataset(records, [ITERATIONS])
    tested = 0
    while any(quantity.format(tested + 1) in record.result for record in records):
        tested += 1
    if not tested:
        raise ValueError("no run was tested with other iterations; train with eval.max_routing_iterations=7")
    figure, panels = _panels(len(datasets), max(len(groups) for groups in datasets.values()))
    counts: list[int] = []
    for axes, (dataset, groups) in zip(panels, datasets.items(), strict=True):
        trained: list[Any] = [r for (r,) in groups]
        means, half_widths = np.full((2, len(trained), tested), np.nan)
        for row, runs in enumerate(groups.values()):
            for t in range(1, tested + 1):
                estimate = mean_interval(results(runs, quantity.format(t)))
                means[row, t - 1], half_widths[row, t - 1] = estimate.mean, estimate.half_width
                counts.append(estimate.n)
        _draw_cells(axes, means, half_widths, range(1, tested + 1), trained)
        for row, r in enumerate(trained):
            if r <= tested:
                _outline(axes, row, r - 1)
        axes.set(xlabel="tested with r′ iterations", ylabel="trained with r iterations")
        axes.set_title(f"{dataset_label(dataset)}: test error [%]")
    style.caption(figure, *_caption(counts, len(records) * tested), "outlined: tested as trained")
    return figure


def _panels(count: int, rows: int) -> tuple[Figure, np.ndarray]:
    figure = style.new_figure(count * (1.1 + 0.5 * rows) + 0.5)
    return figure, figure.subplots(count, 1, squeeze=False).ravel()


def _caption(counts: Sequence[int], values: int) -> tuple[str, ...]:
    missing = values - sum(counts)
    interval = "mean ± 95% Student t interval" if max(counts) > 1 else "value"
    return (
        f"{interval} of {seeds_label(counts)} in each cell",
        "the colour tells its rank",
        f"{missing} values left out: not finite" if missing else "",
    )


def _draw_cells(
    axes: Axes, means: np.ndarray, half_widths: np.ndarray, columns: Sequence[float], rows: Sequence[float]
) -> None:
    """Draw the cells; colours follow the rank, so that one bad corner does not hide what the others say."""
    finite = np.isfinite(means)
    ranks = np.full(means.shape, np.nan)
    ranks[finite] = np.searchsorted(np.sort(means[finite]), means[finite])
    axes.imshow(ranks, cmap=_COLOURS, aspect="auto", vmin=0, vmax=max(1, finite.sum() - 1))
    for (row, column), mean in np.ndenumerate(means):
        half_width = half_widths[row, column]
        text = "–" if np.isnan(mean) else f"{mean:.2f}" + ("" if np.isnan(half_width) else f"\n±{half_width:.2f}")
        colour = "white" if ranks[row, column] < finite.sum() / 2 else style.BLACK
        axes.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)
    axes.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
    axes.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
    axes.grid(False)


def _outline(axes: Axes, row: int, column: int) -> None:
    box = Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, fill=False, edgecolor=style.VERMILLION, linewidth=2)
    axes.add_patch(box)
