"""SIGINT and SIGTERM as a request that a training loop polls, saves and leaves on."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):  # noqa: N818 - what happened, not an error
    """A run was asked to stop, has saved and left; `exit_code` is the shell's, 128 + signal number."""

    def __init__(self, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name}; the same command continues")
        self.signum = signum
        self.exit_code = 128 + signum


@contextlib.contextmanager
def stop_requested() -> Iterator[Callable[[], int | None]]:
    """Catches SIGINT and SIGTERM; yields a callable that tells the first one received, or None.

    A second signal of the same kind leaves at once, by the system's default action. Python runs handlers only
    between bytecodes, so during a long compilation both signals would wait and count as one; a thread that
    Python's wakeup descriptor feeds therefore counts them too, and is what announces the first
    (https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd).

    Off the main thread, where Python allows no handlers, nothing is caught and the callable returns None.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    received: list[int] = []

    def handle(signum: int, _frame: object) -> None:
        received.append(signum)
        signal.signal(signum, signal.SIG_DFL)

    reader, writer = socket.socketpair()
    writer.setblocking(False)
    watcher = threading.Thread(target=_watch, args=(reader,), daemon=True)
    watcher.start()
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    handlers = {signum: signal.signal(signum, handle) for signum in SIGNALS}
    try:
        yield lambda: received[0] if received else None
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(wakeup)
        writer.close()
        watcher.join()
        reader.close()


def _watch(reader: socket.socket) -> None:
    """Announces the first signal, leaves on a repeated one, ends when the other side closes."""
    seen: set[int] = set()
    while byte := reader.recv(1):
        signum = byte[0]
        if signum in seen:
            os._exit(128 + signum)
        if signum in SIGNALS:
            if not seen:
                print(
                    "stopping after the current steps and saving; again to leave at once",
                    file=sys.stderr,
                    flush=True,
                )
            seen.add(signum)
