"""Records sorted into the groups that a figure compares, and the mean curve of a group."""

from __future__ import annotations

import dataclasses
import difflib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from capsnet_jax.statistics import mean_interval

Setting = tuple[object, ...]


class Record(Protocol):
    """One finished cell, one setting and one seed, as far as a figure reads it."""

    @property
    def settings(self) -> Mapping[str, object]:
        """The flattened configuration, path to value."""

    @property
    def seed(self) -> int:
        """The seed of this run."""

    @property
    def metrics(self) -> Mapping[str, np.ndarray]:
        """One value an epoch under each name; `epoch` counts from 1."""

    @property
    def result(self) -> Mapping[str, float]:
        """What was measured once, at the end."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """The mean of a metric over seeds, float[epochs] each; `half_width` is nan where there are not two."""

    epochs: np.ndarray
    mean: np.ndarray
    half_width: np.ndarray


def group(records: Sequence[Record], by: Sequence[str]) -> dict[Setting, list[Record]]:
    """Sorts records by the values they have at the paths `by`.

    A path that only some records have gives None for the others. Numbers are put in order, other values stay
    in the order in which they first come.

    Returns:
        For each setting its records, no two of one seed.

    Raises:
        ValueError: there are no records, no record has a path, or a group holds a seed twice: it then mixes
            settings, and its interval would count them as seeds.
    """
    if not records:
        raise ValueError("no records to draw")
    for path in by:
        _check_path(records, path)
    groups: dict[Setting, list[Record]] = defaultdict(list)
    for record in records:
        groups[tuple(_hashable(record.settings.get(path)) for path in by)].append(record)
    for members in groups.values():
        _check_seeds(members)
    columns = [_ranks(column) for column in zip(*groups, strict=True)]
    order = sorted(groups, key=lambda key: [rank[value] for rank, value in zip(columns, key, strict=True)])
    return {key: groups[key] for key in order}


def by_dataset(records: Sequence[Record], by: Sequence[str]) -> dict[object, dict[Setting, list[Record]]]:
    """Returns the groups of each data set: data set → values at the paths `by` → records.

    Raises:
        ValueError: as in `group`.
    """
    datasets: dict[object, dict[Setting, list[Record]]] = defaultdict(dict)
    for (dataset, *setting), members in group(records, ["data.dataset", *by]).items():
        datasets[dataset][tuple(setting)] = members
    return dict(datasets)


def one_dataset(records: Sequence[Record], by: Sequence[str]) -> tuple[object, dict[Setting, list[Record]]]:
    """Returns the data set that all records share, and its groups as in `by_dataset`.

    Raises:
        ValueError: as in `group`, or the records are of several data sets.
    """
    datasets = by_dataset(records, by)
    if len(datasets) > 1:
        raise ValueError(f"one figure shows one data set; these are of {', '.join(map(str, datasets))}")
    return next(iter(datasets.items()))


def mean_curve(records: Sequence[Record], metric: str, level: float = 0.95) -> Curve:
    """Returns the mean and interval of `metric` at every epoch that some record reached.

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
    order = sorted(values)
    estimates = [mean_interval(values[epoch], level) for epoch in order]
    mean = np.array([estimate.mean for estimate in estimates])
    return Curve(np.array(order), mean, np.array([estimate.half_width for estimate in estimates]))


def results(records: Sequence[Record], name: str) -> np.ndarray:
    """Returns `result[name]` of each record, float[records]; nan where a record lacks it.

    Raises:
        ValueError: no record has it.
    """
    if not any(name in record.result for record in records):
        names = sorted({key for record in records for key in record.result})
        raise ValueError(f"no record has the result {name!r}; there are: {', '.join(names) or 'none'}")
    return np.array([record.result.get(name, np.nan) for record in records], np.float64)


def _hashable(value: object) -> object:
    return tuple(_hashable(item) for item in value) if isinstance(value, list | tuple) else value


def _ranks(column: Sequence[object]) -> dict[object, int]:
    distinct = list(dict.fromkeys(column))
    numbers = [value for value in distinct if isinstance(value, int | float)]
    ordered = sorted(numbers) if len(numbers) == len(distinct) else distinct
    return {value: rank for rank, value in enumerate(ordered)}


def _check_path(records: Sequence[Record], path: str) -> None:
    paths = {known for record in records for known in record.settings}
    if path not in paths:
        near = difflib.get_close_matches(path, sorted(paths), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no record has the setting {path!r}{hint}")


def _check_seeds(members: Sequence[Record]) -> None:
    first: dict[int, Record] = {}
    for record in members:
        other = first.setdefault(record.seed, record)
        if other is not record:
            paths = sorted({*record.settings, *other.settings})
            mixed = [path for path in paths if record.settings.get(path) != other.settings.get(path)]
            why = f"the runs differ in {', '.join(mixed)}" if mixed else "one run was given twice"
            raise ValueError(f"seed {record.seed} comes twice in one group: {why}")
