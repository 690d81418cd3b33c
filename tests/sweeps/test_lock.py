import os
import subprocess
import sys

import pytest

from capsnet_jax.sweeps.lock import LockedError, exclusive

HOLDER = """
import pathlib, sys, time
from capsnet_jax.sweeps.lock import exclusive
with exclusive(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
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
    assert (tmp_path / ".lock.pid").read_text() == f"{holder.pid}\n"
    with exclusive(tmp_path):
        assert (tmp_path / ".lock.pid").read_text() == f"{os.getpid()}\n"


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
        pytest.raises(LockedError, match=r"file cannot be locked .*use another workdir"),
        exclusive(tmp_path / "file"),
    ):
        pass
