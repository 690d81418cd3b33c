"""What was measured: rows, kept a group at a time in WORKDIR/EXPERIMENT.jsonl, and as a table."""

from __future__ import annotations

import csv
import io
import json
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """One measured number.

    Attributes:
        subject: who was measured; a key of `workload.SUBJECTS`.
        preset: that its settings started from.
        quantity: "training" or "inference" (images/s), "training_memory" or "inference_memory" (MB, peak),
            "compile_cold" or "compile_warm" (s), "fit_together" or "fit_alone" (s, all seeds).
        batch: images a step and run.
        iterations: of routing.
        classes: of the images.
        side: of the images, pixels.
        runs: side by side.
        across: how they share a program.
        round: from 0.
        value: the number.
        unit: its unit.
        group: what it was measured with, in turns.
        case: the settings that the command gave, in words.
        model: the network; empty in rows that were written before this was noted.
    """

    subject: str
    preset: str
    quantity: str
    batch: int
    iterations: int
    classes: int
    side: int
    runs: int
    across: str
    round: int
    value: float
    unit: str
    group: str
    case: str
    model: str = ""


class Ledger:
    """The finished groups of a workdir."""

    def __init__(self, workdir: Path, experiment: str = "throughput"):
        self._path = workdir / f"{experiment}.jsonl"

    def finished(self, case: str, group: str, asked: str) -> bool:
        """Whether a group was measured as it is asked for now."""
        return self._groups().get((case, group), {}).get("asked") == asked

    def add(self, case: str, group: str, asked: str, rows: Sequence[Row]) -> None:
        """Keep a finished group; it replaces one of the same name."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"case": case, "group": group, "asked": asked, "rows": rows})
        torn = self._path.exists() and not self._path.read_bytes().endswith(b"\n")
        with self._path.open("a") as file:
            file.write("\n" * torn + line + "\n")

    def rows(self) -> list[Row]:
        """All rows of all finished groups."""
        return [Row(*row) for group in self._groups().values() for row in group["rows"]]

    def _groups(self) -> dict[tuple[str, str], dict]:
        found = {}
        for line in self._path.read_text().splitlines() if self._path.exists() else []:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # cut short by a power cut: that group is measured again
                continue
            found[entry["case"], entry["group"]] = entry
        return found


def to_csv(rows: Iterable[Row]) -> str:
    """A tidy table, one row a number."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(Row._fields)
    table.writerows([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    return text.getvalue()


def from_csv(text: str) -> list[Row]:
    """The rows that `to_csv` wrote."""
    kinds = typing.get_type_hints(Row)
    table = csv.DictReader(io.StringIO(text))
    return [Row(**{name: kinds[name](cell) for name, cell in row.items()}) for row in table]
