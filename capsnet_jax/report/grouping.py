"""Runs grouped by their setting, and the columns that tell settings apart in a table."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from capsnet_jax.sweeps.records import Record, format_setting
from capsnet_jax.sweeps.varying import varying_paths

# Runs that are equal in these have the same images.
DATA = ("data.dataset", "data.label", "data.transform", "data.train_size")
HEADINGS = {"data.dataset": "dataset", "train.epochs": "epochs"}


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
    """One setting and its runs.

    Attributes:
        values: {path: value as text} of every path that tells settings apart, without those that it lacks.
        runs: {seed: run}.
    """

    values: dict[str, str]
    runs: dict[int, Record]

    @property
    def everything(self) -> dict[str, Any]:
        """All of its settings, as {path: value}."""
        return next(iter(self.runs.values())).settings

    def cells(self, paths: Sequence[str]) -> list[str]:
        """Return its values for a table; empty where it has no such path."""
        return [self.values.get(path, "") for path in paths]

    def results(self, name: str) -> list[float]:
        """Return a result of each run; nan where it is not known."""
        return [run.result.get(name, float("nan")) for run in self.runs.values()]


def group(records: Sequence[Record], swept: Sequence[str]) -> list[Setting]:
    """Group runs by their setting, in their order. A seed counts once."""
    paths = _paths(records, swept)
    settings: dict[tuple[str | None, ...], Setting] = {}
    for record in records:
        values = {path: format_setting(record, path) for path in paths if path in record.settings}
        key = tuple(values.get(path) for path in paths)
        settings.setdefault(key, Setting(values, {})).runs.setdefault(record.seed, record)
    return list(settings.values())


def by_data(settings: Sequence[Setting]) -> list[list[Setting]]:
    """Group settings by the images that they are trained on."""
    groups: dict[tuple[Any, ...], list[Setting]] = {}
    for setting in settings:
        groups.setdefault(tuple(setting.everything.get(path) for path in DATA), []).append(setting)
    return list(groups.values())


def shown_paths(records: Sequence[Record], swept: Sequence[str]) -> list[str]:
    """Return the paths that are columns of a table.

    They are those that tell settings apart. With several presets, what varies between presets alone is left out: the
    preset's name says it.
    """
    paths = _paths(records, swept)
    presets = dict.fromkeys(record.settings.get("preset") for record in records)
    if len(presets) < 2:
        return paths
    shown = {"data.dataset", "preset", "train.epochs", *swept}
    for preset in presets:
        shown.update(varying_paths([record for record in records if record.settings.get("preset") == preset]))
    return [path for path in paths if path in shown]


def headings(paths: Sequence[str]) -> list[str]:
    """Return what the paths' columns are called."""
    return [HEADINGS.get(path, path) for path in paths]


def _paths(records: Sequence[Record], swept: Sequence[str]) -> list[str]:
    """Return the paths that tell settings apart, the data set first."""
    present = {path for record in records for path in record.settings}
    return [path for path in ["data.dataset", *varying_paths(records, ["train.epochs", *swept])] if path in present]
