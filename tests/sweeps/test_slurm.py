"""A sweep by tasks on a real Slurm of one node, and in processes of this machine, beside the same sweep at home."""

import functools
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.peers.slurm_node import missing, slurm_node

pytestmark = pytest.mark.slow

SWEEP = [
    *("--set=data.train_size=64", "--set=train.epochs=1", "--seeds=1", "--sweep=train.optimizer=adam,sgd"),
    *("--sweep=model.name=cnn_small,cnn_small_strided", "--sweep=train.batch_size=8,16,32"),
]
PROGRAMS = 12
SECONDS = 900  # that anything may take on a busy machine


@functools.cache
def at_home() -> dict[str, tiny.RunFiles]:
    """The sweep's runs, trained by one process."""
    folder = tiny.shared() / "slurm-home"
    tiny_run(*SWEEP, f"--workdir={folder}")
    return tiny.runs(folder)


def tiny_run(*arguments: object, env: dict[str, str] | None = None) -> str:
    line = tiny.command_line(*arguments)
    done = subprocess.run(
        line, cwd=tiny.ROOT, env=env or tiny.environment(), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_as_at_home(workdir: Path) -> None:
    """Parameters to the bit, every number of every record but speeds; each run trained to its end once."""
    runs, wanted = tiny.runs(workdir), at_home()
    assert len((workdir / "runs.jsonl").read_text().splitlines()) == PROGRAMS
    assert len(wanted) == PROGRAMS
    assert runs.keys() == wanted.keys()
    for name, run in wanted.items():
        assert run.params
        assert runs[name] == run


def wait_for(what: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    end = time.monotonic() + SECONDS
    while not (value := what()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.2)
    return value


def parent(pid: int) -> int:
    return int(re.search(r"PPid:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


def environment_of(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/environ").read_text()
    return dict(line.split("=", 1) for line in text.split("\0") if "=" in line)


@pytest.mark.skipif(bool(missing()), reason="Slurm is not installed")
def test_two_tasks_of_a_cluster_one_killed_and_one_requeued(tmp_path):
    """The killed task's program is free at once; the requeued task continues its own, and then trains what is left."""
    at_home()
    with slurm_node() as names:
        env = tiny.environment() | {name: names[name] for name in ("SLURM_CONF", "PATH")}
        asked = [*SWEEP, f"--workdir={tmp_path}", "--slurm=main,tasks=2,cpus=1,time=1:00"]
        detached = tiny_run(*asked, "--detach", env=env)
        assert re.match(
            r"job 1: 2 tasks for 12 programs; logs in .*\nto look: squeue -j 1; to cancel: scancel 1;", detached
        )
        line = tiny.command_line(*asked)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(line, cwd=tiny.ROOT, env=env, text=True, **pipes) as process:

            def workers() -> dict[str, int]:
                pids = [int(path.read_text().split()[0]) for path in tmp_path.glob("programs/*/lock.pid")]
                return {environment_of(pid)["SLURM_ARRAY_TASK_ID"]: pid for pid in pids}

            def both() -> dict[str, int]:
                try:
                    found = workers()
                except (OSError, IndexError, ValueError):  # one leaves its lock this moment
                    return {}
                return found if len(found) == 2 else {}

            working = wait_for(both, process)
            [job] = {environment_of(pid)["SLURM_ARRAY_JOB_ID"] for pid in working.values()}
            for pid in (parent(working["0"]), working["0"]):
                os.kill(pid, signal.SIGKILL)
            subprocess.run(["scancel", "--signal=USR2", f"{job}_1"], env=env, check=True)
            out, error = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, out + error
    assert error == ""
    assert job == "1"
    assert "job 1 goes on: the same command submitted it\n" in out
    assert re.search(rf"^task 0 failed, see {tmp_path}/slurm/{job}_0\S+: \S", out, re.MULTILINE)
    assert f"{PROGRAMS} of {PROGRAMS} runs finished" in out
    log = (tmp_path / f"slurm/{job}_1.log").read_text()
    assert "stopped by SIGHUP; the same command continues" in log  # saved, before it was requeued
    assert "Requeued job" in (tmp_path / f"slurm/{job}_1_0_log.out").read_text()
    assert_as_at_home(tmp_path)


def test_two_tasks_of_this_machine(tmp_path):
    """Without Slurm; the command again finds nothing to do, and submits nothing."""
    at_home()
    out = tiny_run(*SWEEP, f"--workdir={tmp_path}", "--slurm=local,tasks=2")
    assert re.search(r"^job of processes \d+ \d+: 2 tasks for 12 programs; logs in .*/slurm$", out, re.MULTILINE)
    assert_as_at_home(tmp_path)
    logs = [path.read_text() for path in (tmp_path / "slurm").glob("*.log")]
    assert len(logs) == 2
    assert all("test error" not in log for log in logs)  # tables are the launching process's
    assert tiny_run(*SWEEP, f"--workdir={tmp_path}", "--slurm=local,tasks=2").startswith("12 of 12 runs are finished")


@pytest.mark.parametrize("wish", ["leave", "cancel"])
def test_interrupted_on_this_machine(wish, tmp_path):
    """Ctrl-C reaches the waiting process alone; a task that is ended, by it or by `kill`, saves first."""
    line = tiny.command_line(*SWEEP, f"--workdir={tmp_path}", f"--slurm=local,tasks=1,on_interrupt={wish}")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(
        line, cwd=tiny.ROOT, env=tiny.environment(), text=True, start_new_session=True, **pipes
    ) as process:
        first = process.stdout.readline()
        controller = int(re.match(r"job of process (\d+): 1 task for 12 programs", first)[1])
        log = tmp_path / f"slurm/{controller}.log"
        wait_for(lambda: log.exists() and "compiling" in log.read_text(), process)
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does
        out, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + signal.SIGINT
    if wish == "leave":
        assert f"job of process {controller} goes on; to cancel it: kill {controller}\n" in out
        assert "stopped by" not in log.read_text()
        os.kill(controller, signal.SIGTERM)
    end = time.monotonic() + SECONDS
    while "stopped by SIGHUP; the same command continues" not in log.read_text():
        assert time.monotonic() < end
        time.sleep(0.2)
