"""A run's folder: what was asked, where it ran, every epoch's metrics, the result; and the way back to tables.

workdir/
  <experiment>.json         which cells an experiment asked for, and what it swept
  <experiment>.csv          a row for every finished cell
  figures/                  pictures drawn from the records
  cells/<name>/             one cell: one setting, one seed
    record.json             config, seed, and the command that runs this cell alone
    environment.json        versions, git revision, device
    metrics.jsonl           a line an epoch; TensorBoard event files beside it hold the same
    result.json             written last: a cell that has it is finished
    params/                 the trained parameters
  programs/<key>/           checkpoints of cells that are being trained together
"""

import csv
import dataclasses
import hashlib
import importlib.metadata
import io
import itertools
import json
import math
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tensorboardX import SummaryWriter

from capsnet_jax import __version__
from capsnet_jax import config as configs
from capsnet_jax.config import Config

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One setting and one seed: the least that can be run."""

    config: Config
    seed: int

    @property
    def name(self) -> str:
        """A folder's name, readable and unique to this config and seed."""
        flat, usual = configs.flatten(self.config), configs.flatten(Config())
        # What is as usual does not count, so that a setting that is added later renames no cell.
        own = {path: value for path, value in flat.items() if value != usual[path]}
        key = json.dumps([own, self.seed], sort_keys=True).encode()
        dataset = flat["data.dataset"].replace("/", "_").replace(":", "_")
        routing = f"{flat['routing.name']}{flat['routing.iterations']}"
        digest = hashlib.sha256(key).hexdigest()[:10]
        return f"{dataset}-{flat['model.name']}-{routing}-seed{self.seed}-{digest}"


@dataclasses.dataclass(frozen=True)
class Record:
    """One finished cell.

    Attributes:
        settings: the flattened config, {path: value}.
        seed: of the run.
        metrics: float[epochs] each: "epoch", "images_per_second" and "train_…" and "validation_…" of "loss",
            "classification_loss", "reconstruction_mse" and "error" (percent), and with more than ten classes
            "validation_top5_error".
        result: the last epoch's metrics, the test set's ("test_error" in percent), "parameters",
            "images_per_second" (median over epochs), and "diverged_step" (-1 if all was well).
        folder: where it lies.
    """

    settings: dict[str, Any]
    seed: int
    metrics: dict[str, np.ndarray]
    result: dict[str, float]
    folder: Path


class CellWriter:
    """Writes one cell's folder while it trains."""

    def __init__(self, folder: Path, cell: Cell, command: str, history: Sequence[dict[str, Any]]):
        """Start the folder, or bring its metric files to exactly `history` after an interruption."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        record = {"config": configs.flatten(cell.config), "seed": cell.seed, "command": command}
        write_json(folder / "record.json", record)
        write_json(folder / "environment.json", environment())
        for stale in folder.glob("events.out.tfevents.*"):
            stale.unlink()
        write_text(folder / "metrics.jsonl", "")
        self._events = SummaryWriter(str(folder), write_to_disk=True)
        for row in history:
            self.epoch(row)

    def epoch(self, row: dict[str, Any]) -> None:
        """Append one epoch's metrics."""
        with (self._folder / "metrics.jsonl").open("a") as file:
            file.write(_json(row) + "\n")
        for name, value in row.items():
            if name != "epoch" and math.isfinite(value):
                self._events.add_scalar(name.replace("_", "/", 1), value, row["epoch"])
        self._events.flush()

    def close(self) -> None:
        """Close the event file."""
        self._events.close()


def finished(workdir: Path, cell: Cell) -> bool:
    """Whether the cell need not be run again."""
    return (workdir / "cells" / cell.name / "result.json").exists()


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Give a cell its result, which makes it a finished one."""
    write_json(folder / "result.json", result)


def note_experiment(workdir: Path, experiment: str, cells: Iterable[Cell], swept: Iterable[str]) -> None:
    """Note in the workdir which cells an experiment asks for, and the paths that it sweeps with them."""
    known, swept = _read_experiment(workdir, experiment), list(swept)
    asked = {cell.name: list(dict.fromkeys([*known.get(cell.name, []), *swept])) for cell in cells}
    write_json(workdir / f"{experiment}.json", known | asked)


def load(workdir: Path, experiment: str) -> tuple[list[Record], list[str]]:
    """The finished cells of an experiment, in the order they were asked for, and the paths swept with them."""
    found = {
        workdir / "cells" / name: swept
        for name, swept in _read_experiment(workdir, experiment).items()
        if (workdir / "cells" / name / "result.json").exists()
    }
    return [load_cell(folder) for folder in found], list(dict.fromkeys(itertools.chain(*found.values())))


def load_all(workdir: Path) -> list[Record]:
    """Every finished cell of a workdir."""
    return [load_cell(path.parent) for path in sorted(workdir.glob("cells/*/result.json"))]


def load_cell(folder: Path) -> Record:
    """One finished cell."""
    record = json.loads((folder / "record.json").read_text())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    names = rows[0] if rows else {}
    metrics = {name: np.array([_number(row[name]) for row in rows]) for name in names}
    result = {name: _number(value) for name, value in json.loads((folder / "result.json").read_text()).items()}
    settings = configs.flatten(Config()) | record["config"]  # settings that are younger than the record were as usual
    return Record(settings, record["seed"], metrics, result, folder)


def differing(records: Sequence[Record], always: Sequence[str] = ()) -> list[str]:
    """The paths that tell the records' settings apart, data sets aside: `always` and whatever differs."""
    paths = records[0].settings if records else {}
    found = [p for p in paths if any(r.settings[p] != records[0].settings[p] for r in records)]
    return [path for path in dict.fromkeys([*always, *found]) if path != "data.dataset"]


def by_dataset(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The records of each data set, in their order."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.settings["data.dataset"], []).append(record)
    return found


def compared(records: Sequence[Record], always: Sequence[str] = ()) -> list[str]:
    """As `differing`, without what differs between data sets alone, as their augmentation may."""
    found = {path for members in by_dataset(records).values() for path in differing(members)}
    return [path for path in differing(records, always) if path in found or path in always]


def write_csv(path: Path, records: Sequence[Record], swept: Sequence[str]) -> None:
    """A tidy table: one row for every setting and seed."""
    results = list(dict.fromkeys(name for record in records for name in record.result))
    results = ["test_error", *(name for name in results if name != "test_error")]
    settings = [path for path in differing(records, swept) if path not in ("preset", "train.epochs")]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["dataset", "preset", "seed", "epochs", *settings, *results])
    for record in records:
        s = record.settings
        fixed = [s["data.dataset"], s["preset"], record.seed, s["train.epochs"]]
        values = [cell_text(s[path]) for path in settings]
        table.writerow([*fixed, *values, *(_decimal(record.result.get(name, math.nan)) for name in results)])
    write_text(path, text.getvalue())


def environment() -> dict[str, Any]:
    """What besides config and seed a result may depend on."""
    return {
        "python": platform.python_version(),
        "capsnet_jax": __version__,
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "git_revision": _git("rev-parse", "HEAD"),
        "git_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "cores": os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a part."""
    write_text(path, _json(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text so that a reader sees the old file or the new one, never a part."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    os.replace(part, path)


def _read_experiment(workdir: Path, experiment: str) -> dict[str, list[str]]:
    """Cell → the paths that were swept when it was asked for."""
    path = workdir / f"{experiment}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _git(*arguments: str) -> str | None:
    """What git says of the source's checkout; None where there is no git or no checkout."""
    try:
        source = Path(__file__).parent
        done = subprocess.run(["git", "-C", source, *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _json(value: Any, indent: int | None = None) -> str:
    """JSON as its standard has it: null stands for NaN and the infinities."""

    def strict(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: strict(inner) for name, inner in part.items()}
        if isinstance(part, list):
            return [strict(inner) for inner in part]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    return json.dumps(strict(value), indent=indent, allow_nan=False)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _decimal(value: float) -> str:
    """Six digits, but whole numbers, such as those of parameters, in full."""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.6g}"


def cell_text(value: Any) -> str:
    """A setting's value in a table's cell."""
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)
