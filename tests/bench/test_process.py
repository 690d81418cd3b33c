import os
import signal
import time
from pathlib import Path

import pytest

from capsnet_jax.bench.process import Process, WorkerError
from capsnet_jax.sweeps.interrupt import Interrupted


def never():
    return None


def start(folder: Path, stop=never) -> Process:
    return Process("some worker", folder, stop)


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_errors_are_one_line_with_the_workers_name(tmp_path):
    with start(tmp_path) as process:
        with pytest.raises(WorkerError, match=r"^some worker: RuntimeError: no workload is open$"):
            process.ask("run", steps=1)
        with pytest.raises(WorkerError, match="a worker cannot 'dance'"):
            process.ask("dance")


def test_a_worker_that_died_is_one_line(tmp_path):
    with start(tmp_path) as process:
        with pytest.raises(WorkerError):
            process.ask("prepare")
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match=r"^some worker: .* \(killed by SIGKILL\): it said nothing$"):
            process.ask("prepare")


def test_the_last_words_of_a_worker_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.exit('no\\nmemory left')")
    with start(tmp_path) as process, pytest.raises(WorkerError, match=r"\(exit code 1\): memory left$"):
        process.ask("prepare")


def test_an_idle_worker_sleeps_and_ends_with_its_context(tmp_path):
    with start(tmp_path) as process:
        with pytest.raises(WorkerError):
            process.ask("prepare")
        time.sleep(0.5)  # what the failure left to do
        before = processor_seconds(process.pid)
        time.sleep(1)  # of which a worker that polls would take all
        assert processor_seconds(process.pid) - before <= 0.1
    assert not Path(f"/proc/{process.pid}").exists()


def test_a_request_to_stop_ends_the_waiting(tmp_path):
    with start(tmp_path, lambda: signal.SIGTERM) as process, pytest.raises(Interrupted) as stopped:
        process.ask("prepare")
    assert stopped.value.exit_code == 143
    assert not Path(f"/proc/{process.pid}").exists()


def test_a_worker_ends_when_nobody_asks_any_more(tmp_path):
    with start(tmp_path) as process:
        process._process.stdin.close()
        assert process._process.wait(timeout=30) == 0
