"""One process a workdir."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import filelock


class LockedError(Exception):
    """Another process works in the folder, or it cannot be locked; the message names folder and remedy."""


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Holds a folder, made where missing, for this process alone.

    The lock is the kernel's: it ends with its process, however that ends, and a `.lock` that is left means
    nothing. The holder's process id stands in a file of its own: older filelocks empty a lock file that they
    fail to get.

    Raises:
        LockedError: at once, where another process holds it, or where the folder cannot be written.
    """
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    pid = folder / ".lock.pid"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        pid.write_text(f"{os.getpid()}\n")
    except filelock.Timeout:
        holder = "unknown"
        with contextlib.suppress(OSError):  # it may be leaving this moment
            holder = pid.read_text().strip()
        raise LockedError(f"{folder} is in use by process {holder}: wait for it, or use another workdir") from None
    except OSError as error:
        lock.release()
        raise LockedError(f"{folder} cannot be locked ({error}): use another workdir") from error
    try:
        yield
    finally:
        pid.unlink(missing_ok=True)
        lock.release()
