"""Keep processes apart: one process a workdir, or one process a program of a sweep."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import filelock

from capsnet_jax.sweeps.files import make_folder


class LockedError(Exception):
    """Another process works in the folder; the message names folder and remedy."""


class ProgramLock:
    """A lock on one file, for one program of a sweep that several processes share.

    The kernel frees the lock when its process ends, however that ends. A lock file that is left means nothing.
    Whoever gets the lock must check whether the work is still to be done: the holder before may have done it.

    The holder's process id and machine stand in a second file, `<name>.pid`: older filelocks empty a lock file
    that they fail to get.
    """

    def __init__(self, path: Path):
        """Name the lock file; nothing is locked yet."""
        self._path = path
        self._pid = path.with_name(f"{path.name}.pid")
        self._lock = filelock.FileLock(path, timeout=0)

    def acquire(self) -> bool:
        """Take the lock if it is free; make the folder where missing.

        Returns:
            Whether this object holds the lock now. False at once where another process, or another object of this
            process, holds it.

        Raises:
            OSError: the folder cannot be written.
        """
        if self._lock.is_locked:
            return True
        try:
            make_folder(self._path.parent)
            self._lock.acquire()
            self._pid.write_text(f"{os.getpid()} {socket.gethostname()}\n")
        except filelock.Timeout:
            return False
        except OSError:
            self._lock.release()
            raise
        return True

    def release(self) -> None:
        """Free the lock; nothing happens where this object does not have it."""
        if self._lock.is_locked:
            with contextlib.suppress(OSError):  # its folder may be gone
                self._pid.unlink(missing_ok=True)
            self._lock.release()

    def is_held_here(self) -> bool:
        """Whether another process holds the lock which says that it is of this machine; of others nothing is known."""
        try:
            host = self._pid.read_text().split()[-1]
        except (OSError, IndexError):
            return False
        if host != socket.gethostname() or self.acquire():  # what a killed process left
            self.release()
            return False
        return True

    def holder(self) -> str:
        """Say who holds the lock, such as `process 123` or `process 123 on node7`; useful when `acquire` said no."""
        try:
            pid, host = self._pid.read_text().split()
        except (OSError, ValueError):  # it may be leaving this moment
            return "an unknown process"
        return f"process {pid}" if host == socket.gethostname() else f"process {pid} on {host}"


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a folder, made where missing, for this process alone.

    Raises:
        LockedError: at once, where another process holds it.
        OSError: the folder cannot be written.
    """
    lock = ProgramLock(folder / ".lock")
    if not lock.acquire():
        raise LockedError(f"{folder} is in use by {lock.holder()}: wait for it, or use another workdir")
    try:
        yield
    finally:
        lock.release()
