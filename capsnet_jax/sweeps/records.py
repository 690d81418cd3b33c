"""What is known of every run: one line of `runs.jsonl` each, and which runs an experiment asked for.

workdir/
  runs.jsonl                a line for every finished run: settings, seed, command, environment, code, result, metrics
  experiments.jsonl         a line for every start of an experiment: the runs that it asked for, and what it swept
  programs.jsonl            a line for every group of runs that began to be trained together
  <experiment>.csv          a row for every finished run
  figures/                  pictures drawn from the records
  runs/<name>/              params.safetensors, observations as .npz, TensorBoard's event files
  programs/<key>/           lock and checkpoints of runs that are being trained

All three .jsonl files are append-only, so several processes may work in one workdir. Each line has a checksum. A line
that is damaged, or of another version, is left out with a warning; the same command trains its run again.
"""

import base64
import dataclasses
import functools
import hashlib
import importlib.metadata
import itertools
import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from capsnet_jax import __version__
from capsnet_jax.config import Config
from capsnet_jax.data import slug
from capsnet_jax.overrides import all_paths, identity
from capsnet_jax.sweeps.files import append_lines, read_lines, set_damaged_aside, warn_once

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets")


@dataclasses.dataclass(frozen=True)
class Run:
    """One config and one seed: the least that can be trained."""

    config: Config
    seed: int

    @property
    def name(self) -> str:
        """A folder's name, readable and unique to this config and seed."""
        settings = identity(self.config)
        key = hashlib.sha256(json.dumps([settings, self.seed], sort_keys=True).encode()).hexdigest()[:10]
        routing = self.config.routing
        router = [] if routing is None else [f"{routing.name}{getattr(routing.settings, 'iterations', '')}"]
        return "-".join([slug(self.config.data.dataset), self.config.model.name, *router, f"seed{self.seed}", key])


@dataclasses.dataclass(frozen=True)
class Record:
    """One finished run.

    Attributes:
        name: of the run.
        settings: {path: value} of what its model, router and loss have.
        seed: of the run.
        metrics: float[epochs] each: "epoch", "images_per_second" and "train_…" and "validation_…" of "loss",
          "classification_loss", "reconstruction_mse", "error" (percent) and whatever was observed.
        result: the last epoch's metrics, the test set's ("test_error" in percent), "parameters",
          "images_per_second" (median over epochs), and "diverged_step" (-1 if all was well).
        workdir: the workdir that it is in.
        command: what to type to train this run alone.
        environment: versions, git revision, device.
        code: {source file: digest}; {} in records from elsewhere.
        observed: what was observed beside errors, as {setting of `eval`: value}.
        recorded: when it was finished, in ISO 8601, UTC; "" where that is not known.
        wrong: which test images it classifies wrong, bool[images]; None where that is not known.
    """

    name: str
    settings: dict[str, Any]
    seed: int
    metrics: dict[str, np.ndarray]
    result: dict[str, float]
    workdir: Path
    command: str = ""
    environment: dict[str, Any] = dataclasses.field(default_factory=dict)
    code: dict[str, str] = dataclasses.field(default_factory=dict)
    observed: dict[str, Any] = dataclasses.field(default_factory=dict)
    recorded: str = ""
    wrong: np.ndarray | None = None

    @property
    def folder(self) -> Path:
        """Where parameters and observations are."""
        return run_folder(self.workdir, self.name)

    @property
    def diverged(self) -> bool:
        """Whether its loss was no longer finite."""
        return self.result["diverged_step"] >= 0

    @property
    def revision(self) -> str:
        """The git revision of the code that made it, short; "unknown" where there was none."""
        revision = str(self.environment.get("git_revision") or "unknown")[:7]
        changes = self.environment.get("git_changes", False)
        if revision == "unknown" or changes is False:
            return revision
        return f"{revision} with changes" if changes else f"{revision}, changes unknown"


def run_folder(workdir: Path, name: str) -> Path:
    """Return the folder of a run."""
    return workdir / "runs" / name


def params_path(workdir: Path, name: str) -> Path:
    """Return the file of a run's parameters."""
    return run_folder(workdir, name) / "params.safetensors"


def append(records: Iterable[Record], workdir: Path) -> None:
    """Append finished runs to `runs.jsonl`, all of them or none."""
    append_lines(workdir / "runs.jsonl", [_to_line(record) for record in records])


def load_all(workdir: Path) -> dict[str, Record]:
    """Return every finished run by name. A run that was trained anew counts as it was the last time."""
    path = workdir / "runs.jsonl"
    read = [from_line(line, workdir) for line in read_lines(path)]
    if foreign := read.count(None):
        warn_once(f"{path}: {foreign} of {len(read)} runs are of another version of capsnet_jax and left out")
    finished = {record.name: record for record in read if record is not None}
    if unknown := sorted({path for record in finished.values() for path in record.settings} - {*all_paths()}):
        warn_once(f"{path}: runs with settings that this version does not have: {', '.join(unknown)}")
    return finished


def set_damaged_records_aside(workdir: Path) -> None:
    """Move damaged lines out of a workdir's files, each to a file `<name>.damaged`."""
    for path in workdir.glob("*.jsonl"):
        set_damaged_aside(path)


def note_experiment(workdir: Path, experiment: str, runs: Iterable[Run], swept: Iterable[str]) -> None:
    """Note in the workdir which runs an experiment asks for, and the paths that it sweeps with them."""
    line = {"experiment": experiment, "swept": list(swept), "runs": [run.name for run in runs]}
    if line not in read_lines(workdir / "experiments.jsonl"):
        append_lines(workdir / "experiments.jsonl", [line])


def load(workdir: Path, experiment: str) -> tuple[list[Record], list[str]]:
    """Return an experiment's finished runs, in the order they were asked for, and the paths swept with them."""
    lines = [line for line in _noted(workdir) if line["experiment"] == experiment]
    finished = load_all(workdir)
    names = dict.fromkeys(name for line in lines for name in line["runs"] if name in finished)
    with_results = [line for line in lines if any(name in finished for name in line["runs"])]
    swept = dict.fromkeys(itertools.chain(*(line["swept"] for line in with_results)))
    return [finished[name] for name in names], list(swept)


def experiments_in(workdir: Path) -> list[str]:
    """Return the experiments that a workdir holds runs of."""
    return list(dict.fromkeys(line["experiment"] for line in _noted(workdir)))


def register_group(workdir: Path, program: str, names: Sequence[str]) -> None:
    """Note that runs of one program begin to be trained together."""
    line = {"program": program, "runs": list(names), "pid": os.getpid(), "host": platform.node()}
    append_lines(workdir / "programs.jsonl", [line])


def registered_groups(workdir: Path, program: str) -> list[tuple[str, ...]]:
    """Return the groups of runs of a program that ever began, the newest last."""
    lines = [line for line in read_lines(workdir / "programs.jsonl") if line.get("program") == program]
    return list(dict.fromkeys(tuple(line["runs"]) for line in lines))


def _noted(workdir: Path) -> list[dict[str, Any]]:
    """Return what `note_experiment` noted."""
    lines = read_lines(workdir / "experiments.jsonl")
    return [line for line in lines if {"experiment", "swept", "runs"} <= line.keys()]


def by_dataset(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Group the records by data set, in their order."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.settings["data.dataset"], []).append(record)
    return groups


def format_setting(record: Record, path: str) -> str:
    """Return a setting's value as text for a table; "" where the record has no such setting."""
    value = record.settings.get(path, "")
    return "x".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


@functools.cache
def environment() -> dict[str, Any]:
    """Return what besides config and seed a result may depend on."""
    return {
        "python": platform.python_version(),
        "capsnet_jax": __version__,
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        **_revision(),
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "cores": os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}",
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def to_columns(rows: Sequence[dict[str, float]]) -> dict[str, np.ndarray]:
    """Turn a row of metrics an epoch into an array a metric."""
    names = dict.fromkeys(name for row in rows for name in row)  # what is observed may change when a run goes on
    return {name: np.array([row.get(name, np.nan) for row in rows], float) for name in names}


def _to_line(record: Record) -> dict[str, Any]:
    line = {
        "name": record.name,
        "settings": record.settings,
        "seed": record.seed,
        "command": record.command,
        "environment": record.environment,
        "code": record.code,
        "observed": record.observed,
        "recorded": record.recorded,
        "result": record.result,
        "metrics": {name: values.tolist() for name, values in record.metrics.items()},
    }
    if record.wrong is not None:
        packed = base64.b64encode(np.packbits(record.wrong).tobytes()).decode()
        line["wrong"] = {"images": len(record.wrong), "bits": packed}
    return line


def from_line(line: dict[str, Any], workdir: Path) -> Record | None:
    """Return a line's record; None where it is no record of this version, or its name is none of a folder."""
    try:
        wrong = line.get("wrong")
        if wrong is not None:
            bits = np.frombuffer(base64.b64decode(wrong["bits"]), np.uint8)
            wrong = np.unpackbits(bits, count=wrong["images"]).astype(bool)
        record = Record(
            name=line["name"],
            settings=dict(line["settings"]),
            seed=int(line["seed"]),
            metrics={name: np.array([_number(v) for v in values]) for name, values in line["metrics"].items()},
            result={name: _number(value) for name, value in line["result"].items()},
            workdir=workdir,
            command=line["command"],
            environment=dict(line["environment"]),
            code=dict(line["code"]),
            observed=dict(line["observed"]),
            recorded=line.get("recorded", ""),
            wrong=wrong,
        )
        known = {"data.dataset", "preset", "model.name"} <= record.settings.keys() and "diverged_step" in record.result
        return record if known and _is_folder_name(record.name) else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _is_folder_name(name: str) -> bool:
    """Whether a folder of this name lies where it should, and not elsewhere as that of `../name` would."""
    return re.fullmatch(r"\w[\w.+-]*", name) is not None


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _revision() -> dict[str, Any]:
    """Return the git revision of this source, and whether there are changes; None each where that is not known."""
    root = Path(__file__).parents[2]
    toplevel = _git(root, "rev-parse", "--show-toplevel")
    if toplevel is None or Path(toplevel).resolve() != root:  # installed inside a checkout of something else
        return {"git_revision": None, "git_changes": None}
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"git_revision": _git(root, "rev-parse", "HEAD"), "git_changes": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    """Ask git about the checkout that a folder is in, whatever GIT_DIR says; None where it fails."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
