"""The slide "Routing v.s. backpropagation (on Fashion MNIST)", drawn from several seeds.

The slide does not define its arms. Its plots are those of CapsNet-Keras, which had just stopped stopping
gradients, so the likely reading, and ours, is: *without backpropagation* = the gradient is stopped through
the inner routing iterations, *with* = it flows through all of them. Both arms train every weight by
backpropagation. The slide's accuracies come from one seed and differ by 0.1 points, where the standard
error of one accuracy on 10,000 images is 0.27 points.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from matplotlib.axes import Axes
from matplotlib.figure import Figure

import capsnet_jax.figures.style as style
from capsnet_jax.figures.curves import draw_curve, remarks
from capsnet_jax.figures.groups import Curve, Record, by_dataset, mean_curve
from capsnet_jax.figures.labels import dataset_label, interval_label, label, seeds_label

Points = Mapping[str, Sequence[tuple[int, float]]]

# Read off the slide's plots (CapsNet-Keras, Fashion-MNIST, 50 epochs, one seed): series → (epoch, value).
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

# The slide's name of a series → the record's metric, its words and its colour.
_LOSSES = {
    "capsnet_loss": ("train_classification_loss", "capsnet_loss (margin)", style.BLUE),
    "decoder_loss": ("train_reconstruction_mse", "decoder_loss (mean square)", style.VERMILLION),
    "loss": ("train_loss", "loss", style.GREEN),
}
_ACCURACIES = {
    "capsnet_acc": ("train_error", "capsnet_acc (training)", style.PURPLE),
    "val_capsnet_acc": ("validation_error", "val_capsnet_acc (validation)", style.BLACK),
}

_GRADIENTS: Mapping[object, str] = {
    "stop": "gradient stopped through the inner iterations",
    "full": "gradient through all iterations",
}


@style.styled
def routing_against_backprop(
    without: Sequence[Record],
    with_: Sequence[Record],
    reference: Mapping[str, Points] | None = None,
    *,
    level: float = 0.95,
) -> Figure:
    """Draws the slide's two columns: losses above, accuracies below, means with bands over seeds.

    Args:
        without: the left column, runs of one setting: gradient stopped through the inner iterations.
        with_: the right column, runs of one setting: gradient through all iterations.
        reference: values to mark with hollow circles, in the form of `SLIDE_POINTS`.
        level: the coverage of the bands.

    Returns:
        The figure; the two columns share their y axes. What `routing.gradient` was is read from the records.

    Raises:
        ValueError: an arm has no records, mixes settings, or lacks one of the five metrics.
    """
    figure = style.new_figure(6.6)
    panels = figure.subplots(2, 2, sharex=True, sharey="row")
    arms = {"without": without, "with": with_}
    datasets: dict[object, object] = {}
    for column, (name, records) in enumerate(arms.items()):
        points = {} if reference is None else reference[name]
        datasets |= by_dataset(records, ["routing.gradient"])
        panels[0, column].set_title(_title(name, records))
        for series, (metric, words, colour) in _LOSSES.items():
            curve = mean_curve(records, metric, level)
            _draw(panels[0, column], curve, words, colour, points.get(series, ()))
        for series, (metric, words, colour) in _ACCURACIES.items():
            curve = _accuracy(mean_curve(records, metric, level))
            _draw(panels[1, column], curve, words, colour, points.get(series, ()))
        panels[1, column].set_xlabel(label("epoch"))
    panels[0, 0].set_ylabel("training loss")
    panels[0, 0].set_ylim(bottom=0)
    panels[1, 0].set_ylabel("accuracy [fraction]")
    panels[0, 1].legend(loc="upper right")
    panels[1, 1].legend(loc="lower right")
    style.caption(figure, _caption(arms, list(datasets), reference is not None, level))
    return figure


def _title(name: str, records: Sequence[Record]) -> str:
    gradients = {record.settings.get("routing.gradient") for record in records}
    if len(gradients) > 1:
        raise ValueError(f"the arm {name!r} mixes values of routing.gradient: {gradients}")
    (gradient,) = gradients
    return f"{name} backpropagation\n({_GRADIENTS.get(gradient, f'routing.gradient = {gradient}')})"


def _draw(axes: Axes, curve: Curve, words: str, colour: str, points: Sequence[tuple[int, float]]) -> None:
    draw_curve(axes, curve, label=words, color=colour)
    if points:
        epochs, values = zip(*points, strict=True)
        axes.plot(epochs, values, "o", markersize=7, mfc="none", mec=colour, mew=1.3)


def _accuracy(error: Curve) -> Curve:
    """Turns an error in percent into an accuracy as a fraction."""
    return dataclasses.replace(error, mean=1 - error.mean / 100, half_width=error.half_width / 100)


def _caption(arms: Mapping[str, Sequence[Record]], datasets: Sequence[object], marked: bool, level: float) -> str:
    records = [record for members in arms.values() for record in members]
    counts = [len(members) for members in arms.values()]
    names = ", ".join(dataset_label(dataset) for dataset in datasets)
    metrics = [metric for metric, _, _ in (*_LOSSES.values(), *_ACCURACIES.values())]
    circles = "; hollow circle: read off the slide, one seed" if marked else ""
    interval = interval_label(counts, level, "band")
    return f"{names}; line: mean of {seeds_label(counts)}; {interval}{circles}{remarks(records, metrics)}"
