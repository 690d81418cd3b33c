"""A panel of rows: in each a setting's seeds as dots, their mean with its interval, and both in words."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

import capsnet_jax.figures.style as style

BEYOND = "; arrow: far off the axis"  # for a caption, where `draw_rows` says so
_BELOW = 0.22  # rows between a mean and the dots of its seeds
_FAR = 5  # times as wide as for the other rows, an axis leaves a row out


class Row(NamedTuple):
    """What a row shows.

    Attributes:
        name: of the setting.
        values: of its seeds.
        mean: of them.
        half_width: of the mean's interval; nan if there is none.
        words: what is said of it to the right.
        colour: of its marks.
    """

    name: str
    values: Sequence[float] | np.ndarray
    mean: float
    half_width: float
    words: str
    colour: str


def draw_rows(axes: Axes, rows: Sequence[Row], *, origin: float | None = None) -> bool:
    """Draws the rows, the first on top.

    One row that is so far from all others that they could not be told apart is left off the axis, with an arrow at the
    end that it lies beyond.

    Args:
        axes: the panel.
        rows: what to draw.
        origin: a value that the axis shows in any case, with a line at it.

    Returns:
        Whether a row lies beyond the axis.
    """
    for place, row in enumerate(rows):
        height = np.full(len(row.values), place + _BELOW)
        axes.plot(row.values, height, "o", color=row.colour, alpha=0.45, markersize=5, mew=0)
        half = None if np.isnan(row.half_width) else row.half_width
        axes.errorbar(row.mean, place, xerr=half, fmt="D", color=row.colour, markersize=6, capsize=4)
        axes.text(1.02, place, row.words, transform=axes.get_yaxis_transform(), va="center", fontsize=9)
    if origin is not None:
        axes.axvline(origin, color=style.GREY, linewidth=1)
    axes.set_yticks(range(len(rows)), [textwrap.fill(row.name, 30) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    far = _far(rows, [] if origin is None else [origin])
    if far is None:
        return False
    place, low, high = far
    axes.set_xlim(low - 0.06 * (high - low), high + 0.06 * (high - low))
    right = rows[place].mean > high
    axes.plot(
        0.985 if right else 0.015,
        place,
        ">" if right else "<",
        color=rows[place].colour,
        markersize=9,
        transform=axes.get_yaxis_transform(),
    )
    return True


def _far(rows: Sequence[Row], shown: list[float]) -> tuple[int, float, float] | None:
    """The one row that is far from all others, with the least and the greatest value of these."""
    ends: list[tuple[float, float] | None] = []
    for row in rows:
        half = np.nan_to_num(row.half_width)
        values = [v for v in (*row.values, row.mean - half, row.mean + half) if np.isfinite(v)]
        ends.append((min(values), max(values)) if values else None)
    for place, own in enumerate(ends):
        others = [value for other, pair in enumerate(ends) if pair and other != place for value in pair]
        if own is None or len(others) < 4:
            continue
        low, high = min(*others, *shown), max(*others, *shown)
        if max(high, own[1]) - min(low, own[0]) > _FAR * (high - low) > 0:
            return place, low, high
    return None
