import os
import subprocess
import sys

import pytest

from capsnet_jax.training import program_cache
from capsnet_jax.training.program_cache import CheckedCache

PROGRAM = """
import sys, jax
from capsnet_jax.training.program_cache import enable_compilation_cache
enable_compilation_cache()
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
print(float(jax.jit(lambda x: (x * x).sum())(jax.numpy.arange(4.0))))
print(hits.count("/jax/compilation_cache/cache_hits"))
"""


def start(cache, **more):
    environment = {**os.environ, "CAPSNET_JAX_CACHE": str(cache), **more}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    value, hits = done.stdout.split()
    assert value == "14.0"
    return int(hits), done.stderr


def entries(folder):
    return sorted(path for path in folder.rglob("*-cache") if path.is_file())


@pytest.mark.slow
def test_a_second_start_finds_what_the_first_compiled_and_says_nothing(tmp_path):
    assert start(tmp_path) == (0, "")
    assert start(tmp_path) == (len(entries(tmp_path)), "")
    assert entries(tmp_path)
    assert {path.parent.stat().st_mode & 0o777 for path in entries(tmp_path)} == {0o700}


def test_an_entry_that_is_not_what_was_written_is_removed(tmp_path):
    cache = CheckedCache(str(tmp_path), max_size=-1)
    value, path = bytes(range(100)), tmp_path / "key-cache"
    cache.put("key", value)
    whole = path.read_bytes()
    flipped = [bytes([*whole[:i], whole[i] ^ 1, *whole[i + 1 :]]) for i in range(len(whole))]
    cut = [whole[:i] for i in range(len(whole))]
    for damaged in [*flipped, *cut, whole + b"x"]:
        path.write_bytes(damaged)
        assert cache.get("key") is None
        assert not path.exists()
        cache.put("key", value)
        assert cache.get("key") == value


@pytest.mark.slow
def test_a_start_replaces_what_is_damaged_and_says_nothing(tmp_path):
    start(tmp_path)
    written = {path: path.read_bytes() for path in entries(tmp_path)}
    for path, data in written.items():
        path.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
    assert start(tmp_path) == (0, "")
    assert entries(tmp_path) == sorted(written)
    assert start(tmp_path) == (len(written), "")


def test_below_the_folder_that_the_user_chose(tmp_path):
    """And beside what other programs have there."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "jit_other-cache").write_bytes(b"another program's")
    start(tmp_path / "ours", JAX_COMPILATION_CACHE_DIR=str(theirs), JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")
    assert not (tmp_path / "ours").exists()
    assert len(entries(theirs)) > 1
    assert (theirs / "jit_other-cache").read_bytes() == b"another program's"


@pytest.mark.slow
def test_where_no_folder_can_be_had_one_line_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    _, said = start(tmp_path / "file")
    assert said.startswith("warning: compiled programs are not cached, set CAPSNET_JAX_CACHE: ")
    assert said.count("\n") == 1


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="owners and modes are POSIX's")
def test_folders_of_others_are_refused(tmp_path, monkeypatch):
    program_cache._make_private(tmp_path / "new" / "deep")
    readable = tmp_path / "readable"
    readable.mkdir(mode=0o755)
    program_cache._make_private(readable)
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "new" / "deep", readable)] == [0o700, 0o700]
    shared = tmp_path / "shared"
    shared.mkdir()
    for mode in (0o770, 0o777, 0o702, 0o1777):
        shared.chmod(mode)
        with pytest.raises(PermissionError, match=r"^others may write to .*shared"):
            program_cache._make_private(shared)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(PermissionError, match="is another user's"):
        program_cache._make_private(readable)


def test_a_full_disk_is_told_once_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    cache = CheckedCache(str(tmp_path), max_size=-1)
    cache.put("one", b"program")
    assert cache.get("one") == b"program"
    assert cache.get("two") is None

    def full(value):
        (tmp_path / "two-cache").write_bytes(b"torn")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(program_cache, "_digest", full)
    cache.put("two", b"program")
    cache.put("two", b"program")
    assert not (tmp_path / "two-cache").exists()
    assert capsys.readouterr().err.count("No space left on device") == 1
