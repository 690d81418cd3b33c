"""Real processes, with subjects that only pretend."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from capsnet_jax.bench import process
from capsnet_jax.bench.process import Process
from capsnet_jax.sweeps.interrupt import Interrupted
from tests import tiny
from tests.bench import fake, small


@pytest.fixture
def failures():
    return []


@pytest.fixture
def start(tmp_path, failures):
    return lambda stop=lambda: None: Process("some subject", stop, str(tmp_path), failures)


def gone(pid):
    return not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()


def test_a_subject_compiles_and_steps_and_tells_its_peak(start, failures):
    with start() as subject:
        assert subject.ask(fake.open_subject, small.workload(), None) is None
        assert subject.ask(process.compile_subject) == 1.5
        assert subject.ask(process.run_steps, 20) >= 0.02
        assert subject.ask(process.run_steps, 3) < 0.02
        assert subject.ask(fake.calls) == [(0, 20), (20, 23)]
        assert 5e6 < subject.ask(process.peak_memory) < 1e9
    assert failures == []


def test_a_process_has_its_own_caches_and_imports_no_framework(start, tmp_path):
    with start() as subject:
        names = ("JAX_COMPILATION_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "XLA_PYTHON_CLIENT_PREALLOCATE")
        found, has_jax = subject.ask(fake.inherited, *names)
    assert found == [str(tmp_path), f"{tmp_path}/inductor", "false"]
    assert not has_jax
    assert os.environ.get("JAX_COMPILATION_CACHE_DIR") != str(tmp_path)


@pytest.mark.parametrize(("subject", "framework"), [("capsnet_jax", "flax"), ("plain_jax", "optax")])
def test_a_subject_brings_nothing_whose_memory_would_count_for_it(start, subject, framework):
    """TensorboardX imports torch where that is installed."""
    with start() as process:
        found = process.ask(fake.imported, subject)
    assert framework in found
    assert not found & {"torch", "pandas", "tensorboardX", "matplotlib", "orbax"}


def test_an_error_is_one_line_with_the_subjects_name(start, failures, capsys):
    with start() as subject:
        assert subject.ask(fake.fail) is None
        assert subject.ask(fake.sleep, 0) is None  # it answers no more
    assert failures == ["some subject: ValueError: two lines"]
    assert capsys.readouterr().out == "some subject: ValueError: two lines\n"


def test_a_process_that_dies_is_one_line(start, failures):
    with start() as subject:
        assert subject.ask(fake.die) is None
        assert subject.ask(process.run_steps, 1) is None
    assert failures == ["some subject: the process died (out of memory?)"]


def test_a_process_that_dies_between_two_requests_is_one_line(start, failures):
    with start() as subject:
        os.kill(subject.ask(os.getpid), signal.SIGKILL)
        time.sleep(0.5)
        assert subject.ask(process.run_steps, 1) is None
    assert failures == ["some subject: the process died (out of memory?)"]


def test_a_request_to_stop_ends_the_waiting_and_the_process(start):
    stop = []

    def wait():
        with start(lambda: stop[1] if len(stop) > 1 else None) as subject:
            stop.extend([subject.ask(os.getpid), signal.SIGTERM])
            subject.ask(fake.sleep, 60)

    with pytest.raises(Interrupted) as stopped:
        wait()
    assert stopped.value.exit_code == 143
    assert gone(stop[0])


ORPHAN = """
import os, signal, sys
from capsnet_jax.bench.process import Process
if __name__ == "__main__":
    print(Process("child", lambda: None, sys.argv[1], []).ask(os.getpid), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_ends_with_its_parent(tmp_path):
    command = [sys.executable, "-c", ORPHAN, str(tmp_path)]
    done = subprocess.run(command, cwd=tiny.ROOT, capture_output=True, text=True, timeout=60, check=False)
    pid = int(done.stdout)
    for _ in range(100):
        if gone(pid):
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("it lives on")
