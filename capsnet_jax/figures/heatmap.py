"""Maps of a result over two numbers: a cell for each pair, whose text and colour are the mean."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import capsnet_jax.figures.style as style
from capsnet_jax.figures.grouping import Record, group_by_dataset, results
from capsnet_jax.figures.labels import ITERATIONS, dataset_label, label, possible_range, seeds_label
from capsnet_jax.statistics import Estimate, cut_label, describe_interval, is_cut, mean_interval

_COLOURS = "cividis"  # reads the same with and without red-green vision
_MOST_TEXTS = 12  # columns whose cells have room for a text


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
    results(records, quantity)  # raises where no run has it
    datasets = group_by_dataset(records, [y_path, x_path])
    figure, panels = _panels(len(datasets), max(len({y for y, _ in groups}) for groups in datasets.values()))
    estimates: list[Estimate] = []
    for axes, (dataset, groups) in zip(panels, datasets.items(), strict=True):
        numbers: dict[Any, list[Record]] = dict(groups)  # both settings are numbers
        rows, columns = (sorted({pair[i] for pair in numbers}) for i in (0, 1))
        cells = [[_estimate(numbers.get((y, x), []), quantity) for x in columns] for y in rows]
        means = _draw_cells(axes, cells, columns, rows, quantity, label(quantity))
        if np.isfinite(means).any():
            _outline(axes, *divmod(int(np.nanargmin(means)), len(columns)))
        axes.set(xlabel=label(x_path), ylabel=label(y_path), title=dataset_label(dataset))
        estimates += itertools.chain(*cells)
    style.caption(figure, *_caption(estimates, len(records), quantity), "the least is outlined")
    return figure


@style.styled
def train_test_grid(records: Sequence[Record], *, quantity: str = "test_error_at_{}") -> Figure:
    """Draw the error of networks trained with r and tested with r′ routing iterations, one panel a data set.

    Args:
        records: finished runs that differ in their iterations, seed and data set alone. Those that do not iterate are
            left out.
        quantity: names in `Record.result`, {} standing for r′ = 1, 2, …

    Raises:
        ValueError: there are no records, or none was tested with other iterations.
    """
    tested = 0
    while any(quantity.format(tested + 1) in record.result for record in records):
        tested += 1
    if not tested:
        raise ValueError("no run was tested with other iterations; train with eval.max_routing_iterations=7")
    iterating = [record for record in records if record.settings.get(ITERATIONS) is not None]
    datasets, columns = group_by_dataset(iterating, [ITERATIONS]), range(1, tested + 1)
    figure, panels = _panels(len(datasets), max(len(groups) for groups in datasets.values()))
    estimates: list[Estimate] = []
    for axes, (dataset, groups) in zip(panels, datasets.items(), strict=True):
        trained: list[Any] = [r for (r,) in groups]
        cells = [[_estimate(runs, quantity.format(t)) for t in columns] for runs in groups.values()]
        _draw_cells(axes, cells, columns, trained, quantity, "test error [%]")
        for row, r in enumerate(trained):
            if r <= tested:
                _outline(axes, row, r - 1)
        axes.set(xlabel="tested with r′ iterations", ylabel="trained with r iterations", title=dataset_label(dataset))
        estimates += itertools.chain(*cells)
    style.caption(figure, *_caption(estimates, len(iterating) * tested, quantity), "outlined: tested as trained")
    return figure


def _panels(count: int, rows: int) -> tuple[Figure, np.ndarray]:
    figure = style.new_figure(count * (1.1 + 0.5 * rows) + 0.5)
    return figure, figure.subplots(count, 1, squeeze=False).ravel()


def _estimate(runs: Sequence[Record], quantity: str) -> Estimate:
    """Return the mean over the runs that have the quantity, of which there may be none."""
    return mean_interval([run.result.get(quantity, np.nan) for run in runs])


def _caption(estimates: Sequence[Estimate], values: int, quantity: str) -> tuple[str, ...]:
    counts = [estimate.n for estimate in estimates if estimate.n]
    missing, limits = values - sum(counts), possible_range(quantity)
    cut = any(is_cut(estimate.mean, estimate.half_width, limits) for estimate in estimates)
    return (
        f"cell: {'mean ± 95% Student t interval' if max(counts, default=0) > 1 else 'value'} of {seeds_label(counts)}",
        "colour: the mean",
        cut_label(limits) if cut else "",
        f"{missing} values left out: not finite" if missing else "",
        "–: no value" if any(not estimate.n for estimate in estimates) else "",
    )


def _draw_cells(
    axes: Axes,
    cells: Sequence[Sequence[Estimate]],
    columns: Sequence[float],
    rows: Sequence[float],
    quantity: str,
    text: str,
) -> np.ndarray:
    """Draw the cells and, beside them, what their colours mean; return the means, float[rows, columns]."""
    means = np.array([[estimate.mean for estimate in row] for row in cells])
    image = axes.imshow(means, cmap=_COLOURS, aspect="auto")
    if np.isfinite(means).any():
        figure = axes.get_figure(root=True)
        assert figure is not None, "axes are drawn in a figure"
        figure.colorbar(image, ax=axes, label=text, pad=0.02)
    wide = len(columns) <= _MOST_TEXTS
    for (row, column), mean in np.ndenumerate(means if wide else means[:0]):
        red, green, blue, _ = image.to_rgba(mean)
        dark = np.isfinite(mean) and 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        interval = describe_interval(mean, cells[row][column].half_width, limits=possible_range(quantity)).strip()
        words = [f"{mean:.2f}", interval.replace("± ", "±")] if np.isfinite(mean) else ["–"]
        axes.text(
            *(column, row, "\n".join(filter(None, words))),
            ha="center",
            va="center",
            fontsize=9,
            color="white" if dark else style.BLACK,
        )
    axes.set_xticks(range(len(columns)), [f"{value:g}" for value in columns], rotation=0 if wide else 90)
    axes.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
    axes.grid(False)
    return means


def _outline(axes: Axes, row: int, column: int) -> None:
    box = Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, fill=False, edgecolor=style.VERMILLION, linewidth=2)
    axes.add_patch(box)
