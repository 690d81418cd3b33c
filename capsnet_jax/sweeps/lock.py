"""Locks of the kernel's: they end with their process, however that ends, and a file that is left means nothing."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import filelock


class LockedError(Exception):
    """Another process works in the folder, or it cannot be locked; the message names folder and remedy."""


class ProgramLock:
    """The right to train one program of a sweep, for one process at a time.

    The holder's process id stands in a file of its own: older filelocks empty a lock file that they fail to get.
    """

    def __init__(self, path: Path):
        """Name the lock's file; its folder is made where missing."""
        self._path = path
        self._pid = path.with_name(f"{path.name}.pid")
        self._lock = filelock.FileLock(path, timeout=0)

    def acquire(self) -> bool:
        """Take the lock, or return False at once if another process holds it.

        Raises:
            LockedError: the folder cannot be written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            self._pid.write_text(f"{os.getpid()}\n")
        except filelock.Timeout:
            return False
        except OSError as error:
            self._lock.release()
            raise LockedError(f"{self._path.parent} cannot be locked ({error}): use another workdir") from error
        return True

    def release(self) -> None:
        """Give the lock back."""
        self._pid.unlink(missing_ok=True)
        self._lock.release()

    def holder(self) -> str:
        """Return the process id of who holds it; "unknown" if it is leaving this moment."""
        try:
            return self._pid.read_text().strip() or "unknown"
        except OSError:
            return "unknown"


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a folder, made where missing, for this process alone.

    Raises:
        LockedError: at once, where another process holds it, or where the folder cannot be written.
    """
    lock = ProgramLock(folder / ".lock")
    if not lock.acquire():
        raise LockedError(f"{folder} is in use by process {lock.holder()}: wait for it, or use another workdir")
    try:
        yield
    finally:
        lock.release()
