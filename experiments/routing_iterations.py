"""Do more routing iterations make a better CapsNet?

Claim: with reconstruction, MNIST test error falls from 0.29 ± 0.011 % with 1 iteration to 0.25 ± 0.005 % with 3
(Sabour, Frosst and Hinton 2017, Table 1); without, 0.34 ± 0.032 % and 0.35 ± 0.036 %, no difference. The logits change
less with every iteration and with training (figure A.1), and three iterations train to a lower loss than one (A.2).

    python launch.py --experiment=routing_iterations
    python launch.py --experiment=routing_iterations --dataset=mnist --seeds=5 --set train.epochs=10 \
        --sweep routing.iterations=1,2,3,5,7
    python launch.py --experiment=routing_iterations --dataset=mnist --seeds=5 --set train.epochs=10 \
        --set loss.reconstruction=false --sweep routing.iterations=1,3

The first command is a quick look: three settings and 5 epochs on the embedded digits, under 3 minutes on 2 cores. The
studies train for 10 epochs; `--preset=paper` keeps its 15. All of MNIST takes about 18 minutes a seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import capsnet_jax.figures.style as style
from capsnet_jax.figures.curves import caveats, draw_curve, has, learning_curves
from capsnet_jax.figures.error_against import error_against
from capsnet_jax.figures.grouping import (
    DATASET,
    Arms,
    Curve,
    Record,
    by_dataset,
    compared_paths,
    group,
    mean_curve,
    recorded_iterations,
    single_dataset,
)
from capsnet_jax.figures.heatmap import train_test_grid
from capsnet_jax.figures.labels import (
    ITERATIONS,
    dataset_label,
    dataset_slug,
    interval_label,
    listing,
    possible_range,
    seeds_label,
    setting_label,
)
from capsnet_jax.overrides import grid
from capsnet_jax.statistics import cut_label

CONFIG: dict[str, object] = {"train.epochs": 5, "eval.max_routing_iterations": 7}

SWEEP: list[dict[str, object]] = grid({"routing.iterations": (1, 3, 5)})

LOGITS = "validation_logit_change_at_{}"
CHANGES = {
    LOGITS: "logits\nmean |b(t) − b(t−1)|",
    "validation_coupling_change_at_{}": "couplings\nmean |c(t) − c(t−1)|",
    "validation_capsule_change_at_{}": "class capsules\nmean |v(t) − v(t−1)|",
}

# Sabour et al. 2017, figure A.1, after 500 epochs: iteration → mean change of the logits, read off the plot.
PAPER_CHANGES = {2: 0.007, 5: 1e-5}

MOST_EPOCHS = 5  # curves in a panel of `changes_by_iteration`

CAPTIONS = {
    "learning_curves": "each metric by epoch, a line for each number of iterations",
    "error_against_iterations": "test error of nets trained with so many iterations",
    "training_loss": "figure A.2 of the paper: one and three iterations",
    "changes": "figure A.1 of the paper: how much each iteration still changes",
    "train_test_grid": "trained with r, tested with r′ iterations",
}


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Draw learning curves, test error against iterations, and the paper's figures A.1 and A.2."""
    varied = [path for path in compared_paths(records) if path != ITERATIONS]
    by, arms = [ITERATIONS, *varied], Arms(records, SWEEP)
    drawn = {"learning_curves": learning_curves(records, by, arms=arms)}
    routed = [record for record in records if record.settings.get(ITERATIONS) is not None]
    if not routed:
        return drawn
    drawn["error_against_iterations"] = error_against(routed, ITERATIONS, by=varied, arms=arms)
    if len(routed) < len(records):
        others = group([record for record in records if record.settings.get(ITERATIONS) is None], varied)
        names = listing([setting_label(varied, setting) for setting in others])
        style.add_to_caption(drawn["error_against_iterations"], f"without iterations, so not shown: {names}")
    # What is drawn below compares iterations alone, at the setting that most runs have.
    alike, said = _at_one_setting(routed, varied)
    some: dict[str, Figure] = {}
    one_and_three = [record for record in alike if record.settings[ITERATIONS] in (1, 3)]
    if len({record.settings[ITERATIONS] for record in one_and_three}) == 2 and has(one_and_three, "train_loss"):
        some["training_loss"] = learning_curves(one_and_three, by, metrics=("train_loss",), arms=arms)
    if any("test_error_at_1" in record.result for record in alike):
        some["train_test_grid"] = train_test_grid(alike)
    for figure in some.values():
        style.add_to_caption(figure, said)
    for dataset, members in by_dataset(routed).items():
        observed = [record for record in members if _iterates(record) or record.settings[ITERATIONS] == 1]
        if any(_iterates(record) for record in observed):
            alike, said = _at_one_setting(observed, varied)
            some[f"changes-{dataset_slug(dataset)}"] = changes_by_iteration(alike)
            style.add_to_caption(some[f"changes-{dataset_slug(dataset)}"], said)
    return drawn | some


def _at_one_setting(routed: Sequence[Record], varied: Sequence[str]) -> tuple[list[Record], str]:
    """Return the runs that differ in iterations and data set alone, and what a caption says of the others; "" of none.

    They are of the setting that most runs have. Runs of one iteration have only some of it.
    """
    groups = group(routed, [DATASET, ITERATIONS, *varied])
    settings = {id(record): tuple(setting) for (_, _, *setting), runs in groups.items() for record in runs}
    iterating = [record for record in routed if record.settings[ITERATIONS] > 1] or routed
    most, _ = Counter(settings[id(record)] for record in iterating).most_common(1)[0]
    nearest: dict[tuple[object, object], tuple[int, list[Record]]] = {}  # of each data set and number of iterations
    for (dataset, r, *setting), runs in groups.items():
        equal = [value == wanted for value, wanted in zip(setting, most, strict=True)]
        if all(same or value is None for same, value in zip(equal, setting, strict=True)):
            nearest[dataset, r] = max(nearest.get((dataset, r), (-1, [])), (sum(equal), runs), key=lambda pair: pair[0])
    alike = [record for _, runs in nearest.values() for record in runs]
    others = len(routed) - len(alike)
    return alike, f"shown: {setting_label(varied, most)}; not shown: {others} runs of other settings" if others else ""


@style.styled
def changes_by_iteration(records: Sequence[Record], *, level: float = 0.95) -> Figure:
    """Draw how much each iteration still changes, for several epochs of training.

    Args:
        records: finished runs of one data set whose iterations were recorded; those trained with one iteration have no
            panel.
        level: the coverage of the bands.

    Returns:
        The figure: a row of panels for logits, couplings and capsules, a column for each number of iterations trained
        with, a curve an epoch.

    Raises:
        ValueError: no run of two or more iterations was recorded, or the records are of several data sets.

    Source: Sabour et al. 2017, figure A.1, of which the logits' row is the literal reading.
    """
    recorded = [record for record in records if _iterates(record)]
    if not recorded:
        raise ValueError("no run with two or more iterations was recorded; train with eval.max_routing_iterations=7")
    dataset, groups = single_dataset(recorded, [ITERATIONS])
    rows = {name: text for name, text in CHANGES.items() if all(name.format(2) in r.metrics for r in recorded)}
    last = max(int(record.metrics["epoch"][-1]) for record in recorded)
    figure = style.new_figure(1.0 + 1.9 * len(rows))
    panels = figure.subplots(len(rows), len(groups), squeeze=False, sharex=True, sharey="row")
    cut = False
    for row, (name, ylabel) in zip(panels, rows.items(), strict=True):
        for axes, runs in zip(row, groups.values(), strict=True):
            cut |= _draw_changes(axes, runs, name, last, level)
        row[0].set_ylabel(ylabel)
    for axes, (r,) in zip(panels[0], groups, strict=True):
        axes.set_title(f"trained with r = {r}")
    for axes in panels[-1]:
        axes.set_xlabel("iteration")
    style.legend(figure, panels.flat)
    counts = [len(runs) for runs in groups.values()]
    style.caption(
        figure,
        f"{dataset_label(dataset)}, validation images",
        f"line: mean of {seeds_label(counts)}",
        "with r = 1 nothing iterates, so no panel" if len(recorded) < len(records) else "",
        interval_label(counts, level, "band"),
        cut_label(possible_range(LOGITS)) if cut else "",
        "dotted: the iterations trained with",
        "hollow circles: 0.007 and 1e-5, Sabour et al. 2017, figure A.1, after 500 epochs",
        caveats(recorded, [name.format(2) for name in rows]),
    )
    return figure


def _iterates(record: Record) -> bool:
    """Whether a run has two or more iterations, and they were recorded."""
    return LOGITS.format(2) in record.metrics and record.settings[ITERATIONS] > 1


def _draw_changes(axes: Axes, runs: Sequence[Record], name: str, last: int, level: float) -> bool:
    """Draw a curve for some of the epochs up to `last`, each in its colour; return whether a band is cut."""
    cut = False
    iterations = recorded_iterations(runs, name)
    curves = [mean_curve(runs, name.format(t), level) for t in iterations]
    epochs = np.unique(np.linspace(1, last, min(MOST_EPOCHS, last)).round().astype(int))
    for number, epoch in enumerate(epochs):
        if epoch not in curves[0].x:
            continue
        index = int(np.flatnonzero(curves[0].x == epoch)[0])
        mean, half_width = (np.array([getattr(c, part)[index] for c in curves]) for part in ("mean", "half_width"))
        colour = style.shade(number, epochs.size)
        curve = Curve(np.array(iterations), mean, half_width)
        cut |= draw_curve(axes, curve, label=f"epoch {epoch}", color=colour, limits=possible_range(name))
    if name == LOGITS:
        axes.plot(*zip(*PAPER_CHANGES.items(), strict=True), "o", mfc="none", mec=style.VERMILLION, markersize=7)
    axes.axvline(runs[0].settings[ITERATIONS], color=style.GREY, linestyle=":", linewidth=1)
    axes.set_yscale("log")
    style.log_ticks(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return cut
