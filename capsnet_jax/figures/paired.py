"""Arms against one of them, paired by seed: what is left when the luck of a seed is taken out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

import capsnet_jax.figures.style as style
from capsnet_jax.figures.groups import Record, Setting, by_dataset, results
from capsnet_jax.figures.labels import dataset_label, interval_label, label, seeds_label, setting_label
from capsnet_jax.figures.rows import BEYOND, Row, draw_rows
from capsnet_jax.statistics import PairedDifference, paired_difference


@style.styled
def compare_arms(
    records: Sequence[Record],
    by: Sequence[str],
    *,
    reference: Mapping[str, object] | None = None,
    quantity: str = "test_error",
    level: float = 0.95,
) -> Figure:
    """Draws the difference of every arm from one of them, seed by seed, one panel a data set.

    Args:
        records: finished runs, in any order.
        by: the paths whose distinct values are the arms.
        reference: settings of the arm that the others are compared with, {path: value}; the first where there is no
            such arm. A data set that lacks it has no panel.
        quantity: the name in `Record.result`.
        level: the coverage of the intervals.

    Raises:
        ValueError: there are no records, none has a path or the quantity, or no arm shares a seed with it.
    """
    datasets = by_dataset(records, by)
    keys = [key for groups in datasets.values() for key in groups]
    wanted = reference or {}
    against = next((key for key in keys if all(wanted.get(p, v) == v for p, v in zip(by, key, strict=True))), keys[0])
    shared = {dataset: _differences(groups, against, quantity) for dataset, groups in datasets.items()}
    shared = {dataset: arms for dataset, arms in shared.items() if arms}
    if not shared:
        raise ValueError(f"no arm shares a seed with {setting_label(by, against)}")
    rows = [len(arms) for arms in shared.values()]
    figure = style.new_figure(0.8 + sum(0.7 + 0.5 * count for count in rows))
    panels = figure.subplots(len(rows), 1, squeeze=False, height_ratios=[count + 0.6 for count in rows]).ravel()
    counts: list[int] = []
    beyond = False
    for axes, (dataset, arms) in zip(panels, shared.items(), strict=True):
        lines: list[Row] = []
        for key, (own, theirs) in arms.items():
            found = paired_difference(own, theirs, level)
            counts.append(found.n)
            differences = np.subtract(own, theirs)
            colour = style.series_style(len(lines) + 1)["color"]
            lines.append(Row(setting_label(by, key), differences, found.mean, found.half_width, _words(found), colour))
        beyond |= draw_rows(axes, lines, origin=0)
        axes.set(xlabel=f"{label(quantity)}, less that of: {setting_label(by, against)}", title=dataset_label(dataset))
    text = f"dot: one seed's difference; diamond: mean of {seeds_label(counts)}; {interval_label(counts, level, 'bar')}"
    compared = sum(len(runs) for groups in datasets.values() for key, runs in groups.items() if key != against)
    alone = compared - sum(counts)
    left_out = f"; {alone} runs without a partner of the same seed, or not finite, left out" if alone else ""
    style.caption(
        figure, f"{text}; p of the paired t test, not corrected for the number of arms{left_out}{BEYOND * beyond}"
    )
    return figure


def _differences(
    groups: dict[Setting, list[Record]], against: Setting, quantity: str
) -> dict[Setting, tuple[list[float], list[float]]]:
    """Every other arm: its values and those of `against`, of the seeds that both have with finite values."""
    seeds = {
        key: {run.seed: value for run, value in zip(runs, results(runs, quantity), strict=True) if np.isfinite(value)}
        for key, runs in groups.items()
    }
    reference = seeds.pop(against, {})
    pairs = {key: [(own[seed], reference[seed]) for seed in own if seed in reference] for key, own in seeds.items()}
    return {key: ([a for a, _ in found], [b for _, b in found]) for key, found in pairs.items() if found}


def _words(found: PairedDifference) -> str:
    if found.n < 2:
        return f"{found.mean:+.2f} (n = {found.n})".replace("-", "−")
    return f"{found.mean:+.2f} ± {found.half_width:.2f}\n(p = {found.p_value:.2g}, n = {found.n})".replace("-", "−")
