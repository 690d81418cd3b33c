"""How every figure looks, and how it is written to disk.

Figures are plain `Figure` objects: pyplot, its windows and its list of open figures are never touched.
"""

from __future__ import annotations

import io
import os
import pathlib
import textwrap
from collections.abc import Iterable
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator, FuncFormatter, LogLocator, NullFormatter

from capsnet_jax.sweeps.files import write_bytes

# Okabe and Ito (2008), https://jfly.uni-koeln.de/color/, without the yellow, which is lost on white.
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK, GREY = "#E69F00", "#56B4E9", "#000000", "#5A5A5A"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)
DASHES = ("-", "--", ":", "-.")
MARKERS = "Dsov^PX<>"
MOST = len(PALETTE) * len(DASHES)  # series that can be told apart
BAND_ALPHA = 0.18
LINE_HEIGHT = 0.16  # inches of a line of text
WIDTH = 7.5  # inches: 1125 pixels at 150 dpi, still readable when a README shows them at 830
_LINE = 104  # characters of 9 points across a figure

# What matplotlib starts with, whatever a user's matplotlibrc says; which backend shows windows is none of our concern.
_DEFAULTS: dict[Any, Any] = {name: value for name, value in mpl.rcParamsDefault.items() if name != "backend"}

# Decorates a drawing function: the settings hold while it draws, and the user's own are back when it returns.
styled = mpl.rc_context(
    _DEFAULTS
    | {
        "text.parse_math": False,  # a name may hold a $
        "figure.dpi": 150,
        "savefig.dpi": "figure",
        # The first comes with matplotlib: the same bytes on every machine. An SVG may be read where it is missing.
        "font.family": ["DejaVu Sans", "sans-serif"],
        "font.size": 9.5,
        "axes.titlesize": 10,
        "axes.labelsize": 9.5,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.fontsize": 9,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#DDDDDD",
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.6,
    }
)


def new_figure(height: float, layout: Literal["constrained", "compressed"] = "constrained") -> Figure:
    """Return an empty figure as wide as all others, `height` inches high, whose layout keeps labels apart."""
    return Figure(figsize=(WIDTH, height), layout=layout)


def series_style(index: int) -> dict[str, str]:
    """Return the colour and dash of the `index`-th series; colours repeat with another dash."""
    return {
        "color": PALETTE[index % len(PALETTE)],
        "linestyle": DASHES[index // len(PALETTE) % len(DASHES)],
    }


def shade(index: int, count: int) -> str:
    """Return the `index`-th of `count` colours from dark to light, for series that have an order."""
    return mpl.colors.to_hex(mpl.colormaps["viridis"](0.9 * index / max(1, count - 1)))  # the lightest is lost on white


def log_ticks(axis: Axis) -> None:
    """Put ticks on a logarithmic axis, written as plain numbers.

    They stand at 1, 2 and 5 times the powers of ten, or at the powers alone on a long axis, or where a linear axis has
    them on one so short that fewer than two of those are on it. An axis of about one value is widened around it.
    """
    axes, name = axis.axes, "x" if axis is axis.axes.xaxis else "y"
    low, high = sorted(getattr(axes, f"get_{name}lim")())
    if high < 1.05 * low:
        getattr(axes, f"set_{name}lim")(low / 1.05, high * 1.05)
    axis.set_major_locator(_LogTicks())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


class _LogTicks(LogLocator):
    def tick_values(self, vmin: float, vmax: float) -> Any:
        """Return the positions of the ticks, of no more than fit beside each other if it can be."""
        low, high = sorted((vmin, vmax))
        most = max(4, self.axis.get_tick_space() if self.axis is not None else 0)
        for subs in ((1, 2, 5), (1,)):
            self.set_params(subs=subs)
            ticks = np.asarray(super().tick_values(low, high))
            if 2 <= np.count_nonzero((low <= ticks) & (ticks <= high)) <= most:
                return ticks
        return ticks if high > 10 * low else AutoLocator().tick_values(low, high)


def image_axes(axes: Axes) -> None:
    """Leave nothing of `axes` but the picture in it."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def say(axes: Axes, text: str) -> None:
    """Write in an empty panel why it is empty."""
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, textwrap.fill(text, 40), transform=axes.transAxes, ha="center", va="center", color=GREY)


def legend(figure: Figure, panels: Iterable[Axes]) -> None:
    """Put one legend over all `panels`: every series once, in as many columns as fit. The figure grows by its height.

    Names too long for a line are wrapped; without a series there is no legend.
    """
    handles: dict[str, Any] = {}
    for axes in panels:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(textwrap.fill(name, _LINE - 8), handle)
    if not handles:
        return
    longest = max(len(line) for name in handles for line in name.split("\n"))
    columns = min(len(handles), max(1, _LINE // (longest + 8)))
    lines = sum(name.count("\n") + 1 for name in handles)
    figure.set_figheight(figure.get_figheight() + 1.2 * LINE_HEIGHT * -(-lines // columns))
    figure.legend(list(handles.values()), list(handles), loc="outside upper center", ncols=columns)


def caption(figure: Figure, *parts: str) -> None:
    """Write the parts that are not empty small under the figure, with semicolons between, wrapped to its width.

    The figure grows by what the caption has more than two lines.
    """
    before, text = figure.get_supxlabel(), textwrap.fill("; ".join(filter(None, parts)), _LINE)
    more = max(1, text.count("\n")) - max(1, before.count("\n"))
    figure.set_figheight(figure.get_figheight() + LINE_HEIGHT * more)
    figure.supxlabel(text, fontsize=9, color=GREY)


def add_to_caption(figure: Figure, *parts: str) -> None:
    """Write more parts under a figure that has a caption."""
    caption(figure, " ".join(figure.get_supxlabel().split("\n")), *parts)


# The formats of a figure, each with what it would say of the time and of versions.
FORMATS = {"png": ("Software",), "svg": ("Creator", "Date"), "pdf": ("Creator", "Producer", "CreationDate")}


@styled
def save(figure: Figure, path: str | os.PathLike[str]) -> pathlib.Path:
    """Write `figure` as its name's ending says: the same figure gives the same bytes, and none is seen half written.

    Text in an SVG or a PDF stays text, which can be searched and copied; an SVG is shown with the reader's fonts.

    Args:
        figure: what to write.
        path: a name with one of the endings of `FORMATS`; folders that are missing are made.

    Returns:
        The path written.

    Raises:
        ValueError: the name has another ending.
        OSError: the folder cannot be written, or the disk is full.
    """
    path = pathlib.Path(path)
    form = path.suffix.removeprefix(".")
    if form not in FORMATS:
        raise ValueError(f"figures are written as {', '.join(FORMATS)}, got {path.name!r}")
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "capsnet_jax", "pdf.fonttype": 42}):
        figure.savefig(buffer, format=form, dpi=figure.dpi, metadata=dict.fromkeys(FORMATS[form]))
    write_bytes(path, buffer.getvalue())
    return path
