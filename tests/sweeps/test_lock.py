import os
import shutil
import socket
import subprocess
import sys

import pytest

from capsnet_jax.sweeps.lock import LockedError, ProgramLock, exclusive

HOLDER = """
import pathlib, sys, time
from capsnet_jax.sweeps.lock import exclusive
with exclusive(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_another_process_is_refused_and_sigkill_frees(holder, tmp_path):
    for _ in range(2):  # the first refusal leaves the lock and the holder's name as they are
        with pytest.raises(LockedError) as refusal, exclusive(tmp_path):
            pass
        assert str(tmp_path) in str(refusal.value)
        assert f"process {holder.pid}:" in str(refusal.value)
        assert "\n" not in str(refusal.value)
    holder.kill()
    holder.wait()
    assert (tmp_path / ".lock").exists()
    assert (tmp_path / ".lock.pid").read_text() == f"{holder.pid} {socket.gethostname()}\n"
    with exclusive(tmp_path):
        assert (tmp_path / ".lock.pid").read_text() == f"{os.getpid()} {socket.gethostname()}\n"


def test_stale_files_do_not_block(tmp_path):
    (tmp_path / ".lock").write_text("stale")
    (tmp_path / ".lock.pid").write_text("1\n")
    with exclusive(tmp_path):
        pass


def test_same_process_is_refused_and_leaving_frees(tmp_path):
    folder = tmp_path / "made" / "where missing"
    with exclusive(folder), pytest.raises(LockedError, match=f"process {os.getpid()}:"), exclusive(folder):
        pass
    with pytest.raises(ZeroDivisionError), exclusive(folder):
        raise ZeroDivisionError
    with exclusive(folder):
        pass


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(FileExistsError, match="file"),
        exclusive(tmp_path / "file"),
    ):
        pass


PROGRAM = """
import pathlib, sys, time
from capsnet_jax.sweeps.lock import ProgramLock
lock = ProgramLock(pathlib.Path(sys.argv[1]))
print(lock.acquire(), flush=True)
time.sleep(60)
"""


def test_program_lock_is_refused_until_its_process_is_killed(tmp_path):
    path = tmp_path / "programs/made where missing/lock"
    with subprocess.Popen([sys.executable, "-c", PROGRAM, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "True\n"
        lock = ProgramLock(path)
        for _ in range(2):  # the first refusal changes nothing
            assert not lock.acquire()
            assert lock.holder() == f"process {process.pid}"
        process.kill()
    assert lock.acquire()
    assert lock.holder() == f"process {os.getpid()}"
    lock.release()


def test_program_locks_of_one_process_exclude_each_other(tmp_path):
    first, second = ProgramLock(tmp_path / "lock"), ProgramLock(tmp_path / "lock")
    other = ProgramLock(tmp_path / "other")
    assert first.acquire()
    assert first.acquire()  # it holds it already
    assert not second.acquire()
    assert other.acquire()
    second.release()  # it holds nothing
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()
    other.release()


def test_a_finished_program_can_be_removed_with_its_lock(tmp_path):
    folder = tmp_path / "program"
    lock, late = ProgramLock(folder / "lock"), ProgramLock(folder / "lock")
    assert lock.acquire()
    assert not late.acquire()
    shutil.rmtree(folder)
    lock.release()
    assert late.acquire()
    assert not ProgramLock(folder / "lock").acquire()
    late.release()


@pytest.mark.parametrize(
    ("text", "holder"),
    [
        ("12 elsewhere.example\n", "process 12 on elsewhere.example"),
        ("", "an unknown process"),
        (None, "an unknown process"),
    ],
)
def test_holder_on_another_machine_or_unknown(tmp_path, text, holder):
    if text is not None:
        (tmp_path / "lock.pid").write_text(text)
    assert ProgramLock(tmp_path / "lock").holder() == holder
