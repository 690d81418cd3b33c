"""What makes a CapsNet bear affine distortions that it was not trained with?

Claims: trained on shifted MNIST until the training accuracy is 99.23 %, a CapsNet is right on 79 % of affNIST and a CNN
on 66 % (Sabour, Frosst and Hinton 2017, section 5.1). Others: 93.21 % without any routing (AffCapsNet); the kernel's
size and a W that is shared matter, and routing does not (Gu, Tresp and Hu 2021, "Capsule Network Is Not More Robust
than Convolutional Network", arXiv:2103.15459). So five choices are crossed, each
with two levels: the kernel 9 or 5 pixels wide, W of each position or shared, routing by agreement or uniform couplings,
margin loss or cross-entropy, with or without reconstruction. Half of the 32 combinations are trained (those with an
even number of second levels), in which every choice is balanced over every pair of the others. An effect is the mean
of the eight settings with the second level less that of the eight with the first, seed by seed.

    python launch.py --experiment=affnist --seeds=5 --set data.train_size=10000 --set data.validation_fraction=0.05

Errors are compared where the training error falls to 21 %, the least that all nets reach, and after the last epoch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import capsnet_jax.figures.style as style
from capsnet_jax.figures.arms import name_missing
from capsnet_jax.figures.curves import learning_curves
from capsnet_jax.figures.forest import Row, error_by_setting, forest_plot
from capsnet_jax.figures.grouping import Arms, Record, by_dataset, compared_paths, is_arm, varying_paths
from capsnet_jax.figures.labels import MODEL, dataset_label, interval_label, seeds_label, setting_label
from capsnet_jax.report.render import Table
from capsnet_jax.statistics import describe_interval, holm, mean_interval, paired_difference

CONFIG: dict[str, object] = {
    "data.dataset": "affnist",
    MODEL: "capsnet_small",
    "model.channels": 16,
    "model.capsule_types": 2,
    "model.primary_dim": 8,
    "train.epochs": 8,
    "train.batch_size": 64,
    "eval.test_each_epoch": True,
}

STOP = 21.0  # percent of training images wrong, where nets are compared

# Choice → path, first and second level.
FACTORS: dict[str, tuple[str, object, object]] = {
    "kernel 5, not 9": ("model.kernel", 9, 5),
    "W shared over positions": ("model.share_weights", False, True),
    "no routing": ("routing.name", "dynamic", "uniform"),
    "cross-entropy, not margins": ("loss.name", "margin", "cross_entropy"),
    "no reconstruction": ("loss.reconstruction", True, False),
}

SWEEP: list[dict[str, object]] = [
    {path: levels[second] for (path, *levels), second in zip(FACTORS.values(), seconds, strict=True)}
    for seconds in itertools.product((0, 1), repeat=len(FACTORS))
    if sum(seconds) % 2 == 0
]

QUANTITIES = {"test_error_at_stop": "at equal training error", "test_error": "after the last epoch"}

CAPTIONS = {
    "effects": "what each choice adds to the test error: its second level less its first",
    "test_error_at_stop": "test error where the training error falls to 21 %",
    "test_error": "test error after the last epoch",
    "learning_curves": "each metric by epoch",
}


def count(record: Record) -> dict[str, float]:
    """Return the test error where the training error falls to `STOP`, and the epoch; between epochs on a line."""
    metrics = record.metrics
    if "test_error_at_epoch" not in metrics:
        return {}
    train, test = metrics["train_error"], metrics["test_error_at_epoch"]
    reached = np.flatnonzero(train <= STOP)
    if not reached.size:
        return {"test_error_at_stop": math.nan, "stop_epoch": math.nan}
    after = int(reached[0])
    before = max(after - 1, 0)
    way = (train[before] - STOP) / (train[before] - train[after]) if after else 0.0
    return {
        "test_error_at_stop": float(test[before] + way * (test[after] - test[before])),
        "stop_epoch": float(before + 1 + way),
    }


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Draw the effect of each choice, the error of every setting, and learning curves."""
    by, arms = compared_paths(records, [path for path, *_ in FACTORS.values()]), Arms(records, SWEEP)
    drawn: dict[str, Figure] = {}
    if rows := observed_rows(records):
        drawn["effects"] = effects_figure(rows)
    for quantity in QUANTITIES:
        if any(np.isfinite(record.result.get(quantity, math.nan)) for record in records):
            drawn[quantity] = error_by_setting(records, by, quantity=quantity, arms=arms)
    drawn["learning_curves"] = learning_curves(records, by, arms=arms)
    return name_missing(drawn, records, SWEEP)


def observed_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the effect of each choice for each seed that has all settings, as rows of a CSV file."""
    rows = []
    for study, members in _studies(records).items():
        for seed in sorted({record.seed for record in members}):
            runs = [next((r for r in members if r.seed == seed and is_arm(r, arm)), None) for arm in SWEEP]
            if any(run is None for run in runs):
                continue
            for choice, (path, first, second) in FACTORS.items():
                row: dict[str, Any] = {"study": study, "choice": choice, "seed": seed}
                for quantity in QUANTITIES:
                    means = [
                        np.mean(
                            [run.result.get(quantity, math.nan) for run in runs if run and run.settings[path] == level]
                        )
                        for level in (first, second)
                    ]
                    row[quantity] = float(means[1] - means[0])
                rows.append(row)
    return rows


def _studies(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Split records into those that are alike but for the choices, by data set and what else differs."""
    factors = [path for path, *_ in FACTORS.values()]
    split: dict[str, list[Record]] = {}
    for dataset, members in by_dataset(records).items():
        others = [path for path in varying_paths(members) if path not in factors]
        for record in members:
            setting = setting_label(others, [record.settings.get(path) for path in others]) if others else ""
            split.setdefault(", ".join(filter(None, (dataset_label(dataset), setting))), []).append(record)
    return split


def observed_tables(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Make a table of effects for each rule of stopping, with Holm's correction over its choices."""
    tables = []
    for quantity, when in QUANTITIES.items():
        cells: list[list[str]] = []
        keys = list(dict.fromkeys((row["study"], row["choice"]) for row in rows))
        differences = [paired_difference(v := _effects(rows, *key, quantity), [0.0] * len(v)) for key in keys]
        adjusted = holm([each.p_value for each in differences])
        for (study, choice), each, p in zip(keys, differences, adjusted, strict=True):
            interval = describe_interval(each.mean, each.half_width)
            p_texts = ["" if math.isnan(value) else f"{value:.2g}" for value in (each.p_value, p)]
            cells.append([study, choice, f"{each.mean:+.2f}{interval} (n = {each.n})", *p_texts])
        header = ["study", "choice", "effect on the test error %", "p (paired t)", "p (Holm)"]
        notes = ["Mean of the eight settings with it less that of the eight without, seed by seed, ± 95 % interval."]
        tables.append(Table(f"what each choice adds, {when}", header, cells, notes))
    return tables


@style.styled
def effects_figure(rows: Sequence[Mapping[str, Any]], *, level: float = 0.95) -> Figure:
    """Draw the effect of each choice: a panel for each study and rule of stopping, a row a choice."""
    studies = list(dict.fromkeys(row["study"] for row in rows))
    choices = list(dict.fromkeys(row["choice"] for row in rows))
    drawn = [(study, quantity) for study in studies for quantity in QUANTITIES]
    figure = style.new_figure(1.2 + 0.5 * len(choices) * len(drawn))
    panels = figure.subplots(len(drawn), 1, squeeze=False).ravel()
    counts = []
    for axes, (study, quantity) in zip(panels, drawn, strict=True):
        bars = []
        for number, choice in enumerate(choices):
            values = _effects(rows, study, choice, quantity)
            estimate = mean_interval(values, level)
            counts.append(estimate.n)
            text = f"{estimate.mean:+.2f}{describe_interval(estimate.mean, estimate.half_width)}".replace("-", "−")
            colour = style.series_style(number)["color"]
            bars.append(Row(choice, values, estimate.mean, estimate.half_width, text, colour))
        forest_plot(axes, bars, origin=0)
        axes.set(title=f"{study}, {QUANTITIES[quantity]}", xlabel="effect on the test error [points]")
    style.caption(
        figure,
        f"dot: one seed; diamond: mean of {seeds_label(counts)}",
        interval_label(counts, level, "bar"),
        "left of 0: it helps",
    )
    return figure


def _effects(rows: Sequence[Mapping[str, Any]], study: str, choice: str, quantity: str) -> list[float]:
    return [row[quantity] for row in rows if row["study"] == study and row["choice"] == choice]
