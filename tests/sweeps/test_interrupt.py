import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from capsnet_jax.sweeps.interrupt import SIGNALS, Interrupted, check, stop_requested

LOOP = """
import sys, time
from capsnet_jax.sweeps.interrupt import Interrupted, stop_requested
try:
    with stop_requested() as stop:
        print("ready", flush=True)
        while not stop():
            time.sleep(0.01)
        print("stopping", flush=True)
        time.sleep(float(sys.argv[1]))
        raise Interrupted(stop())
except Interrupted as interrupted:
    print("saved", flush=True)
    sys.exit(interrupted.exit_code)
"""

# A main thread that stays in C for a minute without the lock of the interpreter, as a compilation does.
COMPILES = """
import hashlib
from capsnet_jax.sweeps.interrupt import stop_requested
with stop_requested():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha512", b"", b"", 2**31 - 1)
"""

ANNOUNCEMENT = "stopping after the current steps and saving; again to leave at once\n"


def start(code: str, *args: str, command: tuple[str, ...] = ()) -> subprocess.Popen:
    command = [*command, sys.executable, "-c", code, *args]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_first_signal_lets_the_loop_leave(signum):
    process = start(LOOP, "0")
    process.send_signal(signum)
    out, err = process.communicate(timeout=10)
    assert (out, err) == ("stopping\nsaved\n", ANNOUNCEMENT)
    assert process.returncode == 128 + signum


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_leaves_at_once(signum):
    process = start(LOOP, "60")
    process.send_signal(signum)
    assert process.stdout.readline() == "stopping\n"
    assert process.stderr.readline() == ANNOUNCEMENT
    process.send_signal(signum)
    assert process.communicate(timeout=10) == ("", "")
    assert process.returncode == -signum


def test_second_signal_leaves_at_once_during_a_compilation():
    process = start(COMPILES)
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == ANNOUNCEMENT
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    # by the watcher, or by the default action where the first came just before the compilation
    assert process.wait(timeout=10) in (128 + signal.SIGINT, -signal.SIGINT)


def test_a_terminal_that_is_closed_says_so_twice():
    """Standard error is gone by then too; what is to be saved is saved."""
    process = start(LOOP, "0.5")
    process.stderr.close()
    for _ in range(2):
        process.send_signal(signal.SIGHUP)
        time.sleep(0.05)
    assert process.stdout.read() == "stopping\nsaved\n"
    assert process.wait(timeout=10) == 128 + signal.SIGHUP


@pytest.mark.parametrize("name", ["HUP", "INT"])
def test_what_is_ignored_from_the_start_stays_ignored(name):
    """As under nohup, and in the background of a shell without job control."""
    process = start(LOOP, "0", command=("sh", "-c", f'trap \'\' {name}; exec "$0" "$@"'))
    process.send_signal(getattr(signal, f"SIG{name}"))
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=10) == ("stopping\nsaved\n", ANNOUNCEMENT)
    assert process.returncode == 128 + signal.SIGTERM


def test_check_leaves_if_a_signal_came():
    check(lambda: None)
    with pytest.raises(Interrupted, match="stopped by SIGHUP"):
        check(lambda: signal.SIGHUP)


def test_signal_of_another_kind_does_not_leave(capfd):
    with stop_requested() as stop:
        assert stop() is None
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert stop() == signal.SIGTERM
    assert capfd.readouterr().err == ANNOUNCEMENT


def test_everything_is_put_back():
    handlers = [signal.getsignal(s) for s in SIGNALS]
    threads = set(threading.enumerate())
    with contextlib.suppress(ZeroDivisionError), stop_requested() as stop:
        assert signal.getsignal(signal.SIGINT) != handlers[0]
        os.kill(os.getpid(), signal.SIGINT)
        raise ZeroDivisionError
    assert stop() == signal.SIGINT
    assert [signal.getsignal(s) for s in SIGNALS] == handlers
    assert signal.set_wakeup_fd(-1) == -1
    assert set(threading.enumerate()) <= threads


def test_off_the_main_thread_nothing_is_caught():
    caught = []

    def run():
        with stop_requested() as stop:
            caught.extend([stop(), signal.getsignal(signal.SIGINT)])

    handler = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert caught == [None, handler]


def test_exit_code_and_message():
    interrupted = Interrupted(signal.SIGTERM)
    assert (interrupted.signum, interrupted.exit_code) == (15, 143)
    assert str(interrupted) == "stopped by SIGTERM; the same command continues"
