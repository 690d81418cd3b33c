"""When is it better to start from a network that has learned something else, and how much of it should stay?

Claim of the slides: size of the data and likeness to the source decide. Much data and alike: fine-tune everything at a
low rate. Little and alike: keep the features, train the output layer alone. Little and unlike: freeze the first layers,
which know basic patterns, and train the rest. Much and unlike: train from scratch. Here networks that learned MNIST
(all of it, by the preset's recipe) move to its digits turned by 90°, to its digits inverted, and to Fashion-MNIST, each
with 100, 1,000 and 10,000 images, in each of the four ways.

    python launch.py --experiment=transfer_cases --seeds=5

Epochs are chosen so that steps suffice where images are few (200, 400 and 1,000 steps). There is no augmentation.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import capsnet_jax.figures.style as style
from capsnet_jax.figures.grouping import DATASET, Record, group, results, varying_paths
from capsnet_jax.figures.images import setting_slug
from capsnet_jax.figures.labels import (
    dataset_label,
    interval_label,
    label,
    possible_range,
    seeds_label,
    setting_label,
)
from capsnet_jax.figures.marks import draw_mean, stacked
from capsnet_jax.overrides import format_value
from capsnet_jax.statistics import Estimate, cut_label, mean_interval

TRANSFORM, SIZE = "data.transform", "data.train_size"

CONFIG: dict[str, object] = {
    "model.name": "cnn_small",
    "data.max_shift": 0,
    "data.validation_fraction": 0.02,  # 1,200 images: after each of many short epochs they are all looked at
    "train.batch_size": 50,
}

STRATEGIES: dict[str, dict[str, object]] = {
    "from scratch": {"finetune.source": "none", "train.frozen": "none"},
    "fine-tune all": {"finetune.source": "mnist", "finetune.lr_multiplier": 0.1, "train.frozen": "none"},
    "freeze the first two": {"finetune.source": "mnist", "finetune.lr_multiplier": 1.0, "train.frozen": "conv1+conv2"},
    "output layer alone": {
        "finetune.source": "mnist",
        "finetune.lr_multiplier": 1.0,
        "train.frozen": "conv1+conv2+conv3+hidden",
    },
}
TARGETS = [("mnist", "rotated"), ("mnist", "inverted"), ("fashion_mnist", "none")]
EPOCHS = {100: 100, 1000: 20, 10000: 5}  # by the number of training images

SWEEP: list[dict[str, object]] = [
    {DATASET: dataset, TRANSFORM: transform, SIZE: size, "train.epochs": epochs} | strategy
    for dataset, transform in TARGETS
    for size, epochs in EPOCHS.items()
    for strategy in STRATEGIES.values()
]

PATHS = ("finetune.source", "finetune.lr_multiplier", "train.frozen")  # what tells strategies apart

LETTERS = 28  # of a strategy's name in a line

Position = tuple[str, str, int]  # data set, its transform, number of training images

BASELINE: dict[str, object] = STRATEGIES["from scratch"]

# (alike, much) → what the slides advise
ADVICE = {
    (True, True): "fine-tune all",
    (True, False): "output layer alone",
    (False, False): "freeze the first two",
    (False, True): "from scratch",
}

CAPTIONS = {
    "transfer_grid": "four strategies for each target and number of images; the ring is what the slides advise",
}


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Draw all strategies for each target and size, with the slides' advice at the least and the greatest size.

    What else was varied, such as the model, is a figure for each value.
    """
    cells: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        cells.setdefault(tuple(record.settings.get(path) for path in (DATASET, TRANSFORM, SIZE, *PATHS)), []).append(
            record
        )
    by = list(dict.fromkeys(path for members in cells.values() for path in varying_paths(members)))
    drawn: dict[str, Figure] = {}
    for setting, members in _alike(records, by).items():
        sizes = sorted({int(record.settings[SIZE]) for record in members}, key=_amount)
        advice = {
            (dataset, transform, size): ADVICE[dataset == "mnist", size == sizes[-1]]
            for dataset, transform in TARGETS
            for size in (sizes[0], sizes[-1])
            if len(sizes) > 1
        }
        title = "-".join(filter(None, ["transfer_grid", setting_slug(by, setting)]))
        drawn[title] = transfer_grid(members, STRATEGIES, advice, note=setting_label(by, setting) if by else "")
    return drawn


def _alike(records: Sequence[Record], by: Sequence[str]) -> dict[tuple[str | None, ...], list[Record]]:
    """Group records by their values at the paths `by`; one that lacks a path is in the group of every value of it."""

    def setting(record: Record) -> tuple[str | None, ...]:
        return tuple(format_value(record.settings[path]) if path in record.settings else None for path in by)

    def agrees(part: tuple[str | None, ...], whole: tuple[str | None, ...]) -> bool:
        return all(value in (None, other) for value, other in zip(part, whole, strict=True))

    settings = list(dict.fromkeys(map(setting, records)))
    whole = [one for one in settings if not any(agrees(one, other) for other in settings if other != one)]
    return {one: [record for record in records if agrees(setting(record), one)] for one in whole}


def _amount(size: int) -> float:
    """Return how many images `data.train_size` stands for; 0 is all of them."""
    return size or math.inf


@style.styled
def transfer_grid(
    records: Sequence[Record],
    strategies: Mapping[str, Mapping[str, object]],
    advice: Mapping[Position, str],
    *,
    quantity: str = "test_error",
    level: float = 0.95,
    note: str = "",
) -> Figure:
    """Draw a panel for each target (down) and number of training images (across), a row in it for each strategy.

    Args:
        records: finished runs, in any order.
        strategies: each one's name → the settings that tell it from the others. Those without runs have no row; other
            settings that runs have at these paths are rows of their own.
        advice: which strategy was advised where; its row gets a ring.
        quantity: the name in `Record.result`.
        level: the coverage of the intervals.
        note: how the caption begins.

    Raises:
        ValueError: there are no records, or none has the quantity.
    """
    paths = list(dict.fromkeys(path for strategy in strategies.values() for path in strategy))
    groups = group(records, [DATASET, TRANSFORM, SIZE, *paths])
    results(records, quantity)  # raises where no run has it
    names = {tuple(strategy.get(path) for path in paths): name for name, strategy in strategies.items()}
    names |= {s[3:]: textwrap.fill(setting_label(paths, s[3:]), LETTERS) for s in groups if s[3:] not in names}
    colours = {name: style.series_style(index)["color"] for index, name in enumerate(names.values())}
    rows = [name for setting, name in names.items() if any(other[3:] == setting for other in groups)]
    targets = list(dict.fromkeys(setting[:2] for setting in groups))
    sizes = sorted({int(str(setting[2])) for setting in groups}, key=_amount)
    lines = max(name.count("\n") + 1 for name in rows)
    figure = style.new_figure(1.0 + len(targets) * (0.71 + max(0.26, style.LINE_HEIGHT * lines) * len(rows)))
    panels = figure.subplots(len(targets), len(sizes), squeeze=False, sharey=True)
    counts, limits, cut = [], possible_range(quantity), False
    for (row, column), axes in np.ndenumerate(panels):
        (dataset, transform), size = targets[row], sizes[column]
        values = {
            names[setting[3:]]: np.array([run.result.get(quantity, np.nan) for run in runs])
            for setting, runs in groups.items()
            if setting[:3] == (dataset, transform, size)
        }
        advised = advice.get((str(dataset), str(transform), size))
        estimates = {name: mean_interval(seeds, level) for name, seeds in values.items()}
        counts += [estimate.n for estimate in estimates.values() if estimate.n]
        cut |= _draw_strategies(axes, values, estimates, {name: colours[name] for name in rows}, advised, limits)
        suffix = "" if transform in (None, "none") else f", {transform}"
        axes.set_title(f"{dataset_label(dataset)}{suffix}\n{f'{size:,}' if size else 'all'} images")
        axes.set(xlabel=label(quantity) if row == len(targets) - 1 else "")
    style.caption(
        figure,
        note,
        f"dot: one seed; diamond: mean of {seeds_label(counts)}",
        interval_label(counts, level, "bar"),
        cut_label(limits) if cut else "",
        "grey: the least error of the panel",
        "ring: what the slides advise" if any(name in rows for name in advice.values()) else "",
    )
    return figure


def _draw_strategies(
    axes: Axes,
    values: Mapping[str, np.ndarray],
    estimates: Mapping[str, Estimate],
    colours: Mapping[str, str],
    advised: str | None,
    limits: tuple[float, float],
) -> bool:
    """Draw each strategy's seeds, their mean and interval, a row a colour; return whether an interval is cut off."""
    names, cut = list(colours), False
    known = {name: estimate for name, estimate in estimates.items() if estimate.n}
    for name, estimate in known.items():
        row, dots = names.index(name), values[name]
        look: dict[str, Any] = {"fmt": "D", "markersize": 5, "capsize": 3, "color": colours[name]}
        place = row + 0.2 + stacked(dots, 0.06, 0.2)
        axes.plot(dots, place, "o", color=colours[name], alpha=0.45, markersize=4, mew=0)
        cut |= draw_mean(axes, estimate.mean, row, estimate.half_width, along="x", limits=limits, **look)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    if not known:
        style.say(axes, "no finite result" if values else "no runs")
        axes.set_yticks(range(len(names)), names)
        return cut
    if advised in known:
        axes.plot(known[advised].mean, names.index(advised), "o", ms=15, mfc="none", mec=style.BLACK)
    least = names.index(min(known, key=lambda name: known[name].mean))
    axes.axhspan(least - 0.5, least + 0.5, color=style.BLACK, alpha=0.07, lw=0)
    axes.set_xlim(0, min(1.15 * axes.dataLim.x1, 1.02 * limits[1]) or 1.0)
    return cut
