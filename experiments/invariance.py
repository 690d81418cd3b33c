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

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import capsnet_jax.figures.style as style
from capsnet_jax.figures.curves import draw_curve
from capsnet_jax.figures.grouping import (
    Record,
    by_dataset,
    distinct_settings,
    group,
    group_by_dataset,
    summarize,
)
from capsnet_jax.figures.images import network_paths
from capsnet_jax.figures.labels import (
    MODEL,
    dataset_label,
    dataset_slug,
    interval_label,
    possible_range,
    seeds_label,
    setting_label,
)
from capsnet_jax.figures.marks import draw_mean
from capsnet_jax.interpret import OBSERVATIONS
from capsnet_jax.interpret.distortions import AMOUNTS
from capsnet_jax.interpret.network import load_observation
from capsnet_jax.overrides import grid
from capsnet_jax.statistics import cut_label, mean_interval

CONFIG: dict[str, object] = {}

SWEEP: list[dict[str, object]] = grid({"model.name": ("capsnet_small", "cnn_small", "cnn_small_strided")})

UNITS = {
    "shift": "shift [pixels]",
    "rotation": "rotation [degrees]",
    "scale": "scale",
    "shear": "shear",
    "elastic": "elastic [pixels]",
}

R2 = (-math.inf, 1.0)  # what the R² of a prediction can be

observe = OBSERVATIONS["distortions"]

CAPTIONS = {
    "curves": "error, change of the features, and how well the amount is read off them, for each distortion",
}


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Draw error, change of the features and what can be read off them, against each distortion."""
    by = network_paths(records, [MODEL])
    names = {setting: setting_label(by, setting) for setting in distinct_settings(group_by_dataset(records, by))}
    drawn: dict[str, Figure] = {}
    for dataset, members in by_dataset(records).items():
        observed = {
            setting: [load_observation(r, "invariance") for r in runs] for setting, runs in group(members, by).items()
        }
        runs = {name: [arrays for arrays in observed.get(setting, []) if arrays] for setting, name in names.items()}
        if any(runs.values()):
            drawn[f"curves-{dataset_slug(dataset)}"] = distortion_curves(runs, list(AMOUNTS), dataset=dataset)
    return drawn


def observed_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return a row for each run, kind of distortion and amount."""
    by = network_paths(records, [MODEL])
    rows: list[dict[str, Any]] = []
    for record in records:
        arrays, settings = load_observation(record, "invariance"), record.settings
        if arrays is None:
            continue
        network = setting_label(by, [settings.get(path) for path in by])
        for kind in AMOUNTS:
            shared = {"dataset": settings["data.dataset"], "network": network, "seed": record.seed, "kind": kind}
            columns = (arrays[f"{kind}/{name}"].tolist() for name in ("amounts", "error", "change"))
            for amount, wrong, change in zip(*columns, strict=True):
                rows.append(shared | {"amount": f"{amount:g}", "error": round(wrong, 4), "change": round(change, 5)})
    return rows


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
    figure = style.new_figure(7.0)
    panels = figure.subplots(3, len(kinds), squeeze=False, sharey="row", height_ratios=(2, 2, 1))
    cut: set[tuple[float, float]] = set()
    for column, kind in zip(panels.T, kinds, strict=True):
        for index, (network, members) in enumerate(runs.items()):
            if not members:
                continue
            look = style.series_style(index)
            amounts = members[0][f"{kind}/amounts"]
            for axes, quantity in zip(column[:2], ("error", "change"), strict=True):
                values, limits = np.stack([run[f"{kind}/{quantity}"] for run in members]), possible_range(quantity)
                if draw_curve(axes, summarize(amounts, values.T, level), label=network, limits=limits, **look):
                    cut.add(limits)
                axes.set_xticks(amounts[::2])
            read = mean_interval([float(run[f"{kind}/read"]) for run in members], level)
            mark: dict[str, Any] = {"along": "y", "limits": R2, "color": look["color"], "fmt": "o", "capsize": 3}
            if read.n and draw_mean(column[2], index, read.mean, read.half_width, **mark):
                cut.add(R2)
        if kind == "scale":
            for axes in column[:2]:
                axes.invert_xaxis()
        column[0].tick_params(labelbottom=False)
        column[1].set_xlabel(UNITS.get(kind, kind))
        # The networks stand beside each other, in the order and the colours of the legend.
        column[2].set_xticks([])
        column[2].spines["bottom"].set_visible(False)
        column[2].set_xlim(-0.7, len(runs) - 0.3)
        if not column[2].has_data():
            style.say(column[2], "no class has two test images")
    panels[0, 0].set_ylabel("test error [%]")
    panels[1, 0].set_ylabel("relative change\nof the features")
    panels[2, 0].set_ylabel("R² of reading\nthe amount off")
    style.legend(figure, panels[:2].flat)
    counts = [len(members) for members in runs.values() if members]
    style.caption(
        figure,
        f"{dataset_label(dataset)}, test images",
        f"line or dot: mean of {seeds_label(counts)}",
        interval_label(counts, level, "band or bar"),
        *(cut_label(limits) for limits in sorted(cut)),
        "features: a CapsNet's capsule of the true class, a CNN's last hidden layer",
        "the amount is read off by a linear fit for each class, on images that were not fitted",
        "elastic: root mean square of each coordinate",
    )
    return figure
