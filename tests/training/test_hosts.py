import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.config import ConfigError
from capsnet_jax.training import hosts, join, link
from capsnet_jax.training.cluster import Member
from capsnet_jax.training.hosts import ALONE
from capsnet_jax.training.join import HostError


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def connect(*members: tuple[int, int]) -> list:
    """What each process gets of connecting, its `Hosts` or an error; a member is what it says: how many, and which."""
    port = free_port()

    def one(processes: int, process: int):
        try:
            return join._connect(Member(f"localhost:{port}", processes, process))
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(members)) as pool:
        return list(pool.map(one, *zip(*members, strict=True)))


def knock(port: int) -> socket.socket:
    """Connect to process 0, as soon as it listens."""
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except OSError:
            time.sleep(0.05)


@pytest.fixture
def three(monkeypatch):
    """Three processes that are connected, the first one first; none leaves."""
    monkeypatch.setattr(hosts, "leave", lambda code, line: None)
    monkeypatch.setattr(link, "POLL_SECONDS", 0.01)
    found = connect((3, 0), (3, 2), (3, 1))
    return sorted(found, key=lambda each: each.process)


@pytest.mark.parametrize("others", [(1, 2), (2, 1)])
def test_a_process_that_is_started_again_takes_its_own_place(monkeypatch, others):
    """Whether it is back before all are there, or last."""
    left = []
    monkeypatch.setattr(hosts, "leave", lambda code, line: left.append(line))
    monkeypatch.setattr(join, "JOIN_SECONDS", 20.0)
    port = free_port()
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(join._connect, Member(f"localhost:{port}", 3, 0))
        gone = knock(port)
        link.send(gone, "value", {"process": 1, "processes": 3}, [])
        gone.close()
        found = [first]
        for process in others:
            found.append(pool.submit(join._connect, Member(f"localhost:{port}", 3, process)))
            time.sleep(0.5)
        assert [each.result(20).process for each in found] == [0, *others]
    assert not left


def test_all_agree_on_what_the_first_says(three):
    said = ["a", None, 1.5, True, float("inf")]
    assert three[0].agree(said) == said
    assert [each.agree("else") for each in three[1:]] == [said, said]


def test_arrays_come_equal_to_the_bit(three):
    values = [
        np.float32([[-0.0, np.nan, 1e-45], [np.inf, 1, 2]]),
        np.float32(3),
        np.zeros((0, 3), np.int32),
        np.array([True, False]),
        np.asarray(jnp.bfloat16([1.5, -0.0])),
        np.arange(6, dtype=np.uint8).reshape(2, 3).T,
    ]
    three[0].broadcast(dict(enumerate(values)))
    for each in three[1:]:
        got = each.broadcast(dict.fromkeys(range(len(values)), 0))
        for value, array in zip(values, got.values(), strict=True):
            assert (array.dtype, array.shape) == (value.dtype, value.shape)
            assert array.tobytes() == np.asarray(value).tobytes()


def test_the_first_learns_of_a_signal_that_another_got(three):
    stop = three[0].heed(lambda: None)
    assert stop() is None
    three[2].heed(lambda: 15)
    three[0].agree("go on")
    three[2].agree()  # it tells when it waits
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(three[2].agree)
        while stop() is None:
            pass
        three[0].agree("stop")
        assert (stop(), waiting.result()) == (15, "stop")


def test_who_leaves_says_its_own_line_though_the_first_already_ends_all(monkeypatch, three):
    left = []
    monkeypatch.setattr(hosts, "leave", lambda code, line: left.append((code, line)))
    three[1].end_others(2)
    three[1]._on_end(0)(5, "")  # as the first answers, before the line is printed
    assert (5, "") not in left
    while len(left) < 2:
        time.sleep(0.01)
    assert sorted(left) == [(2, ""), (2, "process 1 failed; its own line says why")]  # process 2 and the first


def test_alone_there_is_nothing_to_wait_for():
    tree = {"a": np.ones(2)}
    assert ALONE.agree(3) == 3
    assert ALONE.gather(tree) is ALONE.broadcast(tree) is ALONE.everywhere(tree) is tree


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the options have other names")
def test_a_machine_without_power_is_noticed_within_30_s(three):
    """The kernel's, as no test takes the power away: idle, and then some probes that nobody answers."""
    for each in three:
        for connection in [one._connection for one in each._links.values()]:
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            idle, interval, count = (connection.getsockopt(socket.IPPROTO_TCP, name) for name in names)
            assert idle + interval * count <= 30
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 30_000


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (((2, 0), (3, 1)), "process 1 says --processes=3, process 0 says 2"),
        (((3, 0), (3, 1), (3, 1)), "two processes say --process=1; number them from 0 to 2"),
    ],
)
def test_processes_that_do_not_fit_are_told_all(members, message):
    found = connect(*members)
    assert [type(each) for each in found] == [ConfigError] * len(members)
    assert {str(each) for each in found} == {message}


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"localhost:{taken.getsockname()[1]}"
        with pytest.raises(HostError, match=f"process 0 cannot listen at {where} .*in use.*by --coordinator"):
            join._connect(Member(where, 2, 0))


def test_who_does_not_come_is_waited_for_only_so_long(monkeypatch, capfd):
    monkeypatch.setattr(join, "JOIN_SECONDS", 0.1)
    where = f"localhost:{free_port()}"
    with pytest.raises(HostError, match=f"1 of 2 processes did not come to {where}"):
        join._connect(Member(where, 2, 0))
    with pytest.raises(HostError, match=f"process 0 does not answer at {where}"):
        join._connect(Member(where, 2, 1))


@pytest.mark.parametrize("greeting", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x02" + 7 * b"\0" + b"{}", b"\xff" * 64])
def test_strangers_are_not_let_in(monkeypatch, greeting):
    monkeypatch.setattr(hosts, "leave", lambda code, line: None)
    monkeypatch.setattr(join, "ERROR_SECONDS", 1.0)
    port = free_port()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(join._connect, Member(f"localhost:{port}", 2, 0))
        with knock(port) as stranger:
            stranger.sendall(greeting)
            second = pool.submit(join._connect, Member(f"localhost:{port}", 2, 1))
            assert first.result().agree(7) == second.result().agree() == 7


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The leaves of each case of `two_hosts`, by one process and by two."""
    folder, port = tmp_path_factory.mktemp("hosts"), str(free_port())
    environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    line = [sys.executable, "-m", "tests.training.two_hosts"]
    subprocess.run([*line, folder / "one.npz"], check=True, env=environment)
    processes = [subprocess.Popen([*line, folder / "two.npz", port, str(i)], env=environment) for i in (0, 1)]
    assert [process.wait(timeout=600) for process in processes] == [0, 0]
    leaves = {}
    for name in ("one", "two"):
        with np.load(folder / f"{name}.npz") as arrays:
            for leaf in arrays.files:
                leaves.setdefault((name, leaf.rpartition("/")[0]), []).append(arrays[leaf])
    return leaves


@pytest.mark.slow
def test_runs_spread_over_two_processes_are_equal_to_the_bit(found):
    for leaf, expected in zip(found["two", "2 runs"], found["one", "2 runs"], strict=True):
        np.testing.assert_array_equal(leaf, expected)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["1 run", "batch norm"])
def test_two_processes_that_share_batches_lead_to_the_same_within_rounding(found, case):
    for leaf, expected in zip(found["two", case], found["one", case], strict=True):
        np.testing.assert_allclose(leaf, expected, rtol=1e-5, atol=1e-5)
