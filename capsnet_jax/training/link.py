"""The connection of two processes: JSON and bytes of arrays, so that whoever else connects can at worst disturb."""

import contextlib
import json
import math
import queue
import socket
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

POLL_SECONDS = 0.5


class Message(NamedTuple):
    """What goes over a connection.

    Attributes:
        kind: "value"; "signal", which a process got that is not the first; or "end", with exit code and line.
        value: whatever JSON can say.
        arrays: beside it.
    """

    kind: str
    value: Any
    arrays: list[np.ndarray]


class Link:
    """The connection to one other process. A thread reads it, so that its end is noticed at any time."""

    def __init__(self, connection: socket.socket):
        self._connection = connection
        self._sending = threading.Lock()
        self._values: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.signum: int | None = None  # that the other process got

    def watch(self, on_end: Callable[[int, str], None], on_loss: Callable[[], None]) -> None:
        """Start to read, in a thread that calls either function when the other process ends."""

        def read() -> None:
            while True:
                try:
                    message = receive(self._connection)
                except (OSError, ValueError):
                    return on_loss()
                if message.kind == "end":
                    return on_end(*message.value)
                if message.kind == "signal":
                    self.signum = message.value
                else:
                    self._values.put(message)

        threading.Thread(target=read, daemon=True).start()

    def send(self, kind: str, value: Any, arrays: list[np.ndarray] | None = None) -> None:
        """Send a message; of a connection that is broken the reading thread tells."""
        if self._sending.acquire(timeout=1.0 if kind == "end" else -1):
            try:
                with contextlib.suppress(OSError):
                    send(self._connection, kind, value, arrays or [])
            finally:
                self._sending.release()

    def receive(self, poll: Callable[[], None]) -> Message:
        """Wait for a value; `poll` is called from time to time."""
        while True:
            poll()
            with contextlib.suppress(queue.Empty):
                return self._values.get(timeout=POLL_SECONDS)


def send(connection: socket.socket, kind: str, value: Any, arrays: list[np.ndarray]) -> None:
    """Write a message."""
    arrays = [np.asarray(array, order="C") for array in arrays]
    about = [[array.dtype.name, list(array.shape)] for array in arrays]
    header = json.dumps([kind, value, about]).encode()
    connection.sendall(struct.pack("<Q", len(header)) + header)
    for array in arrays:
        connection.sendall(array.reshape(-1).view(np.uint8).data)


def receive(connection: socket.socket, most: int = sys.maxsize) -> Message:
    """Read a message.

    Raises:
        OSError: the connection broke.
        ValueError: it is no message, or has more bytes than `most`.
    """
    (size,) = struct.unpack("<Q", _read(connection, 8))
    if size > most:
        raise ValueError("no message of ours")
    kind, value, about = json.loads(bytes(_read(connection, size)))
    sized = [(jax.numpy.dtype(name), shape) for name, shape in about]
    if sum(dtype.itemsize * math.prod(shape) for dtype, shape in sized) > most:
        raise ValueError("no message of ours")
    return Message(
        kind,
        value,
        [
            np.frombuffer(_read(connection, dtype.itemsize * math.prod(shape)), dtype).reshape(shape)
            for dtype, shape in sized
        ],
    )


def _read(connection: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = connection.recv_into(view)
        if not count:
            raise ConnectionResetError("the other side closed")
        view = view[count:]
    return data


def notice_dead_machines(connection: socket.socket) -> None:
    """Let a connection break within 20 s when the other machine is off, or the network is cut."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 20_000)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
