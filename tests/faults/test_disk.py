"""Disks, outputs and environments that fail: one line, code 3, and the same command goes on once they do not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny
from tests.faults.work import (
    SETTINGS,
    SWEEP,
    Done,
    assert_clean,
    assert_goes_on,
    assert_same,
    assert_told,
    calls,
    command,
    copied,
    finished,
    moments,
    others,
    sweep,
    trials,
)

pytestmark = pytest.mark.slow

# Each error, and whether everything that changes something fails from then on.
ERRORS = [("ENOSPC", True), ("EIO", False), ("EROFS", True), ("EMFILE", False), ("EDQUOT", True), ("ENOSPC", False)]


@pytest.mark.parametrize("trial", trials(5))
def test_an_error_in_training(trial, work):
    error, lasting = ERRORS[trial % len(ERRORS)]
    at = moments(trial + 1, seed=4)[trial]
    print(f"{error} at call {at}: {calls()[at - 1]}, lasting: {lasting}")
    done = sweep(work, fault={"folder": str(work), "at": at, "do": error, "lasting": lasting})
    assert_clean(done)
    if done.code:  # what is only tidied up may fail
        assert_told(done, (3,))
    assert_goes_on(work)


@pytest.mark.parametrize("name", ["figures", "report", "predict"])
@pytest.mark.parametrize("trial", trials(1))
def test_an_error_in_what_trains_nothing(trial, name, work):
    copied(finished(), work)
    for row in work.glob("*.csv"):
        row.unlink()
    error, lasting = ERRORS[(trial + len(name)) % len(ERRORS)]
    at = moments(trial + 1, 5, calls(name))[trial]
    print(f"{error} at call {at}: {calls(name)[at - 1]}, lasting: {lasting}")
    done = command(*others(work)[name], fault={"folder": str(work), "at": at, "do": error, "lasting": lasting})
    assert_clean(done)
    if done.code:
        assert_told(done, (3,))
    elif name == "predict":
        assert "by mnist_5k-capsnet_small" in done.out
    shutil.rmtree(work / "figures")
    again = command(*others(work)[name])
    assert (again.code, again.err) == (0, "")
    assert_goes_on(work, names=False)


@pytest.mark.parametrize("name", ["figures", "predict"])
def test_a_workdir_that_cannot_be_written_still_answers(name, work):
    """The answer is printed; what could not be saved is told."""
    copied(finished(), work)
    wanted = command(*others(work)[name])
    done = command(*others(work)[name], fault={"folder": str(work), "at": 1, "do": "EROFS", "lasting": True})
    assert_told(done, (3,))
    answer = [line for line in wanted.out.splitlines() if line and str(work) not in line]
    assert [line for line in answer if line not in done.out.splitlines()] == []
    assert len(answer) > 4


@pytest.mark.parametrize("trial", trials(2))
def test_a_workdir_that_is_deleted(trial, work):
    at = moments(trial + 1, seed=6)[trial]
    print(f"deleted before call {at}: {calls()[at - 1]}")
    done = sweep(work, fault={"folder": str(work), "at": at, "do": "delete"})
    assert_clean(done)
    if done.code:
        assert_told(done, (3,))
    assert_goes_on(work, names=False)  # which checkpoints there are was in a file that is gone


def test_many_seeds_and_few_files(work):
    """As 350 seeds with `ulimit -n 1024`."""
    arguments = [word for word in SETTINGS if "epochs" not in word]
    done = command(
        *arguments,
        "--set=train.epochs=1",
        "--set=routing.iterations=1",
        "--seeds=40",
        f"--workdir={work}",
        files=100,
    )
    assert (done.code, done.err) == (0, "")
    assert len((work / "runs.jsonl").read_text().splitlines()) == 40


def test_too_few_files_to_start(work):
    assert_told(sweep(work, files=8), (3,))
    assert_goes_on(work)


def real(*arguments: object, pipe: str = "", home: str | None = None, **environment: str) -> Done:
    """Run the command in a shell, with its output into `pipe`."""
    names = tiny.environment() | environment
    if home is not None:
        names["HOME"] = home
    line = ["bash", "-c", f'"$@" {pipe}', "bash", sys.executable, "launch.py", *map(os.fspath, arguments)]
    done = subprocess.run(line, cwd=tiny.ROOT, env=names, capture_output=True, timeout=300, check=False)
    out, err = (data.decode(errors="backslashreplace") for data in (done.stdout, done.stderr))
    return Done(done.returncode, out, err)


@pytest.mark.parametrize("pipe", ["| head -1", "> /dev/full", ">&-", "2>&-"])
def test_output_that_goes_nowhere(pipe, work):
    """What was asked is done all the same."""
    finished()
    done = real(*SWEEP, f"--workdir={work}", pipe=pipe)
    assert_clean(done)
    assert done.code == (3 if "full" in pipe else 0)
    assert len(done.err.splitlines()) == (1 if "full" in pipe else 0), done.err
    assert_same(work)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_output_without_some_letters(encoding, work):
    copied(finished(), work)
    for arguments in ([*SWEEP, f"--workdir={work}"], others(work)["predict"]):
        done = real(*arguments, PYTHONIOENCODING=encoding)
        assert (done.code, done.err) == (0, "")
        assert done.out.count("\n") > 10


@pytest.mark.parametrize(
    "name",
    [os.fsdecode(b"caf\xe9"), "w" * 240, "a b 'c' $d", "-w", "ünï"],
    ids=["latin1", "long", "odd", "dash", "utf8"],
)
def test_names_of_workdirs(name, work):
    work.parent.mkdir(exist_ok=True)
    folder = copied(finished(), work.parent / name)
    for arguments in ([*SWEEP, f"--workdir={folder}"], others(folder)["predict"]):
        done = command(*arguments)
        assert (done.code, done.err) == (0, "")
    assert_same(folder, names=False)


def test_a_picture_of_a_long_name(work):
    copied(finished(), work)
    picture = work.parent / f"{'p' * 240}.png"
    shutil.copy(others(work)["predict"][0].partition("=")[2], picture)
    done = command(f"--predict={picture}", f"--workdir={work}")
    assert "by mnist_5k-capsnet_small" in done.out
    if done.code:
        assert_told(done, (3,))


def test_a_workdir_whose_name_is_too_long(work):
    assert_told(sweep(work / ("w" * 300)), (2, 3))


def test_tilde_is_the_home(work):
    copied(finished(), work)
    shutil.copy(others(work)["predict"][0].partition("=")[2], work.parent / "digit.png")
    done = real("--predict=~/digit.png", "--workdir=~/work", home=str(work.parent))
    assert (done.code, done.err) == (0, "")
    done = real(*SWEEP, "--workdir=~/work", home=str(work.parent))
    assert (done.code, done.err) == (0, "")
    assert "4 of 4 runs are finished already" in done.out
    assert not Path(tiny.ROOT / "~").exists()


@pytest.mark.parametrize("home", ["/dev/null", "/proc/nobody", ""])
def test_no_home(home, work):
    """The cache is in no place that can be written: all is compiled and decoded again, and a line says so."""
    copied(finished(), work)
    done = real(
        *SWEEP,
        f"--workdir={work}",
        home=home,
        CAPSNET_JAX_CACHE="",
        XDG_CACHE_HOME="",
        JAX_COMPILATION_CACHE_DIR="",
    )
    assert_clean(done)
    assert done.code == 0
    assert len(done.err.splitlines()) <= 1, done.err
    assert_same(work)
