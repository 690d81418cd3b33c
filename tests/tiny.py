"""Real commands at a size that trains in a moment: what the end-to-end tests run and read back."""

import dataclasses
import functools
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from filelock import FileLock
from tensorboardX.proto.event_pb2 import Event

import launch
from capsnet_jax import models, overrides
from capsnet_jax.overrides import format_value
from capsnet_jax.sweeps import checkpoint, records
from experiments import cli

ROOT = Path(__file__).parents[1]
SETTINGS = {
    "data.train_size": 256,
    "model.channels": 4,
    "model.capsule_types": 1,
    "model.primary_dim": 4,
    "model.class_dim": 4,
    "model.decoder": (8,),
    "eval.max_routing_iterations": 2,
    "train.epochs": 3,
    "train.batch_size": 32,
    "train.learning_rate": 0.01,
}
STEPS = 24
OF_THE_MACHINE = ("images_per_second", "memory_mb")  # results that two equal runs need not share
SIZES = [f"--set={path}={format_value(value)}" for path, value in SETTINGS.items()]
STUDY = [*SIZES, "--sweep=routing.iterations=1,2", "--seeds=2"]
FIRST = [*SIZES, "--set=routing.iterations=1", "--seeds=2"]  # the study's first program

# Runs launch.py so that the n-th call of some function first sends the process a signal; every chunk is saved.
FAULTY = """
import os, pkgutil, signal, sys
from absl import app
import launch
from capsnet_jax.sweeps import train

train.CHECKPOINT_SECONDS = -1.0
target, count, name = sys.argv.pop(1).split(":")
owner, attribute = target.rsplit(".", 1)
owner = pkgutil.resolve_name(owner)
original, calls = getattr(owner, attribute), 0


def faulty(*arguments, **keywords):
    global calls
    calls += 1
    if calls == int(count):
        os.kill(os.getpid(), getattr(signal, name))
    return original(*arguments, **keywords)


setattr(owner, attribute, faulty)
app.run(launch.main, flags_parser=launch.parse)
"""


def shared() -> Path:
    """The folder of all tests of a run, whichever process they are in."""
    return Path(os.environ["CAPSNET_JAX_TESTS"])


def environment() -> dict[str, str]:
    """With a cache of compiled programs: the first run of a kind compiles, those that repeat or continue it do not."""
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "fusion_emitters" not in flag]  # see conftest.py
    cache = {
        "XLA_FLAGS": " ".join(flags),
        "JAX_COMPILATION_CACHE_DIR": f"{shared()}/programs",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONIOENCODING": "utf-8"} | cache


def command_line(*arguments: object, fault: str = "") -> list[str]:
    start = ["-c", FAULTY, fault] if fault else ["launch.py"]
    return [sys.executable, *start, *map(str, arguments)]


def run(*arguments: object, fault: str = "") -> subprocess.CompletedProcess[str]:
    """`python launch.py ...`; `fault` is `function:call:SIGNAL` as in FAULTY."""
    line = command_line(*arguments, fault=fault)
    return subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300, check=False)


def succeed(*arguments: object) -> str:
    """Runs a command that must end well; returns what it printed."""
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def replace_work(monkeypatch: pytest.MonkeyPatch, work: Callable[[flags.FlagValues], None]) -> None:
    """Let commands do something else where they would train or measure."""
    monkeypatch.setattr(cli, "_train", work)
    monkeypatch.setattr(cli.study, "measure", work)


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """As `run` in this process, which is faster; returns the exit code, stdout and stderr."""
    capsys.readouterr()
    with flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        for flag in flags.FLAGS.flags_by_module_dict()["launch"]:
            flag.unparse()
        try:
            launch.parse(["launch.py", *map(str, arguments)])
            code = cli.main(flags.FLAGS)
        except SystemExit as leaving:
            code = leaving.code
    out, error = capsys.readouterr()
    return code, out, error


@dataclasses.dataclass(frozen=True)
class Study:
    """The study of all tests, run once and without interruption; not to be written to."""

    folder: Path
    printed: str


@functools.cache
def study() -> Study:
    folder, printed = shared() / "study", shared() / "study.txt"
    with FileLock(shared() / "study.lock"):
        if not printed.exists():
            printed.write_text(succeed(*STUDY, f"--workdir={folder}"))
    return Study(folder, printed.read_text())


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """What is recorded of a run; speeds, and what the clock draws, are left out, as no two runs share them."""

    params: dict[str, bytes]
    result: dict
    rows: list[dict]
    events: list[tuple[str, int, float]]
    settings: dict
    seed: int
    command: str


def runs(workdir: Path) -> dict[str, RunFiles]:
    """Every finished run of a workdir by its name."""
    lines = (workdir / "runs.jsonl").read_text().splitlines() if (workdir / "runs.jsonl").exists() else []
    return {line["name"]: _run_files(workdir, line) for line in map(json.loads, lines)}


def _run_files(workdir: Path, line: dict) -> RunFiles:
    def without_speed(row: dict) -> dict:
        return {name: value for name, value in row.items() if name not in OF_THE_MACHINE}

    folder = workdir / "runs" / line["name"]
    tree = params(workdir, line["name"]) if (folder / "params.safetensors").exists() else {}
    leaves = {jax.tree_util.keystr(k): np.asarray(v).tobytes() for k, v in jax.tree_util.tree_leaves_with_path(tree)}
    columns = line["metrics"]
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    # Points within epochs are drawn by the clock: a slow process has more of them.
    scalars = [event for event in events(folder) if not event[0].startswith(("images/per_second", "within_epochs/"))]
    return RunFiles(
        leaves,
        without_speed(line["result"]),
        [without_speed(row) for row in rows],
        scalars,
        line["settings"],
        line["seed"],
        line["command"],
    )


def params(workdir: Path, name: str) -> dict:
    """A finished run's parameters."""
    record = records.load_all(workdir)[name]
    like = _abstract(overrides.program_key(overrides.build(record.settings)))
    return checkpoint.load_params(record.folder / "params.safetensors", *like)[0]


@functools.cache
def _abstract(structure: str) -> tuple[dict, dict]:
    model = models.build(overrides.build(json.loads(structure)), 10)
    return jax.eval_shape(lambda: models.init(model, jax.random.key(0), (28, 28, 1)))


def events(folder: Path) -> list[tuple[str, int, float]]:
    """(tag, step, value) of every scalar in a folder's TensorBoard event files, in the order written."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:  # a record is: length, checksum of the length, event, checksum of the event
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            data = data[16 + length :]
    return found


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
