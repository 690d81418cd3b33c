"""Damaged files: the result is right, or a line names the file, and what that line says to do helps.

A number in a table never changes. `same` is the command that made the workdir; whatever ran first, it mends all in
the end, at the latest when what it complains of is removed.
"""

import itertools
import json
import random
import re
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from capsnet_jax.sweeps.files import append_lines
from tests.faults.work import (
    TRIALS,
    Done,
    assert_clean,
    assert_same,
    calls,
    command,
    copied,
    finished,
    once,
    others,
    rows,
    sweep,
)

pytestmark = pytest.mark.slow

RECORDS = ["runs.jsonl", "experiments.jsonl", "programs.jsonl"]
FINISHED = [
    *RECORDS,
    "runs/*/params.safetensors",
    "runs/*/events.out.tfevents.*",
    "routing_iterations.csv",
    "figures/*.png",
    "programs/*/lock",
    ".runs.jsonl.lock",
]
HALF = [*RECORDS, "programs/*/*/*.safetensors", "runs/*/events.out.tfevents.*"]


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def cut(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def byte(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes() or b"\n")
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def zeros(path: Path, rng: random.Random) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def a_folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def dangling(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


def missing(path: Path, rng: random.Random) -> None:
    path.unlink()


def digit(path: Path, rng: random.Random) -> None:
    """One digit of a test error."""
    text = path.read_text()
    found = rng.choice(list(re.finditer(r'"test_error": \d*(\d)', text)))
    place = found.start(1)
    path.write_text(f"{text[:place]}{(int(text[place]) + 1) % 10}{text[place + 1 :]}")


def line_twice(path: Path, rng: random.Random) -> None:
    lines = lines_of(path)
    path.write_bytes(b"".join([*lines, rng.choice(lines)]))


def line_away(path: Path, rng: random.Random) -> None:
    lines = lines_of(path)
    lines.pop(rng.randrange(len(lines)))
    path.write_bytes(b"".join(lines))


def other_version(path: Path, rng: random.Random) -> None:
    """A line with keys and a setting that nobody here knows, and one that lacks all that is known; well written."""
    row = json.loads(rng.choice(lines_of(path)))
    row.pop("checksum", None)
    row["name"] = f"{row.get('name', 'x')}-new"
    row["settings"] = row.get("settings", {}) | {"routing.of_tomorrow": 3}
    append_lines(path, [row | {"new": [1]}, {"format": 9}])


def crlf(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def no_json(path: Path, rng: random.Random) -> None:
    """What an editor, a merge or a stray program may leave."""
    lines = lines_of(path)
    lines.insert(
        rng.randrange(len(lines) + 1), rng.choice([b"<<<<<<< HEAD\n", b"[1]\n", b"null\n", b"\xff\xfe\n", b"7\n"])
    )
    path.write_bytes(b"".join(lines))


Damage = Callable[[Path, random.Random], None]
ANY: list[Damage] = [empty, cut, byte, zeros, a_folder, dangling, missing]
LINES: list[Damage] = [line_twice, line_away, other_version, crlf, no_json]
UNSEEN = (missing, line_away, dangling, empty)  # nobody can know what was there, so nobody has to tell


def cases(patterns: list[str], names: list[str], seed: int, number: int) -> list:
    """Draw cases (pattern, damage, command), each pattern as often as the others."""
    rng, columns = random.Random(seed), []
    for pattern in patterns:
        damages = [*ANY, *(LINES if pattern in RECORDS else []), *([digit] if pattern == "runs.jsonl" else [])]
        column = [(pattern, damage, name) for damage, name in itertools.product(damages, names)]
        rng.shuffle(column)
        columns.append(column)
    drawn = [case for row in itertools.zip_longest(*columns) for case in row if case]
    return [
        pytest.param(*case, id=f"{case[1].__name__}-{case[0]}-{case[2]}") for case in drawn[: round(number * TRIALS)]
    ]


def damaged(workdir: Path, pattern: str, damage: Damage) -> Path:
    """Damage one of a workdir's files; returns it."""
    rng = random.Random(f"{pattern} {damage.__name__}")
    path = rng.choice(sorted(workdir.glob(pattern)))
    damage(path, rng)
    return path


def assert_right_or_told(done: Done, path: Path, damage: Damage, wanted: Done | None = None) -> None:
    """A command's answer is that of an undisturbed one, or lines name the damaged file."""
    assert_clean(done)
    assert done.code in (0, 2, 3), done
    named = path.name in done.err or path.parent.name in done.err
    if done.code:
        last = done.err.splitlines()[-1]
        assert re.search("[;:,]", last), "no remedy"
        assert named or damage in UNSEEN, done.err
    elif not named and damage not in UNSEEN and wanted is not None:
        assert answer(done) == answer(wanted)


def answer(done: Done) -> list[str]:
    """What was printed, without paths."""
    return [line for line in done.out.splitlines() if "/" not in line]


def mend(same: Callable[..., Done], path: Path) -> None:
    """Run the command that made the workdir; if it says what to do about a file, do that first."""
    done = same()
    assert_clean(done)
    if done.code:
        assert done.code in (2, 3), done
        assert str(path) in done.err, done.err
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        done = same()
        assert done.code == 0, done.err
    if path.name == "params.safetensors" and not path.is_file():
        done = same("--rerun")  # a record may come without its parameters
        assert (done.code, done.err) == (0, "")


def assert_no_number_changed(workdir: Path) -> None:
    table = workdir / "routing_iterations.csv"
    if table.is_file() and table.stat().st_size:
        assert all(row in rows(finished()) for row in rows(workdir))


@pytest.mark.parametrize(
    ("pattern", "damage", "name"), cases(FINISHED, ["same", "figures", "report", "predict"], 0, 14)
)
def test_of_a_finished_workdir(pattern, damage, name, work):
    copied(finished(), work)
    wanted = None
    if name != "same":
        wanted = command(*others(work)[name])
        assert (wanted.code, wanted.err) == (0, "")
    path = damaged(work, pattern, damage)
    if name != "same":
        done = command(*others(work)[name])
        assert_right_or_told(done, path, damage, wanted)
        if not (pattern == "routing_iterations.csv" and name != "figures"):
            assert_no_number_changed(work)
    mend(partial(sweep, work), path)
    assert_same(work, names=False)


def half() -> Path:
    """A workdir whose command was killed while it wrote the second program's records."""
    at = len(calls()) - calls()[::-1].index("write runs.jsonl")

    def make(folder: Path) -> None:
        done = sweep(folder, fault={"folder": str(folder), "at": at, "do": "kill"})
        assert done.code == -signal.SIGKILL

    return once("half", make)


@pytest.mark.parametrize(("pattern", "damage", "name"), cases(HALF, ["same", "figures"], 1, 6))
def test_of_a_half_finished_workdir(pattern, damage, name, work):
    copied(half(), work)
    path = damaged(work, pattern, damage)
    if name != "same":
        assert_right_or_told(command(*others(work)[name]), path, damage)
        assert_no_number_changed(work)
    mend(partial(sweep, work), path)
    assert_same(work, names=False)


def observed(workdir: Path, *arguments: str) -> Done:
    """Also look into the sweep's networks."""
    return sweep(workdir, "--experiment=invariance", "--set=model.name=capsnet_small", *arguments)


@pytest.mark.parametrize(("pattern", "damage", "name"), cases(["runs/*/invariance.npz"], ["same", "figures"], 2, 2))
def test_of_observations(pattern, damage, name, work):
    def make(folder: Path) -> None:
        done = observed(copied(finished(), folder))
        assert (done.code, done.err) == (0, "")

    whole = once("observed", make)
    copied(whole, work)
    path = damaged(work, pattern, damage)
    if name == "figures":
        assert_right_or_told(command("--experiment=invariance", *others(work)["figures"]), path, damage)
    mend(partial(observed, work), path)
    for saved in whole.glob(pattern):
        with np.load(saved) as arrays, np.load(work / saved.relative_to(whole)) as again:
            assert arrays.files == again.files
            assert all(np.array_equal(arrays[name], again[name], equal_nan=True) for name in arrays.files)
    for figure in whole.glob("figures/invariance-*"):
        assert (work / figure.relative_to(whole)).read_bytes() == figure.read_bytes()
