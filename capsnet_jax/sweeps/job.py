"""One task of a job on other machines: the command of a sweep as a child process, stopped and requeued with care.

submitit pickles a `Task`, and calls it on the machine that the job was given. This file imports nothing large, so that
little stands between the job's start and the child's.
"""

import contextlib
import ctypes
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

SAVE_SECONDS = 60  # that a child has for saving; of the 90 that submitit asks Slurm to warn before the end
POLL_SECONDS = 0.5
PR_SET_PDEATHSIG = 1  # of Linux: the signal that a process gets when its parent dies
DIVERGED = 1  # the exit code of a command that did all it could; its records tell which runs diverged


def log_path(folder: Path, job: str) -> Path:
    """Return the file in a job's folder that has what a task's command prints, in all its starts."""
    return folder / f"{job}.log"


class TaskError(Exception):
    """The command ended with a mistake or by a signal; its last line in the task's log says why."""


class Task:
    """A command that submitit calls as a function of nothing, and that a preempted job goes on with."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str | None]):
        """Say what to run.

        Args:
            command: program and arguments; started anew, it continues what it did.
            folder: to run it in.
            environment: {name: value} of what differs from the environment of the job; None takes a name out.
        """
        self.command = list(command)
        self.folder = folder
        self.environment = dict(environment)
        self._child: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        """Run the command to its end. SIGTERM, the end of a job, lets it save first.

        Raises:
            TaskError: it failed.
        """
        from submitit import JobEnvironment

        job = JobEnvironment()
        values = {**os.environ, **self.environment}
        with log_path(job.paths.folder, job.job_id).open("ab") as log, _signals_of_a_child():
            self._child = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env={name: value for name, value in values.items() if value is not None},
                stdout=log,
                stderr=log,
                start_new_session=job.cluster == "local",  # away from Ctrl-C; Slurm might lose sight of it
                preexec_fn=functools.partial(_heed_parents_end, signal.SIGHUP),
            )
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        if job.cluster == "local":
            _heed_parents_end(signal.SIGTERM)
        try:
            while (code := self._child.poll()) is None:
                time.sleep(POLL_SECONDS)  # `wait` would keep the lock that `checkpoint` needs for its own
        finally:
            self._stop()
        if code not in (0, DIVERGED):
            raise TaskError(f"exit code {code}: {' '.join(self.command)}")

    def checkpoint(self) -> Any:
        """Let the command save and end; return what is to be called when the job runs again.

        submitit calls it when the job is preempted or its time is over (USR2).
        """
        from submitit.helpers import DelayedSubmission

        self._stop()
        if self._child is not None:
            try:
                self._child.wait(SAVE_SECONDS)
            except subprocess.TimeoutExpired:  # it compiles: its last checkpoint counts
                self._child.kill()
        return DelayedSubmission(Task(self.command, self.folder, self.environment))

    def _stop(self) -> None:
        """Ask the child to save and end. SIGHUP may come twice; a second SIGTERM would end it at once."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                self._child.send_signal(signal.SIGHUP)


def _heed_parents_end(signum: int) -> None:
    """Have this process get a signal when its parent ends, however that ends; Linux alone can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signum)


@contextlib.contextmanager
def _signals_of_a_child() -> Iterator[None]:
    """Let a child that is started meanwhile heed SIGHUP, and not SIGUSR2, which Slurm sends to children, too."""
    handlers = {
        signum: signal.signal(signum, action)
        for signum, action in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGUSR2, signal.SIG_IGN))
    }
    try:
        yield
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
