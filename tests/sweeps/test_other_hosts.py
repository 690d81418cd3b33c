"""Commands of several processes that make one job, compared with one process; stopped, killed, and continued."""

import re
import signal
import socket
import subprocess
import time

import numpy as np
import pytest

from tests import tiny
from tests.sweeps.test_resume import assert_same, uninterrupted

NEXT_CHUNK = "capsnet_jax.training.fit.next_chunk"  # called after each chunk of steps
ONE_RUN = [*tiny.SIZES, "--set=routing.iterations=1", "--seeds=1"]  # whose batches two processes share
KILLED = -signal.SIGKILL


def run_two(
    *arguments: object, faults: tuple[str, str] = ("", ""), own: tuple[str, str] = ("--rerun=false", "--rerun=false")
) -> list[subprocess.CompletedProcess[str]]:
    """One command by two processes; each may have a fault of `tiny.FAULTY`, and a flag of its own.

    Each has 30 s from the end of the other one.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    started = []
    for process, fault in enumerate(faults):
        flags = (f"--coordinator=localhost:{port}", "--processes=2", f"--process={process}")
        line = tiny.command_line(*arguments, own[process], *flags, fault=fault)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(line, cwd=tiny.ROOT, env=tiny.environment(), text=True, **pipes))
    deadline = time.monotonic() + 600
    while all(process.poll() is None for process in started) and time.monotonic() < deadline:
        time.sleep(0.1)
    done = []
    for process in started:
        try:
            out, error = process.communicate(timeout=30)
        finally:
            process.kill()
        done.append(subprocess.CompletedProcess(process.args, process.returncode, out, error))
    return done


def test_flags_that_do_not_go_together_are_a_mistake(capsys, tmp_path):
    for flags, message in [
        (["--processes=2"], "several processes of one job need --coordinator=HOST:PORT; nothing here tells it\n"),
        (
            ["--coordinator=localhost:1", "--processes=2", "--process=2"],
            "--process=2 of --processes=2: count from 0 to 1\n",
        ),
        (
            ["--experiment=throughput", "--coordinator=localhost:1", "--processes=2", "--process=0"],
            "throughput, which trains nothing, does not use --coordinator; leave it out\n",
        ),
    ]:
        code, out, error = tiny.call(capsys, *flags, f"--workdir={tmp_path}/none")
        assert (code, out, error) == (2, "", message)


def test_a_port_that_is_taken_is_a_failure_of_the_machine(capsys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"localhost:{taken.getsockname()[1]}"
        flags = [f"--coordinator={where}", "--processes=2", "--process=0", f"--workdir={tmp_path}/none"]
        code, _, error = tiny.call(capsys, *flags)
    assert code == 3
    assert re.fullmatch(f"process 0 cannot listen at {where} .*; name another port by --coordinator\n", error)


@pytest.mark.slow
def test_two_processes_record_what_one_does(tmp_path):
    first, second = run_two(*tiny.FIRST, f"--workdir={tmp_path}")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.startswith("on 2 devices of 2 processes\n")
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert_same(tmp_path, uninterrupted(1))


@pytest.mark.slow
def test_a_signal_to_one_stops_both_and_one_continues(tmp_path):
    stopped = run_two(*tiny.FIRST, f"--workdir={tmp_path}", faults=("", f"{NEXT_CHUNK}:2:SIGTERM"))
    assert [each.returncode for each in stopped] == [128 + signal.SIGTERM] * 2
    assert stopped[0].stderr == "stopped by SIGTERM; the same command continues\n"
    assert "going on from step" in tiny.succeed(*tiny.FIRST, f"--workdir={tmp_path}")
    assert_same(tmp_path, uninterrupted(1))


@pytest.mark.slow
def test_two_continue_what_one_began(tmp_path):
    stopped = tiny.run(*tiny.FIRST, f"--workdir={tmp_path}", fault=f"{NEXT_CHUNK}:2:SIGTERM")
    assert stopped.returncode == 128 + signal.SIGTERM
    first, _ = run_two(*tiny.FIRST, f"--workdir={tmp_path}")
    assert (first.returncode, first.stderr) == (0, "")
    assert "going on from step" in first.stdout
    assert_same(tmp_path, uninterrupted(1))


@pytest.mark.slow
def test_a_killed_process_ends_the_other_and_the_same_command_continues(tmp_path):
    command = (*ONE_RUN, f"--workdir={tmp_path}")
    fault = f"{NEXT_CHUNK}:3:SIGKILL"
    first, second = run_two(*command, faults=("", fault))
    assert (second.returncode, first.returncode) == (KILLED, 3)
    assert first.stderr == "process 1 is gone; the same command continues\n"
    first, second = run_two(*command, faults=(fault, ""))
    assert (first.returncode, second.returncode) == (KILLED, 3)
    assert second.stderr == "process 0 is gone; the same command continues\n"
    first, second = run_two(*command)
    assert (first.returncode, first.stderr, second.returncode, second.stderr) == (0, "", 0, "")
    assert "going on from step" in first.stdout
    (name,) = tiny.runs(tmp_path)
    whole = tiny.study().folder
    for got, wanted in zip(_leaves(tmp_path, name), _leaves(whole, name), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_processes_that_are_asked_different_things_end_with_one_line(tmp_path):
    arguments = (*tiny.SIZES, "--seeds=1", f"--workdir={tmp_path}")
    done = run_two(*arguments, own=("--set=routing.iterations=1", "--set=routing.iterations=2"))
    assert [each.returncode for each in done] == [2, 2]
    assert [each.stderr for each in done] == [
        "process 1 failed; its own line says why\n",
        "process 1: process 0 has other runs; give all processes the same flags and code\n",
    ]


def _leaves(workdir, name):
    import jax

    return jax.tree.leaves(tiny.params(workdir, name))
