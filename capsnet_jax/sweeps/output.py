"""Lines for a person, which never end what they tell of."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line to `stream` (standard output if None); see `while_it_lasts`."""
    with while_it_lasts(stream):
        print(text, file=stream, flush=True)


@contextlib.contextmanager
def while_it_lasts(stream: TextIO | None = None) -> Iterator[None]:
    """Go on without a stream that can no longer be written to, for training is worth more than its lines.

    The reader of a pipe may have left (`| head -1`), the terminal may be closed, the disk full. From then on the stream
    leads nowhere. What is left in its buffer goes there too, so that Python can exit with the code that was meant.
    Standard error says so, except where a reader has left, who wants no more.
    """
    stream = stream or sys.stdout
    try:
        yield
    except OSError as error:
        with contextlib.suppress(OSError):  # no file at all
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        if stream is not sys.stderr and not isinstance(error, BrokenPipeError):
            say(f"standard output: {error.strerror}; going on without it", sys.stderr)
