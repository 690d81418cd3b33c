"""A process of its own for each subject: what it does there, and the handle that asks it."""

import contextlib
import importlib
import multiprocessing
import os
import re
import resource
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any
from unittest import mock

from capsnet_jax.bench.workload import SUBJECTS, Workload
from capsnet_jax.sweeps.interrupt import Interrupted


class WorkerError(Exception):
    """A subject failed or its process died; the message is one line."""


class Process(ProcessPoolExecutor):
    """A spawned process; leaving it as a context manager ends it and whatever it has started (compilers).

    `stop` returns the signal that asked to stop, or None. `cache` is a folder for compiled programs. `failures` gets a
    line, with the process's name, if it fails; from then on all its answers are None.
    """

    def __init__(self, name: str, stop: Callable[[], int | None], cache: str, failures: list[str]):
        environment = {
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # other processes need memory too
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor",
        }
        self._name, self._stop, self._failures, self._failed = name, stop, failures, False
        super().__init__(1, multiprocessing.get_context("spawn"), _begin)
        with mock.patch.dict(os.environ, environment):
            self._pid: Future[int] = self.submit(os.getpid)  # spawns
        self._future: Future[Any] = self._pid

    def __exit__(self, error: object, *_: object) -> None:
        if error is None:
            self.shutdown()
        with contextlib.suppress(BrokenProcessPool, ProcessLookupError):
            os.killpg(self._pid.result(), signal.SIGKILL)
        self.shutdown()

    def send(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Ask for a function's value, which is received later."""
        try:
            self._future = self.submit(_answer, function, *arguments)
        except BrokenProcessPool as death:
            self._future = Future()
            self._future.set_exception(death)

    def receive(self) -> Any:
        """Return the value that was asked for, None if the process failed; raise Interrupted if a signal came."""
        while not self._future.done():
            if signum := self._stop():
                raise Interrupted(signum)
            wait([self._future], 0.2)  # seconds
        try:
            return None if self._failed else self._future.result()
        except RuntimeError as error:
            died = isinstance(error, BrokenProcessPool)
            self._failures.append(f"{self._name}: {'the process died (out of memory?)' if died else error}")
        self._failed = True
        print(self._failures[-1], flush=True)
        return None

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Send and receive."""
        self.send(function, *arguments)
        return self.receive()


# What follows runs in the process. A subject has compile() -> seconds, or None where nothing is compiled;
# run(start, stop), which takes these steps, or infers these batches, and waits for them; device_peak() -> bytes, or 0.
_subject: Any = None
_step = 0  # the next one


def _begin() -> None:
    os.setsid()  # Ctrl-C on a terminal then reaches the parent alone, which ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
    os.killpg(0, signal.SIGKILL)


def _answer(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception as error:  # whose class the parent may lack
        raise RuntimeError(f"{type(error).__name__}: {' '.join(str(error).split())}") from None


def open_subject(workload: Workload, weights: Any) -> None:
    """Import the subject and give it data and initial weights (None: it starts from its own)."""
    global _subject
    _subject = importlib.import_module(SUBJECTS[workload.subject]).build(workload, weights)


def compile_subject() -> float | None:
    """Compile the subject."""
    return _subject.compile()


def run_steps(steps: int) -> float:
    """Do that many steps, wait for them, and return the seconds that they took."""
    global _step
    clock = time.perf_counter()
    _subject.run(_step, _step + steps)
    _step += steps
    return time.perf_counter() - clock


def peak_memory() -> int:
    """Return the subject's peak memory [bytes]: its device's, or on a CPU that of the process."""
    status = Path("/proc/self/status")  # `ru_maxrss` would hold what the parent had when it forked
    match = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text() if status.exists() else "", re.MULTILINE)
    return _subject.device_peak() or (1024 * int(match[1]) if match else resource.getrusage(0).ru_maxrss)


def torch_device() -> str:
    """Return what PyTorch computes on here, "cuda" or "cpu"."""
    import torch  # an optional peer

    return "cuda" if torch.cuda.is_available() else "cpu"
