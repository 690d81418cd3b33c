"""The small sweep that all tests here disturb, how its commands are started, and how workdirs are compared."""

import atexit
import csv
import dataclasses
import functools
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image
from safetensors import numpy as safetensors

from tests import tiny

TRIALS = float(os.environ.get("CAPSNET_JAX_FAULTS", "1"))  # times as many as by default

SETTINGS = [
    "--set=data.train_size=64",
    "--set=model.channels=4",
    "--set=model.capsule_types=1",
    "--set=model.primary_dim=4",
    "--set=model.class_dim=4",
    "--set=loss.reconstruction=false",
    "--set=eval.max_routing_iterations=0",
    "--set=train.epochs=2",
    "--set=train.batch_size=32",
    "--set=train.learning_rate=0.01",
]
SWEEP = [*SETTINGS, "--sweep=routing.iterations=1,2", "--seeds=2"]  # two programs of two runs

# What a command may leave beside the files of an undisturbed one.
MAY_REMAIN = re.compile(r"(.*/)?(\.[^/]*\.lock|lock(\.pid)?)")


@dataclasses.dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


def trials(number: int) -> range:
    """Numbers of the trials of a test that has so many by default; each is the seed of what it draws."""
    return range(max(1, round(number * TRIALS)))


@functools.cache
def _server() -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "tests.faults.server"]
    environment = tiny.environment() | {"GLIBC_TUNABLES": "glibc.malloc.check=0", "PYTHONPATH": str(tiny.ROOT)}
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    server = subprocess.Popen(line, cwd=tiny.ROOT, env=environment, text=True, **pipes)
    atexit.register(server.kill)
    return server


def command(*arguments: object, **request: Any) -> Done:
    """Run a command of launch.py; `request` as `server.py` has it."""
    server, files = _server(), [tiny.shared() / f"{os.getpid()}.{name}" for name in ("out", "err")]
    request |= {"arguments": [*map(str, arguments)], "out": str(files[0]), "err": str(files[1])}
    assert server.stdin
    assert server.stdout
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    code = int(server.stdout.readline())
    out, err = (file.read_bytes().decode(errors="backslashreplace") for file in files)
    return Done(code, out, err)


def sweep(workdir: Path, *arguments: object, **request: Any) -> Done:
    """Run the sweep."""
    return command(*SWEEP, f"--workdir={workdir}", *arguments, **request)


def once(name: str, make: Any) -> Path:
    """Return a folder that is made once for all processes; not to be written to."""
    folder = tiny.shared() / "faults" / name
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            make(folder.with_suffix(".unfinished"))
            folder.with_suffix(".unfinished").rename(folder)
    return folder


@functools.cache
def finished() -> Path:
    """The workdir of a sweep that nothing disturbed."""

    def make(folder: Path) -> None:
        done = sweep(folder)
        assert (done.code, done.err) == (0, ""), done.err

    return once("finished", make)


def others(workdir: Path) -> dict[str, list[str]]:
    """The commands that train nothing, by name; they need a finished workdir."""
    picture = tiny.shared() / "faults" / "digit.png"
    if not picture.exists():
        Image.fromarray(np.pad(np.full((16, 4), 255, np.uint8), ((6, 6), (12, 12)))).save(picture)
    at = f"--workdir={workdir}"
    return {
        "figures": ["--figures_only", at],
        "report": ["--report", at],
        "predict": [f"--predict={picture}", at],
    }


@functools.cache
def calls(name: str = "sweep") -> list[str]:
    """What an undisturbed command calls in its workdir, as `replace runs/…/params.safetensors`, in order."""

    def make(folder: Path) -> None:
        folder.mkdir()
        work, log = folder / "work", folder / "log"
        fault = {"folder": str(work), "log": str(log)}
        if name == "sweep":
            assert sweep(work, fault=fault).code == 0
        else:
            assert command(*others(copied(finished(), work))[name], fault=fault).code == 0

    finished()
    return (once(f"calls-{name}", make) / "log").read_text().splitlines()


def moments(number: int, seed: int, lines: list[str] | None = None) -> list[int]:
    """Draw numbers of calls, of as many kinds of call and file as there are."""
    rng = random.Random(seed)
    kinds: dict[str, list[int]] = {}
    for position, line in enumerate(lines or calls(), 1):
        kind = re.sub(r"[0-9a-f]{10,}|tfevents.*|\d+-[0-9a-f]{8}|seed\d|dynamic\d|\d+", "*", line)
        kinds.setdefault(kind, []).append(position)
    for positions in kinds.values():
        rng.shuffle(positions)
    rounds = [[p for p in column if p] for column in itertools.zip_longest(*kinds.values())]
    for column in rounds:
        rng.shuffle(column)
    return list(itertools.chain(*rounds))[:number]


def copied(folder: Path, to: Path) -> Path:
    """Copy a workdir, with the times of its files."""
    return Path(shutil.copytree(folder, to, symlinks=True))


def records(workdir: Path) -> dict[str, tuple]:
    """Everything that is known of every run, speeds and circumstances left out; the last record of a name counts."""
    lines = [json.loads(line) for line in (workdir / "runs.jsonl").read_text().splitlines()]
    known = {}
    for line in lines:
        parts = [_without_speed(line[part]) for part in ("result", "metrics")]
        path = workdir / "runs" / line["name"] / "params.safetensors"
        arrays = {n: (str(a.dtype), a.shape, a.tobytes()) for n, a in safetensors.load_file(path).items()}
        known[line["name"]] = (line["settings"], line["seed"], *parts, line["wrong"], arrays)
    return known


def rows(workdir: Path, name: str = "routing_iterations") -> list[dict[str, str]]:
    """The table, without speeds."""
    with (workdir / f"{name}.csv").open() as file:
        return [_without_speed(row) for row in csv.DictReader(file)]


def files(workdir: Path) -> set[str]:
    """Names of all files, those left out that may remain; event files have the moment in their name."""
    paths = (path.relative_to(workdir).as_posix() for path in workdir.rglob("*") if not path.is_dir())
    return {re.sub(r"tfevents\..*", "tfevents", path) for path in paths if not MAY_REMAIN.fullmatch(path)}


def assert_same(workdir: Path, *, names: bool = True) -> None:
    """A workdir holds what an undisturbed sweep leaves, to the bit, and nothing else if `names` counts too."""
    assert records(workdir) == records(finished())
    assert rows(workdir) == rows(finished())
    if names:
        assert files(workdir) == files(finished())


def assert_goes_on(workdir: Path, *, names: bool = True) -> Done:
    """The same command, which nothing disturbs now, ends as if nothing ever had."""
    done = sweep(workdir)
    assert done.code == 0, done.err
    assert "Traceback" not in done.err, done.err
    assert_same(workdir, names=names)
    return done


def assert_clean(done: Done) -> None:
    """Nothing but lines that a person can read."""
    assert "Traceback" not in done.err, done.err
    assert "Exception" not in done.err, done.err
    assert all(len(line) < 1000 for line in done.err.splitlines()), done.err


def assert_told(done: Done, codes: tuple[int, ...] = (2, 3)) -> None:
    """A command ended with one line that a person can read."""
    assert_clean(done)
    assert done.code in codes, f"code {done.code}: {done.err}"
    assert len(done.err.splitlines()) == 1, done.err


def _without_speed(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in tiny.OF_THE_MACHINE}
