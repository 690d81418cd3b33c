"""The asking end of a worker process."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from capsnet_jax.sweeps.interrupt import Interrupted

_POLL = 0.2  # seconds between looks at whether to stop


class WorkerError(Exception):
    """A worker failed or died; the message is one line."""


class Process:
    """A worker process; leaving it as a context manager ends it and whatever it has started."""

    def __init__(self, name: str, folder: Path, stop: Callable[[], int | None], *, cache: Path | None = None):
        """Start the process.

        Args:
            name: what errors call it.
            folder: where its stderr is kept.
            stop: tells the signal that asked to stop, or None.
            cache: where compiled programs are kept and looked for; None keeps none.
        """
        self._name, self._stop, self._buffer = name, stop, b""
        folder.mkdir(parents=True, exist_ok=True)
        handle, log = tempfile.mkstemp(".log", dir=folder)
        self._log = Path(log)
        with os.fdopen(handle, "wb") as stderr:
            # A session of its own: Ctrl-C on a terminal reaches this process alone, which then ends the workers.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "capsnet_jax.bench.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=_environment(folder, cache),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The system's number of the process."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, together with whatever it has started (compilers)."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """A request's answer.

        Raises:
            WorkerError: the worker could not do it, or died.
            Interrupted: a signal asked to stop.
        """
        self.send(do, **arguments)
        return self.receive()

    def send(self, do: str, **arguments: Any) -> None:
        """A request whose answer is received later."""
        assert self._process.stdin is not None, "it was opened as a pipe"
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None

    def receive(self) -> dict[str, Any]:
        """The answer to a request that was sent; raises as `ask` does."""
        assert self._process.stdout is not None, "it was opened as a pipe"
        while b"\n" not in self._buffer:
            if signum := self._stop():
                raise Interrupted(signum)
            if select.select([self._process.stdout], [], [], _POLL)[0]:
                part = os.read(self._process.stdout.fileno(), 65536)
                if not part:
                    raise self._death()
                self._buffer += part
        line, self._buffer = self._buffer.split(b"\n", 1)
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self._name}: {answer['error']}")
        return answer

    def _death(self) -> WorkerError:
        code = self._process.wait()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        said = self._log.read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(said) if line.strip()), "it said nothing")
        return WorkerError(f"{self._name}: the worker process ended ({how}): {last}")


def _environment(folder: Path, cache: Path | None) -> dict[str, str]:
    """The worker's environment: caches of programs where told, and no memory set aside that others need."""
    own = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_ENABLE_COMPILATION_CACHE": "false" if cache is None else "true",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")])),
    }
    own["JAX_COMPILATION_CACHE_DIR"] = str(cache or folder / "unused")
    own["TORCHINDUCTOR_CACHE_DIR"] = str((cache or folder) / "inductor")
    return os.environ | own
