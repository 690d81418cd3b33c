"""What each routing iteration does, from the runs that were probed (`routing.probe`) after every epoch."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import capsnet_jax.figures.style as style
from capsnet_jax.figures.curves import draw_curve, remarks
from capsnet_jax.figures.groups import Curve, Record, mean_curve, one_dataset
from capsnet_jax.figures.labels import dataset_label, interval_label, label, seeds_label, setting_label

LOGITS = "validation_logit_change_at_{}"
CHANGES = {
    LOGITS: "logits\nmean |b(t) − b(t−1)|",
    "validation_coupling_change_at_{}": "couplings\nmean |c(t) − c(t−1)|",
    "validation_capsule_change_at_{}": "class capsules\nmean |v(t) − v(t−1)|",
}
DEAD = "validation_dead_capsules"
QUANTITIES = {
    "validation_entropy_at_{}": "entropy of couplings\n[of uniform]",
    "validation_agreement_at_{}": "agreement with\nthe longest parent",
    "validation_flips_at_{}": "predictions that\nflip [%]",
    "validation_error_at_{}": "validation\nerror [%]",
    DEAD: "dead primary\ncapsules [%]",
}

# Sabour et al. 2017, figure A.1, after 500 epochs: iteration → mean change of the logits, read off the plot.
PAPER_CHANGES = {2: 0.007, 5: 1e-5}

_EPOCHS = 5  # curves in a panel of `changes_by_iteration`


@style.styled
def changes_by_iteration(records: Sequence[Record], *, level: float = 0.95) -> Figure:
    """Draws how much each iteration still changes, for several epochs of training.

    Args:
        records: finished runs of one data set that were probed; those trained with one iteration have no panel.
        level: the coverage of the bands.

    Returns:
        The figure: a row of panels for logits, couplings and capsules, a column for each `routing.iterations`, a curve
        an epoch.

    Raises:
        ValueError: no run of two or more iterations was probed, or the records are of several data sets.

    Source: Sabour et al. 2017, figure A.1, of which the logits' row is the literal reading.
    """
    probed = [r for r in records if LOGITS.format(2) in r.metrics and int(str(r.settings["routing.iterations"])) > 1]
    if not probed:
        raise ValueError("no run with two or more iterations was probed; train with routing.probe=7")
    dataset, groups = one_dataset(probed, ["routing.iterations"])
    rows = {name: words for name, words in CHANGES.items() if all(name.format(2) in r.metrics for r in probed)}
    last = max(int(record.metrics["epoch"][-1]) for record in probed)
    figure = style.new_figure(1.0 + 1.9 * len(rows))
    panels = figure.subplots(len(rows), len(groups), squeeze=False, sharex=True, sharey="row")
    for row, (name, words) in zip(panels, rows.items(), strict=True):
        for axes, ((r,), runs) in zip(row, groups.items(), strict=True):
            _draw_changes(axes, runs, name, int(str(r)), last, level)
            if axes in panels[0]:
                axes.set_title(f"trained with r = {r}")
            if axes in panels[-1]:
                axes.set_xlabel("iteration")
        row[0].set_ylabel(words)
    style.legend(figure, panels.flat)
    counts = [len(runs) for runs in groups.values()]
    text = f"{dataset_label(dataset)}, validation images; line: mean of {seeds_label(counts)}"
    if len(probed) < len(records):
        text += "; with r = 1 nothing iterates, so no panel"
    circles = "hollow circles: 0.007 and 1e-5, Sabour et al. 2017, figure A.1, after 500 epochs"
    intervals = interval_label(counts, level, "band")
    left_out = remarks(probed, [name.format(2) for name in rows])
    style.caption(figure, f"{text}; {intervals}; dotted: the iterations trained with; {circles}{left_out}")
    return figure


@style.styled
def through_training(records: Sequence[Record], *, by: Sequence[str], level: float = 0.95) -> Figure:
    """Draws what each iteration does, by epoch: a row of panels a setting, a column a quantity, a line an iteration.

    Args:
        records: finished runs of one data set that were probed.
        by: the paths whose distinct values are the settings.
        level: the coverage of the bands.

    Raises:
        ValueError: no run was probed, or the records are of several data sets.
    """
    probed = [record for record in records if "validation_error_at_1" in record.metrics]
    if not probed:
        raise ValueError("no run was probed; train with routing.probe=7")
    dataset, groups = one_dataset(probed, by)
    figure = style.new_figure(1.2 + 1.75 * len(groups))
    panels = figure.subplots(len(groups), len(QUANTITIES), squeeze=False, sharex=True, sharey="col")
    for row, (key, runs) in zip(panels, groups.items(), strict=True):
        for axes, (quantity, words) in zip(row, QUANTITIES.items(), strict=True):
            steps = _steps(runs, quantity)
            for t in steps:
                colour = _shade(t - 1, max(steps))
                draw_curve(axes, mean_curve(runs, quantity.format(t), level), label=f"iteration {t}", color=colour)
            if quantity == DEAD:
                draw_curve(axes, mean_curve(runs, quantity, level), label="whole net", color=style.VERMILLION)
                axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
            axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
            if axes in panels[0]:
                axes.set_title(words, fontsize=9)
            if axes in panels[-1]:
                axes.set_xlabel(label("epoch"))
        row[0].set_ylabel(setting_label(by, key), fontsize=9)
    style.legend(figure, panels.flat)
    counts = [len(runs) for runs in groups.values()]
    text = f"{dataset_label(dataset)}, validation images; rows: how the net was trained; line: mean of "
    left_out = remarks(probed, ["validation_error_at_1"])
    style.caption(figure, f"{text}{seeds_label(counts)}; {interval_label(counts, level, 'band')}{left_out}")
    return figure


def _draw_changes(axes: Axes, runs: Sequence[Record], name: str, r: int, last: int, level: float) -> None:
    """Draws a curve for some of the epochs up to `last`; an epoch has one colour in every panel."""
    steps = _steps(runs, name)
    curves = {t: mean_curve(runs, name.format(t), level) for t in steps}
    shown = np.unique(np.linspace(1, last, min(_EPOCHS, last)).round().astype(int))
    for number, epoch in enumerate(shown):
        if epoch not in curves[steps[0]].epochs:
            continue
        place = int(np.flatnonzero(curves[steps[0]].epochs == epoch)[0])
        mean, half = (np.array([getattr(curves[t], n)[place] for t in steps]) for n in ("mean", "half_width"))
        curve = Curve(np.array(steps), mean, half)
        draw_curve(axes, curve, label=f"epoch {epoch}", color=_shade(number, shown.size))
    if name == LOGITS:
        axes.plot(*zip(*PAPER_CHANGES.items(), strict=True), "o", mfc="none", mec=style.VERMILLION, markersize=7)
    axes.axvline(r, color=style.GREY, linestyle=":", linewidth=1)
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _steps(runs: Sequence[Record], name: str) -> list[int]:
    """The iterations that all runs were probed with."""
    return [t for t in range(1, 21) if "{}" in name and all(name.format(t) in run.metrics for run in runs)]


def _shade(number: int, count: int) -> str:
    """The `number`-th of `count` colours from dark to light, the lightest left out."""
    return mpl.colors.to_hex(mpl.colormaps["viridis"](0.9 * number / max(1, count - 1)))
