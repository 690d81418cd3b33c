"""How the processes of a job find each other, start JAX together, and leave together."""

import atexit
import contextlib
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator

import jax

from capsnet_jax.config import ConfigError
from capsnet_jax.training.cluster import Member
from capsnet_jax.training.hosts import Hosts, leave
from capsnet_jax.training.link import Link, notice_dead_machines, receive, send

JOIN_SECONDS = 300.0  # to wait for the other processes to come
ERROR_SECONDS = 5.0  # to wait for what explains an error better: a process that died, or the same mistake at process 0
RETRY_SECONDS = 0.5
FIRST_BYTES = 2**16  # at most, of a first message, which may be anyone's
LOOPBACK = ("localhost", "127.0.0.1")

Explain = Callable[[Exception], tuple[int | None, str]]


class HostError(Exception):
    """The processes of a job do not find each other; the message names the remedy."""


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
            leave(code, f"process {member.process}: {' '.join(line.splitlines())}")
        raise
    finally:
        hosts.end_others(code)
        atexit.register(leave, code, "")  # before JAX, which would wait for the others


def _connect(member: Member) -> Hosts:
    """Connect process 0 with all others.

    Raises:
        ConfigError, HostError: as `join`.
    """
    host, _, port = member.coordinator.rpartition(":")
    if member.process:
        return Hosts(member.process, {0: Link(_call(member, host.strip("[]"), int(port)))})
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
        send(connection, "value", None, [])
    return Hosts(0, {number: Link(connections[number]) for number in sorted(connections)})


def _answer(member: Member, listener: socket.socket, connections: dict[int, socket.socket]) -> None:
    """Accept all other processes, and nobody else."""
    began, told = time.monotonic(), 0
    while missing := member.processes - 1 - sum(not _is_gone(each) for each in connections.values()):
        listener.settimeout(1.0)
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            who = f"{missing} of {member.processes} processes"
            if missing != told and time.monotonic() > began + ERROR_SECONDS:
                print(f"waiting at {member.coordinator} for {who}", flush=True)
                told = missing
            if time.monotonic() > began + JOIN_SECONDS:
                raise HostError(f"{who} did not come to {member.coordinator} in {JOIN_SECONDS:.0f} s") from None
            continue
        notice_dead_machines(connection)
        connection.settimeout(ERROR_SECONDS)
        try:
            value = receive(connection, FIRST_BYTES).value
            number, processes = int(value["process"]), int(value["processes"])
        except (OSError, ValueError, TypeError, KeyError):  # somebody else
            connection.close()
            continue
        if number in connections and _is_gone(connections[number]):  # that process has been started again
            connections.pop(number).close()
        mistake = ""
        if processes != member.processes:
            mistake = f"process {number} says --processes={processes}, process 0 says {member.processes}"
        elif number in connections or not 0 < number < processes:
            mistake = f"two processes say --process={number}; number them from 0 to {processes - 1}"
        if mistake:
            _refuse(connection, ConfigError(mistake))
            raise ConfigError(mistake)
        connections[number] = connection


def _is_gone(connection: socket.socket) -> bool:
    """Whether the process at the other end, which has nothing more to say, has ended."""
    try:
        connection.setblocking(False)
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(ERROR_SECONDS)


def _refuse(connection: socket.socket, error: Exception) -> None:
    with contextlib.suppress(OSError):
        send(connection, "end", [2 if isinstance(error, ConfigError) else 3, str(error)], [])


def _call(member: Member, host: str, port: int) -> socket.socket:
    """Connect to process 0, and wait until all others have come too."""
    deadline, told = time.monotonic() + JOIN_SECONDS, False
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=ERROR_SECONDS)
            notice_dead_machines(connection)
            connection.settimeout(JOIN_SECONDS + ERROR_SECONDS)
            send(connection, "value", {"process": member.process, "processes": member.processes}, [])
            message = receive(connection, FIRST_BYTES)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise HostError(
                    f"process 0 does not answer at {member.coordinator} ({error}); start it, or mend --coordinator"
                ) from error
            if not told and time.monotonic() > deadline - JOIN_SECONDS + ERROR_SECONDS:
                print(f"process {member.process}: waiting for process 0 at {member.coordinator}", file=sys.stderr)
                told = True
            time.sleep(RETRY_SECONDS)
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
