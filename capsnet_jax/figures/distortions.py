"""What networks make of distorted images: errors, and how far features move, against the amount of distortion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

import capsnet_jax.figures.style as style
from capsnet_jax.figures.curves import draw_curve
from capsnet_jax.figures.groups import Curve
from capsnet_jax.figures.labels import dataset_label, interval_label, seeds_label
from capsnet_jax.statistics import describe, mean_interval

UNITS = {
    "shift": "shift [pixels]",
    "rotation": "rotation [degrees]",
    "scale": "scale",
    "shear": "shear",
    "elastic": "elastic [pixels]",
}


@style.styled
def distortion_curves(
    seen: Sequence[tuple[str, Mapping[str, np.ndarray]]],
    kinds: Sequence[str],
    *,
    dataset: object,
    level: float = 0.95,
) -> Figure:
    """Draws the error and the relative change of the features against each distortion, one colour a network.

    Args:
        seen: (network, arrays) of each run; the arrays are "kind/amounts", "kind/error" and "kind/change" [amounts],
            and "kind/read", one number.
        kinds: the distortions, a column each.
        dataset: what the caption names.
        level: the coverage of the bands.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not seen:
        raise ValueError("no runs to draw")
    networks = list(dict.fromkeys(name for name, _ in seen))
    figure = style.new_figure(5.6 + 0.2 * len(networks))
    panels = figure.subplots(2, len(kinds), squeeze=False, sharex="col", sharey="row")
    counts = [sum(name == own for name, _ in seen) for own in networks]
    for column, kind in zip(panels.T, kinds, strict=True):
        for index, network in enumerate(networks):
            runs = [arrays for name, arrays in seen if name == network]
            colour = style.series_style(index)["color"]
            for axes, quantity in zip(column, ("error", "change"), strict=True):
                values = np.stack([run[f"{kind}/{quantity}"] for run in runs])
                estimates = [mean_interval(at, level) for at in values.T]
                mean, half = (np.array([getattr(e, n) for e in estimates]) for n in ("mean", "half_width"))
                draw_curve(axes, Curve(runs[0][f"{kind}/amounts"], mean, half), label=network, color=colour)
        column[1].set_xlabel(UNITS.get(kind, kind))
        if kind == "scale":
            column[0].invert_xaxis()
    panels[0, 0].set_ylabel("test error [%]")
    panels[1, 0].set_ylabel("relative change of the features")
    style.legend(figure, panels.flat)
    read = "; ".join(
        f"{kind}: "
        + ", ".join(
            f"{network} {describe(mean_interval([float(a[f'{kind}/read']) for n, a in seen if n == network]))}"
            for network in networks
        )
        for kind in kinds
    )
    text = f"{dataset_label(dataset)}, test images; line: mean of {seeds_label(counts)}"
    style.caption(figure, f"{text}; {interval_label(counts, level, 'band')}. R² of reading the amount off: {read}")
    return figure
