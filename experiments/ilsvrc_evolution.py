"""How did depth, parameters and computing go with the error on ImageNet, from 2010 to 2017?

Nothing is trained: errors are published ones, parameters and FLOPs are counted here, exactly, from our own models.

    python launch.py --experiment=ilsvrc_evolution

Takes 20 seconds: every network is traced, none is run.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

import capsnet_jax.figures.style as style
from capsnet_jax.config import PRESETS, Config
from capsnet_jax.models.summary import outline
from capsnet_jax.overrides import build
from capsnet_jax.report.render import align
from capsnet_jax.sweeps.files import append_lines, read_lines
from capsnet_jax.sweeps.interrupt import check

CONFIG: dict[str, object] = {}

SWEEP: list[dict[str, object]] = [{}]

# Top-5 errors in percent of torchvision's pretrained networks, one central crop of 224×224 (its documentation, 0.8).
TOP5 = {
    "alexnet_single": 20.91,
    "vgg_a": 11.37,
    "vgg_b": 10.75,
    "vgg_d": 9.62,
    "vgg_e": 9.12,
    "googlenet_bn": 10.47,
    "resnet18": 10.92,
    "resnet34": 8.58,
    "resnet50": 7.13,
    "resnet101": 6.44,
    "resnet152": 5.94,
    "densenet121": 7.83,
    "densenet169": 7.00,
    "densenet201": 6.43,
}


# Year, name, layers, top-5 error in percent (test set); None: not a deep network, or an ensemble of many. AlexNet's is
# of five nets that saw the challenge's own images alone; with more images its winning entry had 15.3.
WINNERS: tuple[tuple[int, str, int | None, float], ...] = (
    (2010, "shallow", None, 28.2),
    (2011, "shallow", None, 25.8),
    (2012, "AlexNet", 8, 16.4),
    (2013, "Clarifai", 8, 11.7),
    (2014, "VGG", 19, 7.3),
    (2014, "GoogLeNet", 22, 6.7),
    (2015, "ResNet", 152, 3.57),
    (2016, "ensemble", None, 2.99),
    (2017, "SENet", None, 2.25),
)
HUMAN = 5.1

FAMILIES = ("AlexNet", "VGG", "GoogLeNet", "ResNet", "DenseNet")

CAPTIONS = {
    "winners": "leading entries of each year",
    "cost": "published errors against parameters and computing, as counted here",
}


def requires(config: Config, data: None) -> str | None:
    """Say that settings change nothing here; None where none is changed."""
    if config == build(PRESETS["small"]):
        return None
    return "ilsvrc_evolution counts published nets as they are; leave out --dataset, --preset, --set and --sweep"


def measure(configs: Sequence[Config], workdir: Path, stop: Callable[[], int | None]) -> None:
    """Count what the workdir does not yet hold."""
    counted_before = {row["model"] for row in read_lines(_counts(workdir))}
    for name, error in TOP5.items():
        if name in counted_before:
            continue
        check(stop)
        counted = outline(build({"model.name": name}))
        row = {"model": name, "top5_error": error, "parameters": counted.parameters, "flops": counted.flops}
        append_lines(_counts(workdir), [row])
        print(f"{name}: {counted.parameters:,} parameters, {counted.flops / 1e9:.2f} GFLOP for one image", flush=True)


def report(workdir: Path) -> tuple[str, list[dict[str, Any]]]:
    """Return the table for the terminal, and its rows."""
    rows = read_lines(_counts(workdir))
    if not rows:
        return "", []
    lines = [["model", "top-5 error %", "parameters", "GFLOP for one image"]]
    for row in rows:
        error, flops = f"{row['top5_error']:.2f}", f"{row['flops'] / 1e9:.2f}"
        lines.append([row["model"], error, f"{row['parameters']:,}", flops])
    return f"{align(lines, rule=True)}\n(errors as published, counts as built)", rows


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Return a row a network."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def figures(records: Sequence[dict[str, Any]]) -> dict[str, Figure]:
    """Draw the challenge's winners by year and depth, and error against parameters and FLOPs."""
    return {"winners": winners(), "cost": error_against_cost(records)}


@style.styled
def winners() -> Figure:
    """Draw the top-5 error of the challenge's leading entries by year, with their layers."""
    figure = style.new_figure(3.8)
    axes = figure.subplots()
    names = [f"{year}\n{name}" for year, name, _, _ in WINNERS]
    errors = [error for *_, error in WINNERS]
    colours = [style.SKY if layers is None else style.BLUE for _, _, layers, _ in WINNERS]
    bars = axes.bar(range(len(names)), errors, color=colours)
    on_white = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    for bar, (_, _, layers, error) in zip(bars, WINNERS, strict=True):
        text = f"{error:g}" + (f"\n{layers} layers" if layers else "")
        middle = bar.get_x() + bar.get_width() / 2
        axes.text(middle, error + 0.4, text, ha="center", va="bottom", fontsize=9, bbox=on_white, zorder=3)
    axes.axhline(HUMAN, color=style.VERMILLION, linestyle="--", linewidth=1.2, zorder=2)
    axes.text(8.45, HUMAN + 0.3, f"a person: {HUMAN:g}", color=style.VERMILLION, fontsize=9, ha="right")
    axes.set_xticks(range(len(names)), names, fontsize=8.5)
    axes.grid(False, axis="x")
    axes.set(ylabel="top-5 error [%]", ylim=(0, 33))
    style.caption(
        figure,
        "ImageNet challenge, leading entries by year (ensembles), test set",
        "dark: one kind of deep network",
    )
    return figure


@style.styled
def error_against_cost(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw published top-5 errors against our counts of parameters and of FLOPs for one image.

    Args:
        rows: {"model", "top5_error" in percent, "parameters", "flops"} of each network.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("no networks to draw")
    figure = style.new_figure(4.2)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, quantity, unit, xlabel in (
        (panels[0], "parameters", 1e6, "parameters [millions]"),
        (panels[1], "flops", 1e9, "computing for one image [GFLOP]"),
    ):
        for index, family in enumerate(FAMILIES):
            if not (members := [row for row in rows if row["model"].startswith(family.lower())]):
                continue
            _draw_family(axes, members, family, quantity, unit, style.series_style(index)["color"])
        axes.set_xscale("log")
        style.log_ticks(axes.xaxis)
        axes.set_xlabel(xlabel)
    panels[0].set_ylabel("top-5 error [%]")
    style.legend(figure, panels)
    style.caption(
        figure,
        "errors: torchvision's pretrained networks, one 224×224 crop, as published",
        "parameters and FLOPs: counted here, a multiplication and an addition being two",
        f"{len(rows)} of {len(TOP5)} networks are counted so far" if len(rows) < len(TOP5) else "",
    )
    return figure


def _draw_family(
    axes: Axes, rows: Sequence[Mapping[str, Any]], family: str, quantity: str, unit: float, colour: str
) -> None:
    """Draw a line through a family's networks, with what tells each from the others beside its mark."""
    rows = sorted(rows, key=lambda row: row[quantity])
    x, y = [row[quantity] / unit for row in rows], [row["top5_error"] for row in rows]
    axes.plot(x, y, "o-", label=family, markersize=5, linewidth=1, color=colour)
    # DenseNet's line runs close under ResNet's, so its names stand below.
    offset, side = ((-3, -10), "right") if family == "DenseNet" else ((4, 3), "left")
    look: dict[str, Any] = {"xytext": offset, "ha": side, "textcoords": "offset points", "fontsize": 7.5}
    for row, cost, error in zip(rows, x, y, strict=True):
        variant = row["model"].removeprefix(family.lower()).removesuffix("bn").strip("_")
        axes.annotate(variant.upper() if len(variant) == 1 else variant, (cost, error), **look)


def _counts(workdir: Path) -> Path:
    return workdir / "ilsvrc_evolution.jsonl"
