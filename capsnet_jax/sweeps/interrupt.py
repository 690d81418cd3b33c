"""SIGINT, SIGTERM and SIGHUP as a request that a training loop polls, saves and leaves on."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

# Ctrl-C; what ends a job; a terminal that is closed, which Windows does not tell.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
SAVING = "stopping after the current steps and saving; again to leave at once"
LEAVING = (signal.SIGINT, signal.SIGTERM)  # at once, when sent a second time


class Interrupted(Exception):  # noqa: N818 - what happened, not an error
    """A run was asked to stop, has saved and left; `exit_code` is the shell's, 128 + signal number."""

    def __init__(self, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name}; the same command continues")
        self.signum = signum
        self.exit_code = 128 + signum


@contextlib.contextmanager
def stop_requested(announcement: str = SAVING) -> Iterator[Callable[[], int | None]]:
    """Catch SIGINT, SIGTERM and SIGHUP; yield a callable that returns the first one received, or None.

    The first one is answered by the `announcement`, a line on stderr.

    A second signal of the same kind ends the process at once, by the system's default action. Not so SIGHUP, which a
    closed terminal sends twice: itself and through its shell. A signal that is ignored already stays ignored, as
    `nohup` and shells that start jobs in the background want it.

    Python runs handlers only between bytecodes. During a long compilation two signals would wait, and then count as
    one. So a thread reads the signals from Python's wakeup descriptor and counts them too; it prints the line about the
    first one (https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd).

    Off the main thread, where Python allows no handlers, nothing is caught and the callable returns None.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    received: list[int] = []

    def handle(signum: int, _frame: object) -> None:
        received.append(signum)
        if signum in LEAVING:
            signal.signal(signum, signal.SIG_DFL)

    reader, writer = socket.socketpair()
    writer.setblocking(False)
    watcher = threading.Thread(target=_watch, args=(reader, announcement), daemon=True)
    watcher.start()
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    heeded = [signum for signum in SIGNALS if signal.getsignal(signum) != signal.SIG_IGN]
    handlers = {signum: signal.signal(signum, handle) for signum in heeded}
    try:
        yield lambda: received[0] if received else None
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(wakeup)
        writer.close()
        watcher.join()
        reader.close()


def check(stop: Callable[[], int | None]) -> None:
    """Leave between two steps of work that lose nothing, if `stop` says so.

    Raises:
        Interrupted: a signal was received.
    """
    if signum := stop():
        raise Interrupted(signum)


def _watch(reader: socket.socket, announcement: str) -> None:
    """Announce the first signal, end the process on a repeated one, return when the other side closes."""
    received: set[int] = set()
    while byte := reader.recv(1):
        signum = byte[0]
        if signum in received and signum in LEAVING:
            os._exit(128 + signum)
        if signum in SIGNALS:
            if not received:
                print(announcement, file=sys.stderr, flush=True)
            received.add(signum)
