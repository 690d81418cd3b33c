"""The ImageNet challenge: how errors fell by year and depth, and what they cost in parameters and computing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

import capsnet_jax.figures.style as style

# Year, name, layers, top-5 error in percent (test set, best entry); None: not a deep network, or an ensemble of many.
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

_ON_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
_FAMILIES = ("AlexNet", "VGG", "GoogLeNet", "ResNet", "DenseNet")
_SMALL = {"textcoords": "offset points", "fontsize": 7.5}
_RIGHT_ABOVE = {"xytext": (4, 3), "ha": "left"}
_LEFT_BELOW = {"xytext": (-3, -10), "ha": "right"}


@style.styled
def ilsvrc_winners() -> Figure:
    """Draws the top-5 error of the challenge's best entries by year, with their layers."""
    figure = style.new_figure(3.8)
    axes = figure.subplots()
    names = [f"{year}\n{name}" for year, name, _, _ in WINNERS]
    errors = [error for *_, error in WINNERS]
    deep = [layers is not None for _, _, layers, _ in WINNERS]
    bars = axes.bar(range(len(names)), errors, color=[style.BLUE if is_deep else style.SKY for is_deep in deep])
    for bar, (_, _, layers, error) in zip(bars, WINNERS, strict=True):
        words = f"{error:g}" + (f"\n{layers} layers" if layers else "")
        place = bar.get_x() + bar.get_width() / 2
        axes.text(place, error + 0.4, words, ha="center", va="bottom", fontsize=9, bbox=_ON_WHITE, zorder=3)
    axes.axhline(HUMAN, color=style.VERMILLION, linestyle="--", linewidth=1.2, zorder=2)
    axes.text(8.45, HUMAN + 0.3, f"a person: {HUMAN:g}", color=style.VERMILLION, fontsize=9, ha="right")
    axes.set_xticks(range(len(names)), names, fontsize=8.5)
    axes.grid(False, axis="x")
    axes.set(ylabel="top-5 error [%]", ylim=(0, 33))
    style.caption(
        figure, "ImageNet challenge, best entries by year (ensembles), test set; dark: one kind of deep network"
    )
    return figure


@style.styled
def error_against_cost(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws published top-5 errors against our counts of parameters and of FLOPs for one image.

    Args:
        rows: {"model", "top5_error" in percent, "parameters", "flops"} of each network.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("no networks to draw")
    figure = style.new_figure(4.2)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, quantity, unit, words in (
        (panels[0], "parameters", 1e6, "parameters [millions]"),
        (panels[1], "flops", 1e9, "computing for one image [GFLOP]"),
    ):
        for index, family in enumerate(_FAMILIES):
            own = sorted((r for r in rows if r["model"].startswith(family.lower())), key=lambda r: r[quantity])
            x, y = [r[quantity] / unit for r in own], [r["top5_error"] for r in own]
            axes.plot(x, y, "o-", label=family, markersize=5, linewidth=1, **_colour(index))
            place = _LEFT_BELOW if family == "DenseNet" else _RIGHT_ABOVE  # it runs close under ResNet
            for r, left, up in zip(own, x, y, strict=True):
                tail = r["model"].removeprefix(family.lower()).removesuffix("bn").strip("_")
                axes.annotate(tail.upper() if len(tail) == 1 else tail, (left, up), **place, **_SMALL)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(words)
    panels[0].set_ylabel("top-5 error [%]")
    style.legend(figure, panels)
    source = (
        "errors: torchvision's pretrained networks, one 224×224 crop, as published; parameters and FLOPs: counted here"
    )
    style.caption(figure, f"{source}, a multiplication and an addition being two")
    return figure


def _colour(index: int) -> dict[str, str]:
    return {"color": style.series_style(index)["color"]}
