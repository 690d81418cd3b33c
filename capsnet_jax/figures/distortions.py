"""What networks make of distorted images: errors, and how far features move, against the amount of distortion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

import capsnet_jax.figures.style as style
from capsnet_jax.figures.curves import draw_curve
from capsnet_jax.figures.groups import Curve
from capsnet_jax.figures.labels import dataset_label, interval_label, seeds_label
from capsnet_jax.statistics import mean_interval

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

    Below stands how well the amount of distortion can be read off the features.

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
    figure = style.new_figure(7.0 + 0.2 * len(networks))
    panels = figure.subplots(3, len(kinds), squeeze=False, sharey="row", height_ratios=(2, 2, 1))
    counts = [sum(name == own for name, _ in seen) for own in networks]
    for column, kind in zip(panels.T, kinds, strict=True):
        for index, network in enumerate(networks):
            runs = [arrays for name, arrays in seen if name == network]
            colour = style.series_style(index)["color"]
            for axes, quantity in zip(column[:2], ("error", "change"), strict=True):
                values = np.stack([run[f"{kind}/{quantity}"] for run in runs])
                estimates = [mean_interval(at, level) for at in values.T]
                mean, half = (np.array([getattr(e, n) for e in estimates]) for n in ("mean", "half_width"))
                draw_curve(axes, Curve(runs[0][f"{kind}/amounts"], mean, half), label=network, color=colour)
            read = mean_interval([float(run[f"{kind}/read"]) for run in runs], level)
            column[2].errorbar(index, read.mean, read.half_width, fmt="o", capsize=3, color=colour)
        for axes in column[:2]:
            axes.set_xticks(seen[0][1][f"{kind}/amounts"][::2])
            if kind == "scale":
                axes.invert_xaxis()
        column[0].tick_params(labelbottom=False)
        column[1].set_xlabel(UNITS.get(kind, kind))
        column[2].set_xticks([])
        column[2].set_xlim(-0.7, len(networks) - 0.3)
    panels[0, 0].set_ylabel("test error [%]")
    panels[1, 0].set_ylabel("relative change\nof the features")
    panels[2, 0].set_ylabel("R² of reading\nthe amount off")
    style.legend(figure, panels[:2].flat)
    text = f"{dataset_label(dataset)}, test images; line: mean of {seeds_label(counts)}"
    how = "the amount is read off by a linear fit for each class, on images that were not fitted"
    style.caption(figure, f"{text}; {interval_label(counts, level, 'band or bar')}; {how}")
    return figure
