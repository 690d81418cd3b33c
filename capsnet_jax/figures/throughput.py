"""Speed: subjects beside each other, and curves over what makes the work grow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

import capsnet_jax.figures.style as style
from capsnet_jax.bench.workload import OURS

if TYPE_CHECKING:  # to import pandas takes half a second, and most figures need none
    import pandas as pd

COMPARED = ("training", "inference", "compile")  # groups that set subjects beside each other
CURVES = {  # groups that are curves, by the field on the x axis
    "iterations": "routing iterations r",
    "batch": "batch [images]",
    "classes": "classes",
    "side": "image side [pixels]",
    "runs": "runs in one program",
    "devices": "devices",
}
_SUBJECTS = {
    "capsnet_jax": ("capsnet_jax", style.BLUE),
    "pytorch_compiled": ("PyTorch, compiled", style.ORANGE),
    "pytorch": ("PyTorch, eager", style.VERMILLION),
    "plain_jax": ("plain JAX", style.GREY),
}
# What an axis says, its scale, and the quantities on it, each with its name where there are two.
_PANELS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("training [images / s]", "log", {"training": ""}),
    ("inference [images / s]", "log", {"inference": ""}),
    ("peak memory [MB]", "linear", {"training_memory": "training", "inference_memory": "inference"}),
    ("compiling the training step [s]", "log", {"compile_cold": "cold", "compile_warm": "warm cache"}),
)
_MARKS = (("o", "●", 6), ("s", "■", -14))  # of a panel's quantities: the marker, the same in text, points to its number


def select(rows: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    """Return the measurements whose columns are as wanted."""
    for name, value in wanted.items():
        rows = rows[rows[name] == value]
    return rows


def by_round(rows: pd.DataFrame, column: str, **wanted: object) -> pd.DataFrame:
    """Return the wanted values, a row a round: what is in one row was measured one after the other."""
    return select(rows, **wanted).pivot_table(index="round", columns=column, values="value", sort=False)


@style.styled
def throughput_by_subject(rows: pd.DataFrame) -> Figure:
    """Draw speed, peak memory and compile time of every subject, each with its ratio to this project's.

    Args:
        rows: measurements of one machine and setting.

    Raises:
        ValueError: there is nothing to compare.
    """
    preset = rows["case"].iloc[0].split()[0] if len(rows) else ""
    compared = rows[rows["group"].isin(COMPARED) & (rows["preset"] == preset)]
    panels = [panel for panel in _PANELS if compared["quantity"].isin(panel[2]).any()]
    if not panels:
        raise ValueError("no measurement compares subjects")
    subjects = [name for name in _SUBJECTS if (compared["subject"] == name).any()]
    lines = -(-len(panels) // 2)
    figure = style.new_figure(0.6 + lines * (0.75 + 0.42 * len(subjects)))
    all_axes = figure.subplots(lines, 2, squeeze=False, sharey=True).ravel()
    for axes, (title, scale, quantities) in zip(all_axes, panels, strict=False):
        names = []
        for (mark, sign, lift), (quantity, name) in zip(_MARKS, quantities.items(), strict=False):
            measured = select(compared, quantity=quantity)
            if len(measured):
                _subjects(axes, measured, subjects, mark, lift)
                names += [f"{sign} {name}"] if name else []
        text = "\n".join(filter(None, [title, "   ".join(names)]))
        axes.set(xlabel=text, xscale=scale, ylim=(len(subjects) - 0.4, -0.65))
        axes.set_yticks(range(len(subjects)), [_SUBJECTS[name][0] for name in subjects])
        axes.margins(x=0.22)
        if scale == "linear":
            axes.set_xlim(left=0)
        else:
            _log_ticks(axes.xaxis)
    for axes in all_axes[len(panels) :]:
        axes.remove()
    style.caption(
        figure, _caption(compared), "faint: one round", "×: this project's speed, or its cost, over the subject's"
    )
    return figure


@style.styled
def throughput_scaling(rows: pd.DataFrame) -> Figure:
    """Draw training speed against batch, iterations, classes, image side, runs and devices, one panel each.

    Args:
        rows: measurements of one machine and setting.

    Raises:
        ValueError: there is no curve.
    """
    rows = rows[rows["group"].isin(CURVES) & (rows["quantity"] == "training")]
    if rows.empty:
        raise ValueError("no measurement is of a curve")
    names = [name for name in CURVES if (rows["group"] == name).any()]
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure = style.new_figure(1.0 + 2.35 * lines)
    all_axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, name in zip(all_axes, names, strict=False):
        points = select(rows, group=name)
        for label, (colour, dashes, series) in _series(name, points).items():
            _curve(axes, name, series, label, colour, dashes)
        axes.set(xlabel=CURVES[name], title=f"{points['preset'].iloc[0]} preset", yscale="log")
        ticks = sorted(points[name].unique())
        if ticks[-1] >= 8 * ticks[0]:
            axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        _log_ticks(axes.yaxis)
    for axes in all_axes[len(names) :]:
        axes.remove()
    for axes in all_axes[: len(names) : columns]:
        axes.set_ylabel("training [images / s]")
    style.legend(figure, all_axes[: len(names)])
    style.caption(figure, _caption(rows))
    return figure


def _subjects(axes: Axes, rows: pd.DataFrame, subjects: Sequence[str], mark: str, lift: float) -> None:
    """Draw one quantity: a line a subject, every round, their range, and the median as text, `lift` points above."""
    rounds = by_round(rows, "subject").reindex(columns=list(_SUBJECTS))
    for line, name in enumerate(subjects):
        values, colour = rounds[name].dropna(), _SUBJECTS[name][1]
        if values.empty:
            continue
        median = values.median()
        axes.plot(values, [line] * len(values), mark, color=colour, alpha=0.4, markersize=4, mew=0)
        axes.plot([values.min(), values.max()], [line, line], "-", color=colour, linewidth=1.2)
        axes.plot(median, line, mark, color=colour, markersize=6)
        ratio = (rounds[OURS] / rounds[name]).median()
        text = f"{median:,.3g}" if median < 1000 else f"{median:,.0f}"
        text += f" ({ratio:.2g}×)" if name != OURS and math.isfinite(ratio) else ""
        offset = {"xytext": (0, lift), "textcoords": "offset points"}
        axes.annotate(text, (median, line), ha="center", fontsize=8, color=colour, **offset)  # type: ignore[arg-type]


def _series(name: str, points: pd.DataFrame) -> dict[str, tuple[str, str, pd.DataFrame]]:
    """Return the curves of a panel: {label: (colour, dashes, measurements)}."""
    if name not in ("runs", "devices"):
        present = [subject for subject in _SUBJECTS if (points["subject"] == subject).any()]
        return {_SUBJECTS[s][0]: (_SUBJECTS[s][1], "-", select(points, subject=s)) for s in present}
    looks, one = ((style.GREEN, "-"), (style.PURPLE, "--")), points["runs"] == 1
    if name == "runs":  # both begin at the single run
        parallel = points["parallel"]
        chosen = {"runs in turn (map)": one | (parallel == "map"), "runs batched (vmap)": one | (parallel == "vmap")}
    else:
        chosen = {"a run on each": points["runs"] == points["devices"], "all share one run's batches": one}
    return {label: (*look, points[rows]) for look, (label, rows) in zip(looks, chosen.items(), strict=True)}


def _curve(axes: Axes, name: str, rows: pd.DataFrame, label: str, colour: str, dashes: str) -> None:
    """Draw medians with the range of their rounds."""
    at = rows.groupby(name)["value"].agg(["median", "min", "max"])
    reach = [at["median"] - at["min"], at["max"] - at["median"]]
    look = {"fmt": "o", "linestyle": dashes, "color": colour, "markersize": 4, "capsize": 3}
    axes.errorbar(at.index, at["median"], yerr=reach, label=label, **look)  # type: ignore[arg-type]


def _log_ticks(axis: Axis) -> None:
    """Put ticks on a logarithmic axis of speeds, in thousands with commas."""
    style.log_ticks(axis)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.7g}"))


def _caption(rows: pd.DataFrame) -> str:
    """Return machine and settings, and how often was measured."""
    timed = rows[rows["quantity"].isin(["training", "inference"])]
    series = ["group", "subject", "preset", "quantity", "batch", "iterations", "classes", "side"]
    series += ["runs", "parallel", "devices"]
    counts = (timed if len(timed) else rows).groupby(series).size()
    low, high = counts.min(), counts.max()
    varies = " but where it is the axis" if rows["group"].isin(CURVES).any() else ""
    return (
        f"{rows['case'].iloc[0]}, {rows['machine'].iloc[0]}: batch {rows['batch'].mode()[0]}, r ="
        f" {rows['iterations'].mode()[0]}{varies}; subjects in turns, median of n ="
        f" {low if low == high else f'{low} to {high}'} rounds; line or bar: least to greatest"
    )
