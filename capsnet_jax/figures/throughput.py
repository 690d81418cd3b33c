"""Speed: subjects beside each other, and curves over what makes the work grow."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

import capsnet_jax.figures.style as style
from capsnet_jax.bench.ratios import by_round, ratio, select, spread

if TYPE_CHECKING:
    from capsnet_jax.bench.ledger import Row

COMPARED = ("training", "inference", "compile")  # groups that set subjects beside each other
CURVES = {  # groups that are curves, by the field on the x axis
    "iterations": "routing iterations r",
    "batch": "batch [images]",
    "classes": "classes",
    "side": "image side [pixels]",
    "runs": "runs in one program",
}
_SUBJECTS = {
    "capsnet_jax": ("capsnet_jax", style.BLUE),
    "pytorch_compiled": ("PyTorch, compiled", style.ORANGE),
    "pytorch": ("PyTorch, eager", style.VERMILLION),
    "plain_jax": ("plain JAX", style.GREY),
}
# What an axis says, its scale, and the quantities on it with their marks.
_PANELS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("training [images / s]", "log", {"training": "o"}),
    ("inference [images / s]", "log", {"inference": "o"}),
    ("peak memory [MB]\n● training   ■ inference", "linear", {"training_memory": "o", "inference_memory": "s"}),
    ("compiling the training step [s]\n● cold   ■ warm cache", "log", {"compile_cold": "o", "compile_warm": "s"}),
)


@style.styled
def throughput_by_subject(rows: Sequence[Row]) -> Figure:
    """Draws speed, peak memory and compile time of every subject, each with its ratio to this project's.

    Args:
        rows: of one case.

    Raises:
        ValueError: there is nothing to compare.
    """
    preset = rows[0].case.split()[0] if rows else ""
    compared = [row for row in rows if row.group in COMPARED and row.preset == preset]
    panels = [panel for panel in _PANELS if any(row.quantity in panel[2] for row in compared)]
    if not panels:
        raise ValueError("no row compares subjects")
    subjects = [name for name in _SUBJECTS if select(compared, subject=name)]
    lines = -(-len(panels) // 2)
    figure = style.new_figure(0.6 + lines * (0.75 + 0.42 * len(subjects)))
    axes = figure.subplots(lines, 2, squeeze=False, sharey=True).ravel()
    for place, (title, scale, marks) in zip(axes, panels, strict=False):
        for lift, (quantity, mark) in zip((6, -14), marks.items(), strict=False):
            _subjects(place, select(compared, quantity=quantity), subjects, mark, lift)
        place.set(xlabel=title, xscale=scale, ylim=(len(subjects) - 0.4, -0.65))
        place.set_yticks(range(len(subjects)), [_SUBJECTS[name][0] for name in subjects])
        place.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        place.xaxis.set_minor_formatter(NullFormatter())
        place.margins(x=0.22)
        if scale == "linear":
            place.set_xlim(left=0)
        else:
            place.xaxis.set_major_locator(
                FixedLocator([digit * 10.0**power for power in range(-3, 7) for digit in (1, 2, 5)])
            )
    for place in axes[len(panels) :]:
        place.remove()
    style.caption(figure, f"{_caption(compared)}; ×: this project's speed, or its cost, over the subject's")
    return figure


@style.styled
def throughput_scaling(rows: Sequence[Row]) -> Figure:
    """Draws training speed against batch, iterations, classes, image side and runs, one panel each.

    Args:
        rows: of one case.

    Raises:
        ValueError: there is no curve.
    """
    curves = {name: select(rows, group=name, quantity="training") for name in CURVES}
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        raise ValueError("no row is of a curve")
    columns = min(3, len(curves))
    lines = -(-len(curves) // columns)
    figure = style.new_figure(1.0 + 2.35 * lines)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for place, (name, points) in zip(axes, curves.items(), strict=False):
        for label, (colour, dashes, series) in _series(name, points).items():
            _curve(place, name, series, label, colour, dashes)
        place.set(xlabel=CURVES[name], title=f"{points[0].preset} preset", yscale="log")
        ticks = sorted({getattr(row, name) for row in points})
        if ticks[-1] >= 8 * ticks[0]:
            place.set_xscale("log")
        place.xaxis.set_major_locator(FixedLocator(ticks))
        place.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        place.xaxis.set_minor_locator(NullLocator())
        for formatter in (place.yaxis.set_major_formatter, place.yaxis.set_minor_formatter):
            formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if f"{value:e}"[0] in "1235" else ""))
    for place in axes[len(curves) :]:
        place.remove()
    for place in axes[: len(curves) : columns]:
        place.set_ylabel("training [images / s]")
    style.legend(figure, axes[: len(curves)])
    style.caption(figure, _caption([row for points in curves.values() for row in points]))
    return figure


def _subjects(axes: Axes, rows: Sequence[Row], subjects: Sequence[str], mark: str, lift: float) -> None:
    """One quantity: a line a subject, with every round, their range, and the median in words, `lift` points above."""
    ours = by_round(select(rows, subject="capsnet_jax"))
    for line, name in enumerate(subjects):
        own = select(rows, subject=name)
        if not own:
            continue
        values, colour = [row.value for row in own], _SUBJECTS[name][1]
        middle = spread(values)
        axes.plot(values, [line] * len(values), mark, color=colour, alpha=0.4, markersize=4, mew=0)
        axes.plot([middle.low, middle.high], [line, line], "-", color=colour, linewidth=1.2)
        axes.plot(middle.median, line, mark, color=colour, markersize=6)
        against = ratio(ours, by_round(own)) if name != "capsnet_jax" else None
        words = f"{middle.median:,.3g}" if middle.median < 1000 else f"{middle.median:,.0f}"
        words += f" ({against.median:.2g}×)" if against else ""
        offset = {"xytext": (0, lift), "textcoords": "offset points"}
        axes.annotate(words, (middle.median, line), ha="center", fontsize=8, color=colour, **offset)  # type: ignore[arg-type]


def _series(name: str, points: Sequence[Row]) -> dict[str, tuple[str, str, list[Row]]]:
    """The curves of a panel: {label: (colour, dashes, rows)}."""
    if name != "runs":
        found = {subject: select(points, subject=subject) for subject in _SUBJECTS}
        return {_SUBJECTS[s][0]: (_SUBJECTS[s][1], "-", own) for s, own in found.items() if own}
    alone = select(points, runs=1)
    styles = {"map": ("runs in turn (map)", style.GREEN, "-"), "vmap": ("runs batched (vmap)", style.PURPLE, "--")}
    return {
        label: (colour, dashes, alone + [row for row in points if row.across == across and row.runs > 1])
        for across, (label, colour, dashes) in styles.items()
    }


def _curve(axes: Axes, name: str, rows: Sequence[Row], label: str, colour: str, dashes: str) -> None:
    """Medians with the range of their rounds."""
    at: dict[float, list[float]] = {}
    for row in sorted(rows, key=lambda row: getattr(row, name)):
        at.setdefault(getattr(row, name), []).append(row.value)
    found = [spread(values) for values in at.values()]
    middle = np.array([point.median for point in found])
    reach = np.array([[p.median - p.low for p in found], [p.high - p.median for p in found]])
    axes.errorbar(
        list(at), middle, yerr=reach, fmt="o", linestyle=dashes, color=colour, label=label, markersize=4, capsize=3
    )


def _caption(rows: Sequence[Row]) -> str:
    """Settings, and how often was measured."""
    timed = [row for row in rows if row.quantity in ("training", "inference")]
    of_series: dict[tuple, int] = {}
    for row in timed or rows:
        key = row._replace(round=0, value=0.0)
        of_series[key] = of_series.get(key, 0) + 1
    usual = [statistics.mode(getattr(row, name) for row in rows) for name in ("batch", "iterations")]
    varies = " but where it is the axis" if any(row.group in CURVES for row in rows) else ""
    low, high = min(of_series.values()), max(of_series.values())
    count = f"n = {low}" if low == high else f"n = {low} to {high}"
    return (
        f"{rows[0].case}: batch {usual[0]}, r = {usual[1]}{varies}; subjects in turns, median of {count} rounds;"
        " line or bar: least to greatest"
    )
