"""Measurements in WORKDIR/EXPERIMENT.jsonl: one JSON line each, appended; read as one data frame."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from capsnet_jax.sweeps.files import append_lines, read_lines

GROUP = ["machine", "case", "group"]  # what is measured in turns has these in common
# round: from 0. recorded: when its group was done. digest: of what was asked; empty if a subject failed.
# group_size: the measurements in its group.
COLUMNS = [
    *(*GROUP, "subject", "model", "preset", "quantity", "batch", "iterations", "classes", "side", "runs", "parallel"),
    *("devices", "round", "value", "unit", "revision", "versions", "recorded", "digest", "group_size"),
]


def append(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Append the measurements of a group."""
    append_lines(path, [row | {"group_size": len(rows)} for row in rows])


def load(path: Path) -> pd.DataFrame:
    """Return the measurements, each group as it was measured last; groups that were cut short are left out."""
    frame = pd.DataFrame(read_lines(path), columns=COLUMNS).fillna({"devices": 1, "revision": ""})  # of old ones
    frame = frame[frame.groupby([*GROUP, "recorded"])["value"].transform("size") == frame["group_size"]]
    return frame[frame.groupby(GROUP)["recorded"].transform("max") == frame["recorded"]].reset_index(drop=True)
