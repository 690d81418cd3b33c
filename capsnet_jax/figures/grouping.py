"""Records sorted into the groups that a figure compares, and what the seeds of a group say together.

`by_dataset` and `compared_paths` come from where records are; figures and experiments take them from here.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from capsnet_jax.figures.labels import dataset_label, setting_label
from capsnet_jax.statistics import mean_interval
from capsnet_jax.sweeps.records import Record, by_dataset
from capsnet_jax.sweeps.varying import compared_paths, varying_paths

__all__ = [
    "Arms",
    "Curve",
    "Groups",
    "Record",
    "Setting",
    "best_settings",
    "by_dataset",
    "compared_paths",
    "distinct_settings",
    "each_result",
    "group",
    "group_by_dataset",
    "interval_reach",
    "is_arm",
    "mean_curve",
    "missing_arms",
    "paths_within",
    "recorded_iterations",
    "results",
    "single_dataset",
    "studies",
    "summarize",
    "varying_paths",
]

DATASET = "data.dataset"
MOST_ITERATIONS = 20
MOST_LETTERS = 250  # of names in a caption

Setting = tuple[object, ...]  # the values at the paths that a figure compares
Groups = dict[Setting, list[Record]]


@dataclasses.dataclass(frozen=True)
class Curve:
    """A mean over seeds at every x, float[points] each; `half_width` is nan where there are fewer than two seeds."""

    x: np.ndarray
    mean: np.ndarray
    half_width: np.ndarray


class Arms:
    """The arms of an experiment, numbered: an arm has the look of its number in every figure and for every data set.

    Args:
        records: all runs of the experiment. An arm is what they have at the paths that are compared.
        declared: arms as {path: value}, numbered first, whether or not they have runs.
    """

    def __init__(self, records: Sequence[Record], declared: Sequence[Mapping[str, object]] = ()) -> None:
        self.paths = compared_paths(records)
        arms = dict.fromkeys(self._arm(record) for record in records)
        self.numbers: dict[Setting, int] = {}
        for number, arm in enumerate(declared):
            runs = (r for r in records if is_arm(r, arm) and self._arm(r) not in self.numbers)
            self.numbers |= {self._arm(record): number for record in list(runs)[:1]}
        others = (number for number in range(len(arms) + len(declared)) if number not in self.numbers.values())
        self.numbers |= {arm: next(others) for arm in arms if arm not in self.numbers}

    def number(self, runs: Sequence[Record]) -> int:
        """Return the number of the arm that the first of these runs is of."""
        return self.numbers[self._arm(runs[0])]

    def _arm(self, record: Record) -> Setting:
        return tuple(_hashable(record.settings.get(path)) for path in self.paths)


def is_arm(record: Record, arm: Mapping[str, object]) -> bool:
    """Whether a run has all values of {path: value}."""
    return all(record.settings.get(path) == value for path, value in arm.items())


def missing_arms(records: Sequence[Record], declared: Sequence[Mapping[str, object]]) -> str:
    """Return for a caption which of the declared arms have no run; "" if all have some.

    An arm that names a data set is one of that data set alone.
    """
    told: dict[str, list[str]] = {}
    for dataset, runs in by_dataset(records).items():
        own = [arm for arm in declared if arm.get(DATASET, dataset) == dataset]
        missing = [arm for arm in own if not any(is_arm(record, arm) for record in runs)]
        names = "; ".join(setting_label(list(arm), list(arm.values())) for arm in missing)
        short = names if len(names) < MOST_LETTERS else f"{len(missing)} of the experiment's {len(own)} arms"
        if missing:
            told.setdefault(short, []).append(dataset_label(dataset))
    everywhere = len(by_dataset(records))
    return "; ".join(
        f"no run of {names}" + ("" if len(datasets) == everywhere else f" ({', '.join(datasets)})")
        for names, datasets in told.items()
    )


def paths_within(records: Sequence[Record], names: Sequence[str]) -> list[str]:
    """Return the paths that vary among runs with the same values at `names`, whose own settings tell nothing more."""
    kinds: defaultdict[Setting, list[Record]] = defaultdict(list)
    for record in records:
        kinds[tuple(_hashable(record.settings.get(path)) for path in names)].append(record)
    return list(dict.fromkeys(path for members in kinds.values() for path in compared_paths(members)))


def group(records: Sequence[Record], by: Sequence[str]) -> Groups:
    """Sort records by their values at the paths `by`.

    A record that lacks a path has None there. Numbers are put in order. Other values stay in the order in which they
    first come.

    Returns:
        For each setting its records, no two of one seed.

    Raises:
        ValueError: there are no records, a run comes twice, or runs of one group and data set differ in a setting: an
            interval would count settings as seeds.
    """
    if not records:
        raise ValueError("no records to draw")
    groups: Groups = defaultdict(list)
    for record in records:
        groups[tuple(_hashable(record.settings.get(path)) for path in by)].append(record)
    for members in groups.values():
        _check_alike(members)
    ranks = [_ranks(column) for column in zip(*groups, strict=True)]
    order = sorted(groups, key=lambda setting: [rank[value] for rank, value in zip(ranks, setting, strict=True)])
    return {setting: groups[setting] for setting in order}


def studies(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Split records into studies that a figure can show together: one preset and one optimizer each.

    Returns:
        For each study its records. Its name is "" for the preset that most runs are of, trained by Adam, else the
        preset, the optimizer or both, as `paper-muon`.
    """
    known = [str(record.settings["preset"]) for record in records if "preset" in record.settings]
    most = max(dict.fromkeys(known), key=known.count, default="")
    presets = [str(record.settings.get("preset", most)) for record in records]
    split: dict[str, list[Record]] = defaultdict(list)
    for record, preset in zip(records, presets, strict=True):
        optimizer = str(record.settings.get("train.optimizer", "adam"))
        name = "-".join(word for word in (preset, optimizer) if word not in (most, "adam"))
        split[name].append(record)
    return dict(split)


def group_by_dataset(records: Sequence[Record], by: Sequence[str]) -> dict[str, Groups]:
    """Return the groups of each data set: data set → setting → records.

    Raises:
        ValueError: as in `group`.
    """
    datasets: dict[str, Groups] = defaultdict(dict)
    for (dataset, *setting), members in group(records, [DATASET, *by]).items():
        datasets[str(dataset)][tuple(setting)] = members
    return dict(datasets)


def single_dataset(records: Sequence[Record], by: Sequence[str]) -> tuple[str, Groups]:
    """Return the data set that all records share, and its groups.

    Raises:
        ValueError: as in `group`, or the records are of several data sets.
    """
    datasets = group_by_dataset(records, by)
    if len(datasets) > 1:
        raise ValueError(f"one figure shows one data set; these are of {', '.join(datasets)}")
    return next(iter(datasets.items()))


def distinct_settings(datasets: dict[str, Groups]) -> list[Setting]:
    """Return the settings of all data sets."""
    return list(dict.fromkeys(setting for groups in datasets.values() for setting in groups))


def best_settings(
    records: Sequence[Record], by: Sequence[str], most: int, keep: Setting | None = None
) -> tuple[list[Record], str]:
    """Return the runs of the settings that a figure can show, and what its caption says of the others; "" of none.

    They are the `most` settings of least validation error, the mean over all of their runs; the test error must not
    choose. Settings without any come last. The setting `keep` is among them.
    """
    settings: dict[Setting, list[Record]] = defaultdict(list)
    for record in records:
        settings[tuple(_hashable(record.settings.get(path)) for path in by)].append(record)
    if len(settings) <= most:
        return list(records), ""

    def error(setting: Setting) -> float:
        values = [record.result.get("validation_error", math.nan) for record in settings[setting]]
        return math.inf if np.isnan(mean := mean_interval(values).mean) else mean

    best = sorted(settings, key=lambda setting: (setting != keep, error(setting)))[:most]
    shown = {id(record) for setting in best for record in settings[setting]}
    rule = "the first ones" if all(map(math.isinf, map(error, best))) else "those of least validation error"
    told = f"{most} of {len(settings)} settings are drawn, {rule}"
    return [record for record in records if id(record) in shown], told


def results(records: Sequence[Record], name: str) -> np.ndarray:
    """Return `result[name]` of each record, float[records]; nan where a record lacks it.

    Raises:
        ValueError: no record has it.
    """
    if records and not any(name in record.result for record in records):
        names = sorted({key for record in records for key in record.result})
        raise ValueError(f"no record has the result {name!r}; there are: {', '.join(names) or 'none'}")
    return each_result(records, name)


def each_result(records: Sequence[Record], name: str) -> np.ndarray:
    """Return `result[name]` of each record, float[records]; nan where a record lacks it."""
    return np.array([record.result.get(name, math.nan) for record in records], np.float64)


def mean_curve(records: Sequence[Record], metric: str, level: float = 0.95) -> Curve:
    """Return the mean and interval of `metric` at every epoch that some record reached.

    Raises:
        ValueError: no record has the metric, or its length is not that of the epochs.
    """
    values: dict[int, list[float]] = defaultdict(list)
    for record in records:
        if metric in record.metrics:
            series = np.asarray(record.metrics[metric], np.float64)
            epochs = np.asarray(record.metrics.get("epoch", np.arange(1, series.size + 1)), int)
            if series.shape != epochs.shape:
                raise ValueError(f"seed {record.seed}: {series.size} values of {metric} for {epochs.size} epochs")
            for epoch, value in zip(epochs.tolist(), series.tolist(), strict=True):
                values[epoch].append(value)
    if not values:
        names = sorted({name for record in records for name in record.metrics})
        raise ValueError(f"no record has the metric {metric!r}; there are: {', '.join(names) or 'none'}")
    epochs_reached = sorted(values)
    return summarize(epochs_reached, [values[epoch] for epoch in epochs_reached], level)


def summarize(x: Sequence[float] | np.ndarray, samples: Iterable[Sequence[float] | np.ndarray], level: float) -> Curve:
    """Return mean and interval at each x, from samples[points, seeds]; the number of seeds may differ."""
    estimates = [mean_interval(values, level) for values in samples]
    mean = np.array([estimate.mean for estimate in estimates])
    return Curve(np.asarray(x), mean, np.array([estimate.half_width for estimate in estimates]))


def interval_reach(
    mean: float | np.ndarray, half_width: float | np.ndarray, limits: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return how far an interval reaches below and above its mean, cut off at the limits of what is possible.

    Where there is no interval (`half_width` is nan), both are nan.
    """
    low, high = np.clip(mean - half_width, *limits), np.clip(mean + half_width, *limits)
    return np.maximum(mean - low, 0), np.maximum(high - mean, 0)


def recorded_iterations(records: Sequence[Record], metric: str) -> list[int]:
    """Return the iterations t for which all records have the metric, {} in its name standing for t."""
    counts = range(1, MOST_ITERATIONS + 1) if "{}" in metric else ()
    return [t for t in counts if all(metric.format(t) in record.metrics for record in records)]


def _hashable(value: object) -> object:
    if isinstance(value, list | tuple):
        return tuple(_hashable(item) for item in value)
    return str(value) if isinstance(value, dict) else value  # this version has none, another may


def _ranks(column: Sequence[object]) -> dict[object, int]:
    distinct = list(dict.fromkeys(column))
    numbers = [value for value in distinct if isinstance(value, int | float)]
    ordered = sorted(numbers) if len(numbers) == len(distinct) else distinct
    return {value: rank for rank, value in enumerate(ordered)}


def _check_alike(members: Sequence[Record]) -> None:
    """Raise ValueError where members are not the seeds of one setting in each data set."""
    for runs in by_dataset(members).values():
        if mixed := varying_paths(runs):
            raise ValueError(f"one group mixes runs that differ in {', '.join(mixed)}, and counts them as seeds")
        seeds = [record.seed for record in runs]
        if twice := {seed for seed in seeds if seeds.count(seed) > 1}:
            raise ValueError(f"seed {min(twice)} comes twice in one group: one run was given twice")
