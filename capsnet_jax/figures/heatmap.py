"""Maps of a quantity over two settings: a cell for each pair, its number in it, the best cell outlined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import capsnet_jax.figures.style as style
from capsnet_jax.figures.groups import Record, by_dataset, results
from capsnet_jax.figures.labels import dataset_label, label, seeds_label
from capsnet_jax.statistics import mean_interval

_COLOURS = "cividis"  # reads the same with and without red-green vision


@style.styled
def setting_heatmap(
    records: Sequence[Record], x_path: str, y_path: str, *, quantity: str = "validation_error"
) -> Figure:
    """Draws the mean of a result over seeds for every pair of two settings, one panel a data set.

    Args:
        records: finished runs that differ in these two settings, seed and data set alone.
        x_path: the setting across, a number.
        y_path: the setting down, a number.
        quantity: the name in `Record.result`.

    Raises:
        ValueError: there are no records, or none has a path or the quantity.
    """
    datasets = by_dataset(records, [y_path, x_path])
    figure, panels = _panels(len(datasets), max(len({y for y, _ in groups}) for groups in datasets.values()))
    counts: list[int] = []
    for axes, (dataset, groups) in zip(panels, datasets.items(), strict=True):
        rows, columns = (sorted({float(str(key[i])) for key in groups}) for i in (0, 1))
        means, halves = np.full((2, len(rows), len(columns)), np.nan)
        for (y, x), runs in groups.items():
            estimate = mean_interval(results(runs, quantity))
            place = rows.index(float(str(y))), columns.index(float(str(x)))
            means[place], halves[place] = estimate.mean, estimate.half_width
            counts.append(estimate.n)
        _draw(axes, means, halves, columns, rows)
        if np.isfinite(means).any():
            best = divmod(int(np.nanargmin(means)), len(columns))
            _outline(axes, *best)
        axes.set(xlabel=label(x_path), ylabel=label(y_path), title=f"{dataset_label(dataset)}: {label(quantity)}")
    style.caption(figure, f"{_caption(counts, len(records))}; the least is outlined")
    return figure


@style.styled
def train_test_grid(records: Sequence[Record], *, quantity: str = "test_error_at_{}") -> Figure:
    """Draws the error of networks trained with r and tested with r′ routing iterations, one panel a data set.

    Args:
        records: finished runs that differ in `routing.iterations`, seed and data set alone.
        quantity: names in `Record.result`, {} standing for r′ = 1, 2, …

    Raises:
        ValueError: there are no records, or none was tested with other iterations.
    """
    datasets = by_dataset(records, ["routing.iterations"])
    tested = 0
    while any(quantity.format(tested + 1) in record.result for record in records):
        tested += 1
    if not tested:
        raise ValueError("no run was tested with other iterations; train with routing.probe=7")
    figure, panels = _panels(len(datasets), max(len(groups) for groups in datasets.values()))
    counts: list[int] = []
    for axes, (dataset, groups) in zip(panels, datasets.items(), strict=True):
        trained = [int(str(r)) for (r,) in groups]
        means, halves = np.full((2, len(trained), tested), np.nan)
        for row, runs in enumerate(groups.values()):
            for t in range(1, tested + 1):
                estimate = mean_interval(results(runs, quantity.format(t)))
                means[row, t - 1], halves[row, t - 1] = estimate.mean, estimate.half_width
                counts.append(estimate.n)
        _draw(axes, means, halves, range(1, tested + 1), trained)
        for row, r in enumerate(trained):
            if r <= tested:
                _outline(axes, row, r - 1)
        axes.set(xlabel="tested with r′ iterations", ylabel="trained with r iterations")
        axes.set_title(f"{dataset_label(dataset)}: test error [%]")
    style.caption(figure, f"{_caption(counts, len(records) * tested)}; outlined: tested as trained")
    return figure


def _panels(count: int, rows: int) -> tuple[Figure, np.ndarray]:
    figure = style.new_figure(count * (1.1 + 0.5 * rows) + 0.5)
    return figure, figure.subplots(count, 1, squeeze=False).ravel()


def _caption(counts: Sequence[int], runs: int) -> str:
    missing = runs - sum(counts)
    left_out = f"; {missing} values left out: not finite" if missing else ""
    interval = "mean ± 95% Student t interval" if max(counts) > 1 else "value"
    return f"{interval} of {seeds_label(counts)} in each cell; the colour tells its rank{left_out}"


def _draw(axes: Axes, means: np.ndarray, halves: np.ndarray, columns: Sequence[object], rows: Sequence[object]) -> None:
    """Draws the cells; colours follow the rank, so that one bad corner does not hide what the others say."""
    flat = means.ravel()
    ranks = np.full(flat.shape, np.nan)
    finite = np.isfinite(flat)
    ranks[finite] = np.searchsorted(np.sort(flat[finite]), flat[finite])
    axes.imshow(ranks.reshape(means.shape), cmap=_COLOURS, aspect="auto", vmin=0, vmax=max(1, finite.sum() - 1))
    for (row, column), mean in np.ndenumerate(means):
        rank = ranks.reshape(means.shape)[row, column]
        half = halves[row, column]
        words = "–" if np.isnan(mean) else f"{mean:.2f}" + ("" if np.isnan(half) else f"\n±{half:.2f}")
        colour = "white" if rank < finite.sum() / 2 else style.BLACK
        axes.text(column, row, words, ha="center", va="center", fontsize=9, color=colour)
    axes.set_xticks(range(len(columns)), [_words(value) for value in columns])
    axes.set_yticks(range(len(rows)), [_words(value) for value in rows])
    axes.grid(False)


def _outline(axes: Axes, row: int, column: int) -> None:
    box = Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, fill=False, edgecolor=style.VERMILLION, linewidth=2)
    axes.add_patch(box)


def _words(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)
