"""Several processes, mostly of several machines, that train the same runs together.

JAX spreads a program over the devices of all processes. All else goes by process 0, which every other one keeps a
connection to: process 0 decides and writes, the others follow. When a process dies its connection breaks, and then all
others end. JAX would notice too, but only after a while, and by aborting with pages of its insides.

Messages are JSON and bytes of arrays, so that whoever else connects can at worst disturb.
"""

import atexit
import contextlib
import json
import math
import os
import queue
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from capsnet_jax.config import ConfigError
from capsnet_jax.training.cluster import Member

JOIN_SECONDS = 300.0  # to wait for the other processes to come
ERROR_SECONDS = 5.0  # to wait for what explains an error better: a process that died, or the same mistake at process 0
POLL_SECONDS = 0.5
FIRST_BYTES = 2**16  # at most, of a first message, which may be anyone's
LOOPBACK = ("localhost", "127.0.0.1")

Explain = Callable[[Exception], tuple[int | None, str]]


class HostError(Exception):
    """The processes of a job do not find each other; the message names the remedy."""


class _Message(NamedTuple):
    """What goes over a connection.

    Attributes:
        kind: "value"; "signal", which a process got that is not the first; or "end", with exit code and line.
        value: whatever JSON can say.
        arrays: beside it.
    """

    kind: str
    value: Any
    arrays: list[np.ndarray]


class _Link:
    """The connection to one other process. A thread reads it, so that its end is noticed at any time."""

    def __init__(self, connection: socket.socket):
        self._connection = connection
        self._sending = threading.Lock()
        self._values: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self.signum: int | None = None  # that the other process got
        _notice_dead_machines(connection)

    def watch(self, on_end: Callable[[int, str], None], on_loss: Callable[[], None]) -> None:
        """Start to read, in a thread that calls either function when the other process ends."""

        def read() -> None:
            while True:
                try:
                    message = _receive(self._connection)
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
                    _send(self._connection, kind, value, arrays or [])
            finally:
                self._sending.release()

    def receive(self, poll: Callable[[], None]) -> _Message:
        """Wait for a value; `poll` is called from time to time."""
        while True:
            poll()
            with contextlib.suppress(queue.Empty):
                return self._values.get(timeout=POLL_SECONDS)


class Hosts:
    """This process among those that train together; alone if nothing is said."""

    def __init__(self, process: int = 0, links: Mapping[int, _Link] | None = None):
        """Name the process, and its links by the number of the process on the other side."""
        self.process = process
        self._links = dict(links or {})
        self._own_signal: Callable[[], int | None] = lambda: None
        self._told_signal = self._leaving = False
        for number, link in self._links.items():
            link.watch(self._on_end(number), self._on_loss(number))

    @property
    def others(self) -> bool:
        """Whether there are other processes."""
        return bool(self._links)

    def among(self, mesh: Mesh | None) -> "Hosts":
        """Return those of the processes that have devices of a mesh; this one must be among them."""
        members = set() if mesh is None else {device.process_index for device in mesh.devices.flat}
        part = Hosts(self.process)
        part._links = {number: link for number, link in self._links.items() if number in members}
        part._own_signal = self._own_signal
        return part

    def heed(self, stop: Callable[[], int | None]) -> Callable[[], int | None]:
        """Make `stop` that of all processes: process 0 learns of the signals of others, and decides."""
        if not self._links:
            return stop
        self._own_signal = stop
        if self.process:
            return stop
        return lambda: stop() or next((link.signum for link in self._links.values() if link.signum), None)

    def agree(self, value: Any = None) -> Any:
        """Return what process 0 says, which is JSON; what others give does not count."""
        if self.process:
            return self._receive(0).value
        for link in self._links.values():
            link.send("value", value)
        return value

    def broadcast(self, tree: PyTree) -> PyTree:
        """Return the arrays of process 0; those of others only tell the structure."""
        if not self._links:
            return tree
        if self.process:
            return jax.tree.unflatten(jax.tree.structure(tree), self._receive(0).arrays)
        tree = jax.device_get(tree)
        for link in self._links.values():
            link.send("value", None, jax.tree.leaves(tree))
        return tree

    def gather(self, tree: PyTree) -> PyTree:
        """Return arrays that are spread over the processes: whole at process 0, elsewhere as they were.

        All have to call it, in the same order as everything else here.
        """
        if not self._links:
            return tree
        leaves, structure = jax.tree.flatten(tree)
        own = [_own_shards(leaf) for leaf in leaves]
        if self.process:
            places = [[place for place, _ in shards] for shards in own]
            self._links[0].send("value", places, [data for shards in own for _, data in shards])
            return tree
        whole = [np.empty(leaf.shape, leaf.dtype) if _is_spread(leaf) else np.asarray(leaf) for leaf in leaves]
        for array, shards in zip(whole, own, strict=True):
            _fill(array, shards)
        for number in self._links:
            message = self._receive(number)
            arrays = iter(message.arrays)
            for array, places in zip(whole, message.value, strict=True):
                _fill(array, [(place, next(arrays)) for place in places])
        return jax.tree.unflatten(structure, whole)

    def everywhere(self, tree: PyTree) -> PyTree:
        """Return arrays that are spread over the processes, whole in each; it waits for all."""
        return self.broadcast(self.gather(tree))

    def end_others(self, code: int, line: str = "") -> None:
        """Let the others leave with an exit code and a line."""
        self._leaving = True
        for link in self._links.values():
            link.send("end", [code, line])

    def _receive(self, number: int) -> _Message:
        return self._links[number].receive(self._tell_signal)

    def _tell_signal(self) -> None:
        if self.process and not self._told_signal and (signum := self._own_signal()):
            self._told_signal = True
            self._links[0].send("signal", signum)

    def _on_end(self, number: int) -> Callable[[int, str], None]:
        def end(code: int, line: str) -> None:
            if not self.process:
                self.end_others(code)
                line = f"process {number} failed; its own line says why"
            _leave(code, line)

        return end

    def _on_loss(self, number: int) -> Callable[[], None]:
        def lose() -> None:
            if not self._leaving:
                line = f"process {number} is gone; the same command continues"
                if not self.process:
                    self.end_others(3, line)
                _leave(3, line)

        return lose


ALONE = Hosts()


@contextlib.contextmanager
def join(member: Member, explain: Explain) -> Iterator[Hosts]:
    """Find the other processes of a job, and start JAX with them; let all leave together.

    Only process 0 comes back from this. In the end it lets the others leave with its own exit code.

    Args:
        member: which process of which job this is.
        explain: from an exception to the exit code and the line that tells it; None where it is a fault of ours.

    Raises:
        ConfigError: the processes were not asked the same.
        HostError: some do not come, or the port is taken.
    """
    hosts = _connect(member)
    _start_jax(member, hosts)
    code = 4
    try:
        yield hosts
        code = 0
    except Exception as error:
        known, line = explain(error)
        code = 4 if known is None else known
        if member.process or known is None:
            time.sleep(ERROR_SECONDS)
        if member.process:
            if known is None:
                traceback.print_exc()
            hosts.end_others(code)
            _leave(code, f"process {member.process}: {' '.join(line.splitlines())}")
        raise
    finally:
        hosts.end_others(code)
        atexit.register(_leave, code, "")  # before JAX, which would wait for the others


def _connect(member: Member) -> Hosts:
    """Connect process 0 with all others.

    Raises:
        ConfigError, HostError: as `join`.
    """
    host, _, port = member.coordinator.rpartition(":")
    if member.process:
        return Hosts(member.process, {0: _Link(_call(member, host.strip("[]"), int(port)))})
    connections: dict[int, socket.socket] = {}
    try:
        with _listen(host, int(port)) as listener:
            _answer(member, listener, connections)
    except OSError as error:
        raise HostError(
            f"process 0 cannot listen at {member.coordinator} ({error.strerror}); name another port by --coordinator"
        ) from error
    except (ConfigError, HostError) as error:
        for connection in connections.values():
            _refuse(connection, error)
        raise
    for connection in connections.values():
        connection.settimeout(None)
        _send(connection, "value", None, [])
    return Hosts(0, {number: _Link(connections[number]) for number in sorted(connections)})


def _answer(member: Member, listener: socket.socket, connections: dict[int, socket.socket]) -> None:
    """Accept all other processes, and nobody else."""
    deadline, told = time.monotonic() + JOIN_SECONDS, False
    while len(connections) < member.processes - 1:
        listener.settimeout(1.0)
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            missing = f"{member.processes - 1 - len(connections)} of {member.processes} processes"
            if not told and time.monotonic() > deadline - JOIN_SECONDS + ERROR_SECONDS:
                print(f"waiting at {member.coordinator} for {missing}", flush=True)
                told = True
            if time.monotonic() > deadline:
                raise HostError(f"{missing} did not come to {member.coordinator} in {JOIN_SECONDS:.0f} s") from None
            continue
        connection.settimeout(ERROR_SECONDS)
        try:
            value = _receive(connection, FIRST_BYTES).value
            number, processes = int(value["process"]), int(value["processes"])
        except (OSError, ValueError, TypeError, KeyError):  # somebody else
            connection.close()
            continue
        mistake = ""
        if processes != member.processes:
            mistake = f"process {number} says --processes={processes}, process 0 says {member.processes}"
        elif number in (0, *connections):
            mistake = f"two processes say --process={number}; number them from 0 to {processes - 1}"
        if mistake:
            _refuse(connection, ConfigError(mistake))
            raise ConfigError(mistake)
        connections[number] = connection


def _refuse(connection: socket.socket, error: Exception) -> None:
    with contextlib.suppress(OSError):
        _send(connection, "end", [2 if isinstance(error, ConfigError) else 3, str(error)], [])


def _call(member: Member, host: str, port: int) -> socket.socket:
    """Connect to process 0, and wait until all others have come too."""
    deadline, told = time.monotonic() + JOIN_SECONDS, False
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=ERROR_SECONDS)
            connection.settimeout(JOIN_SECONDS + ERROR_SECONDS)
            _send(connection, "value", {"process": member.process, "processes": member.processes}, [])
            message = _receive(connection, FIRST_BYTES)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise HostError(
                    f"process 0 does not answer at {member.coordinator} ({error}); start it, or mend --coordinator"
                ) from error
            if not told and time.monotonic() > deadline - JOIN_SECONDS + ERROR_SECONDS:
                print(f"process {member.process}: waiting for process 0 at {member.coordinator}", file=sys.stderr)
                told = True
            time.sleep(POLL_SECONDS)
        except ValueError as error:
            raise HostError(f"at {member.coordinator} listens somebody else; name another port") from error
    if message.kind == "end":
        code, line = message.value
        raise (ConfigError if code == 2 else HostError)(line)
    connection.settimeout(None)
    return connection


def _listen(host: str, port: int) -> socket.socket:
    """Listen at the machine's own address, if that is meant, otherwise at all of its addresses."""
    if host in LOOPBACK:
        return socket.create_server(("127.0.0.1", port))
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _start_jax(member: Member, hosts: Hosts) -> None:
    """Let JAX see the devices of all processes."""
    host = member.coordinator.rpartition(":")[0].strip("[]")
    port = hosts.agree(_free_port())
    local = port if member.process == 0 else _tunnel(host, port)
    os.environ["no_grpc_proxy"] = "127.0.0.1"  # noqa: SIM112 - gRPC's name for it
    jax.config.update("jax_check_proxy_envs", False)
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        f"127.0.0.1:{local}",
        member.processes,
        member.process,
        local_device_ids=member.devices,
        cluster_detection_method="deactivate",
        initialization_timeout=int(JOIN_SECONDS),
        heartbeat_timeout_seconds=24 * 3600,  # a process that is gone is noticed by its connection
        coordinator_bind_address=f"{'127.0.0.1' if host in LOOPBACK else '[::]'}:{port}",
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _tunnel(host: str, port: int) -> int:
    """Return a port of this machine that leads to another's, and stays open when that is closed.

    JAX aborts a process as soon as its connection to process 0 breaks. So it never does, and we end in our own way.
    """
    listener, kept = socket.create_server(("127.0.0.1", 0)), []

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                target.sendall(data)

    def serve() -> None:
        while True:
            near, _ = listener.accept()
            try:
                far = socket.create_connection((host, port))
            except OSError:
                near.close()  # JAX tries again
                continue
            kept.append((near, far))
            for pair in ((near, far), (far, near)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


def _own_shards(leaf: Any) -> list[tuple[list[list[int]], np.ndarray]]:
    """Return what this process has of an array and no other one sends: where it belongs, and the numbers."""
    if not _is_spread(leaf):
        return []
    shards = [shard for shard in leaf.addressable_shards if shard.replica_id == 0]
    return [
        ([list(part.indices(size)[:2]) for part, size in zip(s.index, leaf.shape, strict=True)], np.asarray(s.data))
        for s in shards
    ]


def _is_spread(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and not leaf.is_fully_addressable


def _fill(array: np.ndarray, shards: list[tuple[list[list[int]], np.ndarray]]) -> None:
    for place, data in shards:
        array[tuple(slice(*bounds) for bounds in place)] = data


def _send(connection: socket.socket, kind: str, value: Any, arrays: list[np.ndarray]) -> None:
    arrays = [np.asarray(array, order="C") for array in arrays]
    about = [[array.dtype.name, list(array.shape)] for array in arrays]
    header = json.dumps([kind, value, about]).encode()
    connection.sendall(struct.pack("<Q", len(header)) + header)
    for array in arrays:
        connection.sendall(array.reshape(-1).view(np.uint8).data)


def _receive(connection: socket.socket, most: int = sys.maxsize) -> _Message:
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
    return _Message(
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


def _notice_dead_machines(connection: socket.socket) -> None:
    """Let a connection break within 20 s when the other machine is off, or the network is cut."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 20_000)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _leave(code: int, line: str) -> None:
    """End the process at once, whatever it waits for."""
    if line:
        print(line, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)
