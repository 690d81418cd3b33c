"""When is it better to start from a network that has learned something else, and how much of it should stay?

Claim of the slides: size of the data and likeness to the source decide. Much data and alike: fine-tune everything at a
low rate. Little and alike: keep the features, train the output layer alone. Little and unlike: freeze the first layers,
which know basic patterns, and train the rest. Much and unlike: train from scratch. Here networks that learned MNIST
(all of it, by the preset's recipe) move to its digits turned by 90°, to its digits inverted, and to Fashion-MNIST, each
with 100, 1,000 and 10,000 images, in each of the four ways.

    python launch.py --experiment=transfer_cases --seeds=5

Epochs are chosen so that steps suffice where images are few (200, 400 and 1,000 steps). There is no augmentation: what
moves in at the border would be dark, which inverted images are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import capsnet_jax.figures.style as style
from capsnet_jax.figures.grouping import DATASET, Record, group, interval_reach, results
from capsnet_jax.figures.labels import dataset_label, interval_label, label, possible_range, seeds_label
from capsnet_jax.statistics import mean_interval

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
    """Draw all strategies for each target and size, with the slides' advice at the least and the greatest size."""
    sizes = {int(record.settings[SIZE]) for record in records}
    advice = {
        (dataset, transform, size): ADVICE[dataset == "mnist", size == max(sizes)]
        for dataset, transform in TARGETS
        for size in (min(sizes), max(sizes))
    }
    return {"transfer_grid": transfer_grid(records, STRATEGIES, advice)}


@style.styled
def transfer_grid(
    records: Sequence[Record],
    strategies: Mapping[str, Mapping[str, object]],
    advice: Mapping[Position, str],
    *,
    quantity: str = "test_error",
    level: float = 0.95,
) -> Figure:
    """Draw a panel for each target (down) and number of training images (across), a row in it for each strategy.

    Args:
        records: finished runs, in any order.
        strategies: each one's name → the settings that tell it from the others.
        advice: which strategy was advised where; its row gets a ring.
        quantity: the name in `Record.result`.
        level: the coverage of the intervals.

    Raises:
        ValueError: there are no records, or none has the quantity.
    """
    paths = list(dict.fromkeys(path for strategy in strategies.values() for path in strategy))
    names = {tuple(strategy.get(path) for path in paths): name for name, strategy in strategies.items()}
    groups = group(records, [DATASET, TRANSFORM, SIZE, *paths])
    targets = list(dict.fromkeys(setting[:2] for setting in groups))
    sizes = sorted({int(str(setting[2])) for setting in groups})
    figure = style.new_figure(1.0 + 1.75 * len(targets))
    panels = figure.subplots(len(targets), len(sizes), squeeze=False, sharey=True)
    counts: list[int] = []
    for (row, column), axes in np.ndenumerate(panels):
        (dataset, transform), size = targets[row], sizes[column]
        strategy_runs = {
            names[setting[3:]]: runs
            for setting, runs in groups.items()
            if setting[:3] == (dataset, transform, size) and setting[3:] in names
        }
        values = {name: results(runs, quantity) for name, runs in strategy_runs.items()}
        advised = advice.get((str(dataset), str(transform), size))
        counts += _draw_strategies(axes, values, list(strategies), advised, possible_range(quantity), level)
        suffix = "" if transform in (None, "none") else f", {transform}"
        axes.set_title(f"{dataset_label(dataset)}{suffix}\n{size:,} images")
        axes.set(xlabel=label(quantity) if row == len(targets) - 1 else "")
    style.caption(
        figure,
        f"dot: one seed; diamond: mean of {seeds_label(counts)}",
        interval_label(counts, level, "bar"),
        "grey: the least error of the panel",
        "ring: what the slides advise",
    )
    return figure


def _draw_strategies(
    axes: Axes,
    values: Mapping[str, np.ndarray],
    names: Sequence[str],
    advised: str | None,
    limits: tuple[float, float],
    level: float,
) -> list[int]:
    """Draw each strategy's seeds, their mean and interval; return how many seeds each has."""
    estimates = {name: mean_interval(seeds, level) for name, seeds in values.items()}
    for name, estimate in estimates.items():
        row = names.index(name)
        colour = style.series_style(row)["color"]
        dots = values[name]
        axes.plot(dots, np.full(dots.size, row + 0.25), "o", color=colour, alpha=0.45, markersize=4, mew=0)
        reach = np.vstack(interval_reach(estimate.mean, estimate.half_width, limits))
        bar = None if np.isnan(estimate.half_width) else reach
        axes.errorbar(estimate.mean, row, xerr=bar, fmt="D", color=colour, markersize=5, capsize=3)
    if advised in estimates:
        axes.plot(estimates[advised].mean, names.index(advised), "o", ms=15, mfc="none", mec=style.BLACK)
    if estimates:
        least = names.index(min(estimates, key=lambda name: estimates[name].mean))
        axes.axhspan(least - 0.5, least + 0.5, color=style.BLACK, alpha=0.07, lw=0)
        axes.set_xlim(0, 1.15 * axes.dataLim.x1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    return [estimate.n for estimate in estimates.values()]
