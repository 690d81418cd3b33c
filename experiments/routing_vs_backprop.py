"""What does routing add to backpropagation?

Claim: on Fashion-MNIST a CapsNet reaches 92.3 % validation accuracy "without backpropagation" and 92.4 % with it (a
slide of 2017, one seed, 50 epochs; its figure is redrawn here). The slide does not define its arms. Most likely the
gradient is stopped through the inner routing iterations in the one and passes through all of them in the other.
Beside those two stand the arms that tell routing from backpropagation alone: one iteration, so uniform couplings;
static couplings that backpropagation learns, and static random ones; W frozen at random while the rest is trained; and
everything frozen but the decoder, so that routing alone decides. And each of the routed networks is tested with other
iterations than it was trained with.

    python launch.py --experiment=routing_vs_backprop --dataset=fashion_mnist
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

import capsnet_jax.figures.style as style
from capsnet_jax.figures.arms import name_missing
from capsnet_jax.figures.curves import caveats, draw_curve, has, learning_curves
from capsnet_jax.figures.forest import error_by_setting, has_pairs, paired_differences
from capsnet_jax.figures.grouping import (
    DATASET,
    Arms,
    Curve,
    Record,
    compared_paths,
    group,
    group_by_dataset,
    is_arm,
    mean_curve,
    varying_paths,
)
from capsnet_jax.figures.labels import (
    GRADIENT,
    dataset_label,
    dataset_slug,
    interval_label,
    label,
    possible_range,
    seeds_label,
    setting_label,
)
from capsnet_jax.statistics import cut_label

CONFIG: dict[str, object] = {"eval.max_routing_iterations": 7}


BASELINE: dict[str, object] = {
    "routing.name": "dynamic",
    "routing.iterations": 3,
    "routing.gradient": "full",
    "train.frozen": "none",
}

SWEEP: list[dict[str, object]] = [
    BASELINE,
    BASELINE | {"routing.gradient": "stop"},
    {"routing.name": "dynamic", "routing.iterations": 1, "train.frozen": "none"},
    {"routing.name": "learned", "train.frozen": "none"},
    {"routing.name": "random", "train.frozen": "none"},
    BASELINE | {"train.frozen": "class_capsules"},
    BASELINE | {"train.frozen": "conv1+primary+class_capsules"},
]

Points = Mapping[str, Sequence[tuple[int, float]]]

# Read off the slide's plots (CapsNet-Keras, Fashion-MNIST, 50 epochs, one seed): column → series → (epoch, value).
SLIDE_POINTS: Mapping[str, Points] = MappingProxyType(
    {
        "without": {
            "val_capsnet_acc": ((1, 0.823), (40, 0.9226), (50, 0.923)),
            "capsnet_acc": ((1, 0.728), (50, 0.932)),
            "capsnet_loss": ((1, 0.196), (50, 0.052)),
            "decoder_loss": ((50, 0.0197),),
            "loss": ((1, 0.2195), (50, 0.0596)),
        },
        "with": {
            "val_capsnet_acc": ((1, 0.831), (40, 0.9236), (50, 0.924)),
            "capsnet_acc": ((1, 0.730), (50, 0.938)),
            "capsnet_loss": ((1, 0.193), (50, 0.048)),
            "decoder_loss": ((50, 0.0203),),
            "loss": ((1, 0.216), (50, 0.0557)),
        },
    }
)

# The slide's name of a series → the record's metric, its name in the legend, and its colour.
LOSSES = {
    "capsnet_loss": ("train_classification_loss", "capsnet_loss (margin)", style.BLUE),
    "decoder_loss": ("train_reconstruction_mse", "decoder_loss (mean square)", style.VERMILLION),
    "loss": ("train_loss", "loss", style.GREEN),
}
ACCURACIES = {
    "capsnet_acc": ("train_error", "capsnet_acc (training)", style.PURPLE),
    "val_capsnet_acc": ("validation_error", "val_capsnet_acc (validation)", style.BLACK),
}

GRADIENTS = {
    "stop": "gradient stopped through the inner iterations",
    "full": "gradient through all iterations",
}

CAPTIONS = {
    "error_by_arm": "test error of each arm",
    "paired": "difference from full routing with three iterations, seed by seed",
    "with_and_without": "the slide's figure, with its points as circles",
    "learning_curves": "each metric by epoch, a line for each arm",
}


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Draw the test error of each arm, learning curves, and the slide's figure where both of its arms were run."""
    by, arms = compared_paths(records, list(BASELINE)), Arms(records, SWEEP)
    drawn = {
        "error_by_arm": error_by_setting(records, by, arms=arms),
        "learning_curves": learning_curves(records, by, arms=arms),
    }
    if has_pairs(records, by, BASELINE):
        drawn["paired"] = paired_differences(records, by, baseline=BASELINE, arms=arms)
    name_missing(drawn, records, SWEEP)
    of_the_slide = {path: value for path, value in BASELINE.items() if path != GRADIENT}
    routed = [record for record in records if is_arm(record, of_the_slide)]
    paths = [path for path in varying_paths(routed) if path != GRADIENT]
    # The slide's two columns are two settings that differ in the gradient alone.
    columns: dict[object, dict[tuple[object, ...], dict[object, list[Record]]]] = {}
    for (dataset, *setting, gradient), members in (
        group(routed, [DATASET, *paths, GRADIENT]) if routed else {}
    ).items():
        columns.setdefault(dataset, {}).setdefault(tuple(setting), {})[gradient] = members
    for dataset, settings in columns.items():
        pairs = {setting: pair for setting, pair in settings.items() if set(GRADIENTS) <= set(pair)}
        if not pairs:
            continue
        shown = max(pairs, key=lambda setting: sum(len(pairs[setting][gradient]) for gradient in GRADIENTS))
        reference = SLIDE_POINTS if dataset == "fashion_mnist" else None
        figure = routing_vs_backprop(pairs[shown]["stop"], pairs[shown]["full"], reference)
        if len(settings) > 1:
            style.add_to_caption(figure, f"shown: {setting_label(paths, shown)}; not shown: runs of other settings")
        drawn[f"with_and_without-{dataset_slug(dataset)}"] = figure
    return drawn


@style.styled
def routing_vs_backprop(
    without: Sequence[Record],
    with_: Sequence[Record],
    reference: Mapping[str, Points] | None = None,
    *,
    level: float = 0.95,
) -> Figure:
    """Draw the slide's two columns: losses above, accuracies below, means with bands over seeds.

    The slide's plots are those of CapsNet-Keras. Its accuracies come from one seed and differ by 0.1 points, where the
    standard error of one accuracy on 10,000 images is 0.27 points. Both columns train every weight by backpropagation.

    Args:
        without: the left column, runs of one setting: gradient stopped through the inner iterations.
        with_: the right column, runs of one setting: gradient through all iterations.
        reference: values to mark with hollow circles, in the form of `SLIDE_POINTS`.
        level: the coverage of the bands.

    Returns:
        The figure; the two columns share their y axes. What the gradient was is read from the records.

    Raises:
        ValueError: an arm has no records, mixes settings, or lacks one of the five metrics.
    """
    figure = style.new_figure(6.6)
    panels = figure.subplots(2, 2, sharex=True, sharey="row")
    columns = {"without": without, "with": with_}
    datasets: dict[str, None] = {}
    cut: set[tuple[float, float]] = set()
    for (losses, accuracies), (name, records) in zip(panels.T, columns.items(), strict=True):
        points = {} if reference is None else reference[name]
        datasets |= dict.fromkeys(group_by_dataset(records, [GRADIENT]))
        losses.set_title(_title(name, records))
        for series, (metric, text, colour) in LOSSES.items():
            cut |= _draw(losses, records, metric, text, colour, level, points.get(series, ()))
        for series, (metric, text, colour) in ACCURACIES.items():
            cut |= _draw(accuracies, records, metric, text, colour, level, points.get(series, ()))
        accuracies.set_xlabel(label("epoch"))
    panels[0, 0].set_ylabel("training loss")
    panels[0, 0].set_ylim(bottom=0)
    panels[1, 0].set_ylabel("accuracy [fraction]")
    panels[0, 1].legend(loc="upper right")
    panels[1, 1].legend(loc="lower right")
    counts = [len(without), len(with_)]
    style.caption(
        figure,
        ", ".join(dataset_label(dataset) for dataset in datasets),
        f"line: mean of {seeds_label(counts)}",
        interval_label(counts, level, "band"),
        *(cut_label(limits) for limits in sorted(cut)),
        "" if reference is None else "hollow circle: read off the slide, one seed",
        caveats([*without, *with_], [metric for metric, _, _ in (*LOSSES.values(), *ACCURACIES.values())]),
    )
    return figure


def _draw(
    axes: Axes,
    records: Sequence[Record],
    metric: str,
    text: str,
    colour: str,
    level: float,
    points: Sequence[tuple[int, float]],
) -> set[tuple[float, float]]:
    """Draw a metric's curve, errors as accuracies, and the slide's points; return the limits that cut its band."""
    known, cut = has(records, metric), False
    is_error = metric in {name for name, _, _ in ACCURACIES.values()}
    limits = (0.0, 1.0) if is_error else possible_range(metric)
    if known:
        curve = mean_curve(records, metric, level)
        cut = draw_curve(axes, _accuracy(curve) if is_error else curve, label=text, color=colour, limits=limits)
    if points:  # hollow, and in the legend where they stand alone
        name: dict[str, Any] = {} if known else {"label": f"{text.split()[0]} (slide alone)"}
        axes.plot(*zip(*points, strict=True), "o", markersize=7, mfc="none", mec=colour, mew=1.3, **name)
    return {limits} if cut else set()


def _title(name: str, records: Sequence[Record]) -> str:
    gradients = {record.settings.get(GRADIENT) for record in records}
    if len(gradients) > 1:
        raise ValueError(f"the arm {name!r} mixes values of {GRADIENT}: {gradients}")
    (gradient,) = gradients
    return f"{name} backpropagation\n({GRADIENTS.get(str(gradient), f'{GRADIENT} = {gradient}')})"


def _accuracy(error: Curve) -> Curve:
    """Turn an error in percent into an accuracy as a fraction."""
    return dataclasses.replace(error, mean=1 - error.mean / 100, half_width=error.half_width / 100)
