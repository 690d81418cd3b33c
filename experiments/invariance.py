"""What does a CapsNet not mind, what does a CNN not mind, and what does pooling have to do with it?

Claim of the slides: pooling makes a CNN invariant to small shifts and loses where things are; capsules keep it, their
length staying and their direction moving with the picture. Measured on the test set, distorted by known amounts
(shift, rotation, scale, shear, elastic): the error, how far the features move, and how well the amount of distortion
can be read off the features (held-out R² of a linear fit for each class), which is what equivariance would give.

    python launch.py --experiment=invariance --dataset=mnist --seeds=3

CapsNet and the two CNNs have about as many parameters (1.1 M with the decoder, 0.9 M); the CNNs are the same but for
2×2 max pooling or stride 2. Training shifts images by up to `data.max_shift` pixels; set it to 0 for nets that never
saw it. In the workdir of `conv_baselines` its CapsNet and CNN are found and not trained again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

import capsnet_jax.figures.style as style
from capsnet_jax.figures.curves import draw_curve
from capsnet_jax.figures.grouping import Record, by_dataset, summarize
from capsnet_jax.figures.labels import MODEL, dataset_label, dataset_slug, interval_label, possible_range, seeds_label
from capsnet_jax.interpret import OBSERVATIONS
from capsnet_jax.interpret.distortions import AMOUNTS
from capsnet_jax.interpret.restore import load_observation
from capsnet_jax.overrides import grid
from capsnet_jax.statistics import mean_interval

CONFIG: dict[str, object] = {}

SWEEP: list[dict[str, object]] = grid({"model.name": ("capsnet_small", "cnn_small", "cnn_small_strided")})

UNITS = {
    "shift": "shift [pixels]",
    "rotation": "rotation [degrees]",
    "scale": "scale",
    "shear": "shear",
    "elastic": "elastic [pixels]",
}

observe = OBSERVATIONS["distortions"]

CAPTIONS = {
    "curves": "error, change of the features, and how well the amount is read off them, for each distortion",
}


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Draw error, change of the features and what can be read off them, against each distortion."""
    networks = list(dict.fromkeys(record.settings[MODEL] for record in records))
    drawn = {}
    for dataset, members in by_dataset(records).items():
        runs: dict[str, list[Mapping[str, np.ndarray]]] = {network: [] for network in networks}
        for record in members:
            if (arrays := load_observation(record, "invariance")) is not None:
                runs[record.settings[MODEL]].append(arrays)
        if any(runs.values()):
            drawn[f"curves-{dataset_slug(dataset)}"] = distortion_curves(runs, list(AMOUNTS), dataset=dataset)
    return drawn


@style.styled
def distortion_curves(
    runs: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
    kinds: Sequence[str],
    *,
    dataset: str,
    level: float = 0.95,
) -> Figure:
    """Draw the error and the relative change of the features against each distortion, one colour a network.

    Below stands how well the amount of distortion can be read off the features.

    Args:
        runs: each network's runs. A run is what `observe` returns.
        kinds: the distortions, a column each.
        dataset: what the caption names.
        level: the coverage of the bands.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not any(runs.values()):
        raise ValueError("no runs to draw")
    figure = style.new_figure(7.0 + 0.2 * len(runs))
    panels = figure.subplots(3, len(kinds), squeeze=False, sharey="row", height_ratios=(2, 2, 1))
    for column, kind in zip(panels.T, kinds, strict=True):
        for index, (network, members) in enumerate(runs.items()):
            if not members:
                continue
            colour = style.series_style(index)["color"]
            amounts = members[0][f"{kind}/amounts"]
            for axes, quantity in zip(column[:2], ("error", "change"), strict=True):
                values = np.stack([run[f"{kind}/{quantity}"] for run in members])
                curve = summarize(amounts, values.T, level)
                draw_curve(axes, curve, label=network, color=colour, limits=possible_range(quantity))
                axes.set_xticks(amounts[::2])
            read = mean_interval([float(run[f"{kind}/read"]) for run in members], level)
            column[2].errorbar(index, read.mean, read.half_width, fmt="o", capsize=3, color=colour)
        if kind == "scale":
            for axes in column[:2]:
                axes.invert_xaxis()
        column[0].tick_params(labelbottom=False)
        column[1].set_xlabel(UNITS.get(kind, kind))
        column[2].set_xticks([])
        column[2].set_xlim(-0.7, len(runs) - 0.3)
    panels[0, 0].set_ylabel("test error [%]")
    panels[1, 0].set_ylabel("relative change\nof the features")
    panels[2, 0].set_ylabel("R² of reading\nthe amount off")
    style.legend(figure, panels[:2].flat)
    counts = [len(members) for members in runs.values() if members]
    style.caption(
        figure,
        f"{dataset_label(dataset)}, test images",
        f"line: mean of {seeds_label(counts)}",
        interval_label(counts, level, "band or bar"),
        "the amount is read off by a linear fit for each class, on images that were not fitted",
    )
    return figure
