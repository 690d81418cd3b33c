"""The marks of a mean, its interval and its seeds, which several plots share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes

from capsnet_jax.figures.grouping import interval_reach
from capsnet_jax.statistics import is_cut

ARROWS = {"x": ("<", ">"), "y": ("v", "^")}  # what stands at the lower and at the upper limit


def draw_mean(
    axes: Axes,
    x: float,
    y: float,
    half_width: float,
    *,
    along: Literal["x", "y"],
    limits: tuple[float, float],
    color: str,
    capsize: float,
    **look: Any,
) -> bool:
    """Draw a mean and the bar of its interval.

    Args:
        axes: the panel.
        x: where the mean stands.
        y: where the mean stands.
        half_width: of the interval; nan if there is none.
        along: the axis on which the mean was measured.
        limits: the least and the greatest possible value; the bar is cut off there, and ends in an arrow.
        color: of mark and bar.
        capsize: points that the bar's caps reach to each side.
        **look: more arguments of `Axes.errorbar`.

    Returns:
        Whether the bar is cut off.
    """
    mean = x if along == "x" else y
    bar: dict[str, Any] = {}
    if not np.isnan(half_width):
        bar[f"{along}err"] = np.vstack(interval_reach(mean, half_width, limits))
    if not (cut := is_cut(mean, half_width, limits)):
        axes.errorbar(x, y, color=color, capsize=capsize, **bar, **look)
        return cut
    axes.errorbar(x, y, color=color, **bar, **look)
    cap, size = ("|" if along == "x" else "_"), {"markersize": 2 * capsize}
    for end, limit, arrow in zip((mean - half_width, mean + half_width), limits, ARROWS[along], strict=True):
        beyond = abs(end - mean) > abs(limit - mean)
        at = np.clip(end, *limits)
        end_mark: dict[str, Any] = {"marker": arrow, "markersize": 7, "mew": 0} if beyond else {"marker": cap} | size
        axes.plot(*((at, y) if along == "x" else (x, at)), color=color, clip_on=False, zorder=4, **end_mark)
    return cut


def stacked(values: Iterable[float], step: float, room: float) -> np.ndarray:
    """Return how far to move each value's dot, along an axis that measures nothing, so that equal ones are all seen.

    Args:
        values: float[n].
        step: between the dots of equal values.
        room: the most that one may move; many equal values stand closer.

    Returns:
        float[n], 0 for the first of each value.
    """
    seen: Counter[float] = Counter()
    place = []
    for value in np.round(np.asarray(list(values), np.float64), 9).tolist():
        place.append(seen[value])
        seen[value] += 1
    return np.array(place, np.float64) * min(step, room / max(1, *place)) if place else np.zeros(0)
