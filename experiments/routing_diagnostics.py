"""What does routing do inside the network, iteration by iteration and through training?

Claim: iterations polarise the couplings (their entropy falls) without changing what is predicted (Paik, Kwak and Kim
2019, arXiv:1907.13327). Measured on validation images after every epoch, with 1 to 7 iterations whatever the network
was trained with: entropy of the couplings, agreement, predictions that flip, error, and primary capsules that are dead.
And for single images, which parts of the picture send their votes where.

    python launch.py --experiment=routing_diagnostics --dataset=fashion_mnist --seeds=5
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import capsnet_jax.figures.style as style
from capsnet_jax.config import Config
from capsnet_jax.data import Dataset
from capsnet_jax.figures.curves import caveats, draw_curve
from capsnet_jax.figures.grouping import (
    Record,
    by_dataset,
    mean_curve,
    recorded_iterations,
    single_dataset,
)
from capsnet_jax.figures.images import network_note, network_paths, show, single_networks
from capsnet_jax.figures.labels import (
    ITERATIONS,
    dataset_label,
    dataset_slug,
    interval_label,
    label,
    listing,
    possible_range,
    seeds_label,
    setting_label,
)
from capsnet_jax.interpret import OBSERVATIONS
from capsnet_jax.interpret.capsule_maps import lacks_positions
from capsnet_jax.interpret.network import load_observation
from capsnet_jax.overrides import grid

CONFIG: dict[str, object] = {"eval.max_routing_iterations": 7}

SWEEP: list[dict[str, object]] = grid({"routing.iterations": (1, 3, 7)})

CLASSES = 3  # columns of `couplings_over_image`: the classes whose capsules are longest

RECORDED = "validation_error_at_1"  # of a run whose iterations were observed
DEAD = "validation_dead_capsules"
QUANTITIES = {
    "validation_entropy_at_{}": "entropy of couplings\n[of uniform]",
    "validation_agreement_at_{}": "agreement with\nthe chosen parent",
    "validation_flips_at_{}": "predictions that\nflip [%]",
    "validation_error_at_{}": "validation\nerror [%]",
    DEAD: "dead primary\ncapsules [%]",
}


observe = OBSERVATIONS["couplings"]

CAPTIONS = {
    "through_training": "what each iteration does, by epoch; a row for each number of iterations trained with",
    "couplings": "where one image's votes go: a row an iteration, a column a class",
}


def requires(config: Config, data: Dataset) -> str | None:
    """Say what a config lacks, and the remedy; None if all is well."""
    if lack := lacks_positions(config):
        return f"routing_diagnostics looks into routing: {lack}"
    if not len(data.validation.labels):
        return "routing_diagnostics measures on validation images, and there are none: raise data.validation_fraction"
    return None


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Draw every quantity through training, and single images' couplings."""
    drawn: dict[str, Figure] = {}
    by = network_paths(records, [ITERATIONS])
    for dataset, members in by_dataset(records).items():
        if any(RECORDED in record.metrics for record in members):
            drawn[f"through_training-{dataset_slug(dataset)}"] = through_training(members, by)
    for title, record in single_networks(records, [ITERATIONS]).items():
        arrays = load_observation(record, "routing_diagnostics")
        if arrays is None:
            continue
        names, receptive = arrays["names"].tolist(), tuple(arrays["receptive"])
        note = network_note(record, f"one of its {arrays.get('split', 'validation')} images")
        note += "" if RECORDED in record.metrics else "; its iterations were not recorded through training"
        of_each_image = (arrays[name] for name in ("images", "labels", "shares", "lengths"))
        for image, true, shares, lengths in zip(*of_each_image, strict=True):
            drawn[f"couplings-{title}-class{true}"] = couplings_over_image(
                image / 255, shares, lengths, receptive=receptive, label_names=names, true_class=int(true), note=note
            )
    return drawn


@style.styled
def through_training(records: Sequence[Record], by: Sequence[str], *, level: float = 0.95) -> Figure:
    """Draw what each iteration does, by epoch: a row of panels a setting, a column a quantity, a line an iteration.

    Args:
        records: finished runs of one data set whose iterations were recorded.
        by: the paths whose distinct values are the settings.
        level: the coverage of the bands.

    Raises:
        ValueError: no run was recorded, or the records are of several data sets.
    """
    recorded = [record for record in records if RECORDED in record.metrics]
    if not recorded:
        raise ValueError("no run was recorded; train with eval.max_routing_iterations=7")
    dataset, groups = single_dataset(recorded, by)
    left_out = [setting_label(by, setting) for setting in single_dataset(records, by)[1] if setting not in groups]
    figure = style.new_figure(1.2 + 1.75 * len(groups))
    panels = figure.subplots(len(groups), len(QUANTITIES), squeeze=False, sharex=True, sharey="col")
    for row, (setting, runs) in zip(panels, groups.items(), strict=True):
        for axes, quantity in zip(row, QUANTITIES, strict=True):
            limits = possible_range(quantity)
            iterations = recorded_iterations(runs, quantity)
            for t in iterations:
                curve, colour = mean_curve(runs, quantity.format(t), level), style.shade(t - 1, max(iterations))
                draw_curve(axes, curve, label=f"iteration {t}", color=colour, limits=limits)
            if quantity == DEAD:
                curve = mean_curve(runs, quantity, level)
                draw_curve(axes, curve, label="all iterations", color=style.VERMILLION, limits=limits)
                top = max(1.0, axes.get_ylim()[1])
                axes.set_ylim(-0.05 * top, top)  # a line of zeros is seen
            axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        row[0].set_ylabel(setting_label(by, setting), fontsize=9)
    for axes, title in zip(panels[0], QUANTITIES.values(), strict=True):
        axes.set_title(title, fontsize=9)
    for axes in panels[-1]:
        axes.set_xlabel(label("epoch"))
    style.legend(figure, panels.flat)
    counts = [len(runs) for runs in groups.values()]
    style.caption(
        figure,
        f"{dataset_label(dataset)}, validation images",
        "rows: how the net was trained",
        f"line: mean of {seeds_label(counts)}",
        interval_label(counts, level, "band"),
        caveats(recorded, [RECORDED]),
        f"without a row, as nothing iterates or was recorded: {listing(left_out)}" if left_out else "",
    )
    return figure


@style.styled
def couplings_over_image(
    image: np.ndarray,
    shares: np.ndarray,
    lengths: np.ndarray,
    *,
    receptive: tuple[int, int],
    label_names: Sequence[str],
    true_class: int,
    note: str = "",
) -> Figure:
    """Draw which parts of an image send their votes to which class, a row an iteration, a column a class.

    Args:
        image: float[H, W, C] in 0..1.
        shares: float[iterations, rows, columns, classes], strength of the coupled votes of each position.
        lengths: float[iterations, classes] of the class capsules; the longest at the last iteration are drawn.
        receptive: (pixels between positions, side of a position's receptive field).
        label_names: one name a class.
        true_class: of the image.
        note: how the caption begins, such as the data set and the network.

    Raises:
        ValueError: the shapes do not fit.
    """
    iterations, rows, columns, count = shares.shape
    if lengths.shape != (iterations, count) or len(label_names) != count:
        raise ValueError(
            f"need lengths [{iterations}, {count}] and {count} names, got {lengths.shape} and {len(label_names)}"
        )
    longest = np.argsort(-lengths[-1])[:CLASSES]
    greatest = shares[:, :, :, longest].max()
    stride, side = receptive
    low = (side - 1) / 2 - stride / 2
    extent = (low, low + stride * columns, low + stride * rows, low)  # around the centres of the receptive fields
    height, width = image.shape[:2]
    figure = style.new_figure(0.7 + min(20.0, 0.2 + 1.55 * height / width) * iterations, "compressed")
    panels = figure.subplots(iterations, len(longest) + 1, squeeze=False)
    for t in range(iterations):
        for axes in panels[t]:
            style.image_axes(axes)
            show(axes, image if axes is panels[t, 0] else image / 2)
        panels[t, 0].set_ylabel(f"iteration {t + 1}", fontsize=9)
        for axes, k in zip(panels[t, 1:], longest, strict=True):
            look = {"cmap": "inferno", "alpha": 0.75, "vmin": 0, "vmax": greatest}
            votes = axes.imshow(shares[t, :, :, k], extent=extent, **look)
            axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
            weight = "bold" if k == true_class else "normal"
            axes.set_title(f"{label_names[k]}: {lengths[t, k]:.2f}", fontsize=9, fontweight=weight)
    bar = figure.colorbar(
        votes, ax=panels, label="length of a position's\ncoupled votes, Σ |c û|", shrink=0.8, pad=0.02
    )
    bar.ax.set_facecolor(style.BLACK)  # as behind the colours in the panels
    panels[0, 0].set_title(f"true class: {label_names[true_class]}", fontsize=9, fontweight="bold")
    style.caption(
        figure,
        note,
        "columns: the classes of the most present capsules, with their activations; bold: the true class",
        "colours lie over the darkened image, at the centres of the positions' receptive fields",
    )
    return figure
