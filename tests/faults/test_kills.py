"""Killed at any moment, the same command ends with the same bits and leaves nothing behind."""

import random
import signal
import subprocess
import sys
import time

import pytest

from tests import tiny
from tests.faults.work import SWEEP, assert_goes_on, calls, command, files, finished, moments, records, sweep, trials

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", trials(1))
def test_killed_at_any_time(seed, work):
    """The real command, killed from outside two times, each time somewhere between its start and its end."""
    line = [sys.executable, "launch.py", *SWEEP, f"--workdir={work}"]
    finished()
    rng, clock = random.Random(seed), time.monotonic()
    subprocess.run(line, cwd=tiny.ROOT, env=tiny.environment(), capture_output=True, check=True)
    seconds = time.monotonic() - clock
    for _ in range(2):
        process = subprocess.Popen(
            line, cwd=tiny.ROOT, env=tiny.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(rng.uniform(0.2, 1) * seconds)
        process.kill()
        process.wait()
    assert_goes_on(work)


@pytest.mark.parametrize("trial", trials(4))
def test_killed_before_a_call(trial, work):
    at = moments(trial + 1, seed=0)[trial]
    done = sweep(work, fault={"folder": str(work), "at": at, "do": "kill"})
    assert done.code == -signal.SIGKILL, calls()[at - 1]
    print(f"killed before call {at}: {calls()[at - 1]}")  # shown where the test fails
    assert_goes_on(work)


@pytest.mark.parametrize("trial", trials(1))
def test_killed_and_then_asked_for_more_seeds(trial, work):
    """Three seeds are another group of runs: what two began goes on, and its checkpoints are removed."""
    lines = [line for line in calls() if "programs/" in line or "runs.jsonl" in line]
    at = calls().index(lines[moments(trial + 1, 1, lines)[trial] - 1]) + 1
    done = sweep(work, fault={"folder": str(work), "at": at, "do": "kill"})
    assert done.code == -signal.SIGKILL
    print(f"killed before call {at}: {calls()[at - 1]}")
    done = sweep(work, "--seeds=3")
    assert (done.code, done.err) == (0, "")
    known, wanted = records(work), records(finished())
    assert len(known) == 6
    assert {name: known[name] for name in wanted} == wanted
    left = {path for path in files(work) if not path.startswith(("runs/", "figures/"))}
    assert left == {path for path in files(finished()) if not path.startswith(("runs/", "figures/"))}
    assert not [path for path in files(work) if path.endswith((".partial", ".tmp", ".part"))]


def test_killed_again_and_again(work):
    """Every start comes a little further; checkpoints of steps that were made are not made again."""
    for at in range(12, len(calls()), max(1, len(calls()) // 4)):
        if command(*SWEEP, f"--workdir={work}", fault={"folder": str(work), "at": at, "do": "kill"}).code == 0:
            break
    assert_goes_on(work)
