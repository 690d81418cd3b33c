"""Standard output that never ends what it tells of."""

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any


def protect_output() -> Callable[[], OSError | None]:
    """Keep stdout and stderr from ending a task: full, closed, or in an encoding that lacks some letters.

    Training is worth more than its lines. What cannot be written is lost, and the task goes on in silence: the reader
    of a pipe may have left (`| head -1`), the terminal may be closed, the disk full.

    Returns:
        A function that returns what went wrong with stdout; None if nothing did, or if its reader left.
    """
    opened = []
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        raw = _Output(os.devnull if stream is None else descriptor, "w", closefd=stream is None)
        opened.append(raw)
        encoding = "utf-8" if stream is None else stream.encoding
        setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(raw), encoding, "replace", line_buffering=True))

    def failure() -> OSError | None:
        sys.stdout.flush()
        error = opened[0].error
        return None if error is None or error.errno == errno.EPIPE else error

    return failure


def hide_stdout(*, ours: bool) -> None:
    """Let what libraries print to standard output go nowhere, and our own lines too if `ours`; after `protect_output`.

    Where processes share a batch, Gloo prints a line that nothing turns off.
    """
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, _Output):
        sys.stdout.flush()
        io.FileIO.__init__(raw, os.devnull if ours else os.dup(1), "w")
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)


class _Output(io.FileIO):
    """A stream that never fails; it keeps the first error."""

    error: OSError | None = None

    def write(self, data: Any) -> int | None:  # type: ignore[override]
        """Write, or lose what does not go."""
        if self.error is None:
            try:
                return super().write(data)
            except OSError as error:
                self.error = error
        return len(data)
