"""How often the channels of layers are active, and which never are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import capsnet_jax.figures.style as style

LEAST = 1e-5  # share that a channel is drawn at which is active less often, or never


@style.styled
def active_shares(layers: Mapping[str, Any], *, note: str = "") -> Figure:
    """Draw the share of positions at which each channel is active, the channels of a layer from the most to the least.

    Args:
        layers: {name: `interpret.activity.Activity`}.
        note: how the caption begins, such as the network and the images.

    Raises:
        ValueError: there are no layers.
    """
    if not layers:
        raise ValueError("no layers to draw")
    figure = style.new_figure(4.2)
    axes = figure.subplots()
    for index, (name, activity) in enumerate(layers.items()):
        shares = np.sort(np.maximum(activity.active, LEAST))[::-1]
        dead, near, count = int(activity.dead.sum()), int(activity.near_dead.sum()), len(shares)
        label = f"{name}: {dead} dead, {near} near dead of {count}"
        look: dict[str, Any] = {"label": label, **style.series_style(index)}
        axes.plot(np.arange(1, count + 1) / count, shares, **look)
    axes.axhline(1e-3, color=style.GREY, linewidth=1, linestyle=":")
    axes.set(yscale="log", ylim=(LEAST, 1.2), xlim=(0, 1), ylabel="share of positions that are active")
    style.log_ticks(axes.yaxis)
    axes.set_xlabel("channels of a layer, the most active first")
    style.legend(figure, [axes])
    style.caption(
        figure,
        note,
        "dead: never above 0 at any position of any image, or always the same where a layer goes below 0",
        "near dead: above 0 at fewer than 0.1 % (dotted)",
        f"what is active less often than {LEAST:g} is drawn there",
    )
    return figure
