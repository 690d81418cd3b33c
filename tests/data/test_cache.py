import errno
import fcntl
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from capsnet_jax.data import Examples, RawDataset, affnist, cache, folder
from capsnet_jax.data.cache import cached, default_dir
from capsnet_jax.data.tfds import source, viewpoints

IDENTITY = {"name": "set/1.0.0"}


def raw_dataset(seed=0, multi_hot=False):
    random = np.random.default_rng(seed)

    def examples(count):
        images = random.integers(0, 256, (count, 4, 4, 1), dtype=np.uint8)
        if multi_hot:
            return Examples(images, random.integers(0, 2, (count, 3), dtype=np.uint8))
        return Examples(images, random.integers(0, 3, count, dtype=np.int32))

    return RawDataset(("a", "b", "ç"), train=examples(6), test=examples(3))


def assert_same(one, other):
    assert one.label_names == other.label_names
    assert list(one.splits) == list(other.splits)
    for left, right in zip(one.splits.values(), other.splits.values(), strict=True):
        for mine, yours in zip(left, right, strict=True):
            assert mine.dtype == yours.dtype
            np.testing.assert_array_equal(mine, yours)


class Build:
    """Count how often the raw dataset had to be built."""

    def __init__(self, seed=0):
        self.calls, self.seed = 0, seed

    def __call__(self):
        self.calls += 1
        return raw_dataset(self.seed)


def test_built_once_then_read(tmp_path):
    build = Build()
    path = tmp_path / "deep" / "set.npz"
    for _ in range(3):
        assert_same(cached(path, IDENTITY, build), raw_dataset())
    assert build.calls == 1
    assert list(path.parent.iterdir()) == [path]  # no temporary file stays


def test_multi_hot_labels_are_read_as_they_were_written(tmp_path):
    raw = raw_dataset(multi_hot=True)
    cached(tmp_path / "set.npz", IDENTITY, lambda: raw)
    assert_same(cached(tmp_path / "set.npz", IDENTITY, Build()), raw)


def test_a_validation_split_is_read_as_it_was_written(tmp_path):
    raw = raw_dataset()._replace(validation=raw_dataset(seed=5).test)
    cached(tmp_path / "set.npz", IDENTITY, lambda: raw)
    assert_same(cached(tmp_path / "set.npz", IDENTITY, Build()), raw)


def test_no_flipped_bit_is_ever_trusted(tmp_path):
    path = tmp_path / "set.npz"
    cached(path, IDENTITY, Build())
    content = path.read_bytes()
    rebuilt = 0
    for position in range(0, len(content), 5):
        flipped = content[position] ^ (1 << position % 8)
        path.write_bytes(content[:position] + bytes([flipped]) + content[position + 1 :])
        build = Build()
        assert_same(cached(path, IDENTITY, build), raw_dataset())  # rebuilt or not, it is right
        rebuilt += build.calls
    assert rebuilt > len(content) / 5 / 2


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:-1], lambda b: b"", lambda b: b"x" * 100])
def test_a_truncated_or_foreign_file_is_rebuilt(damage, tmp_path):
    path = tmp_path / "set.npz"
    cached(path, IDENTITY, Build())
    path.write_bytes(damage(path.read_bytes()))
    build = Build()
    assert_same(cached(path, IDENTITY, build), raw_dataset())
    assert_same(cached(path, IDENTITY, build), raw_dataset())
    assert build.calls == 1


def test_another_version_or_format_is_rebuilt(tmp_path, monkeypatch):
    path = tmp_path / "set.npz"
    cached(path, IDENTITY, Build())
    newer = Build(seed=1)
    assert_same(cached(path, {"name": "set/2.0.0"}, newer), raw_dataset(1))
    monkeypatch.setattr(cache, "_FORMAT", -1)
    assert_same(cached(path, {"name": "set/2.0.0"}, newer), raw_dataset(1))
    assert newer.calls == 2


def test_what_other_code_made_is_rebuilt(tmp_path, monkeypatch):
    (tmp_path / "code").mkdir()
    for name in ("one.py", "other.py"):
        (tmp_path / "code" / name).write_text("x = 1")
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "code" / "cache.py"))
    build = Build()
    for calls, content in ((1, "x = 1"), (1, "x = 1"), (2, "x = 2"), (2, "x = 2")):
        (tmp_path / "code" / "other.py").write_text(content)
        assert_same(cache.cached_in(tmp_path, "set.npz", IDENTITY, build, ("one.py", "other.py")), raw_dataset())
        assert build.calls == calls


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (folder, {"picture", "split"}),
        (affnist, {"pairs"}),
        (source, {"decode", "split"}),
        (viewpoints, {"viewpoints", "decode", "split"}),
    ],
)
def test_sets_that_are_cached_say_which_code_makes_them(module, names):
    assert names <= {Path(file).stem for file in module.MADE_BY}
    assert all((Path(cache.__file__).parent / file).is_file() for file in module.MADE_BY)


def test_without_a_writable_folder_there_is_a_warning_and_no_cache(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    build = Build()
    for _ in range(2):
        assert_same(cached(tmp_path / "file" / "set.npz", IDENTITY, build), raw_dataset())
    assert build.calls == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("warning:") for line in lines)


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(cache.np, "savez", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path / "set.npz", IDENTITY, Build())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_costs_the_cache_and_no_more(tmp_path, monkeypatch, capsys):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.np, "savez", full)
    assert_same(cached(tmp_path / "set.npz", IDENTITY, Build()), raw_dataset())
    assert list(tmp_path.iterdir()) == []
    assert "No space left" in capsys.readouterr().err


KILLED = """
import os, signal, sys
from pathlib import Path
from capsnet_jax.data import cache
from tests.data.test_cache import IDENTITY, raw_dataset
cache.np.savez = lambda file, **arrays: (file.write(b"half"), file.flush(), os.kill(os.getpid(), signal.SIGKILL))
cache.cached(Path(sys.argv[1]), IDENTITY, raw_dataset)
"""


def test_what_a_killed_process_left_is_removed_but_not_what_another_one_writes(tmp_path):
    path = tmp_path / "set.npz"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=Path(__file__).parents[2], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [left.read_bytes() for left in tmp_path.iterdir()] == [b"half"]
    others = tmp_path / "set.npz.0123.tmp"
    with others.open("xb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert_same(cached(path, IDENTITY, Build()), raw_dataset())
    assert set(tmp_path.iterdir()) == {path, others}


def test_no_link_is_followed(tmp_path, monkeypatch, capsys):
    victim, path = tmp_path / "victim", tmp_path / "cache" / "set.npz"
    path.parent.mkdir()
    victim.write_text("precious")
    monkeypatch.setattr(cache.secrets, "token_hex", lambda count: "guessed")
    monkeypatch.setattr(cache, "_remove_unfinished", lambda path: None)
    path.with_name("set.npz.guessed.tmp").symlink_to(victim)
    assert_same(cached(path, IDENTITY, Build()), raw_dataset())
    assert capsys.readouterr().err.startswith("warning:")
    path.symlink_to(victim)
    assert_same(cached(path, IDENTITY, Build()), raw_dataset())
    assert victim.read_text() == "precious"
    assert not path.is_symlink()


def test_the_folder_follows_the_environment(monkeypatch):
    monkeypatch.setenv("CAPSNET_JAX_CACHE", "/chosen")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_dir() == Path("/chosen")
    monkeypatch.setenv("CAPSNET_JAX_CACHE", "~/chosen")
    assert default_dir() == Path("/home/me/chosen")
    monkeypatch.delenv("CAPSNET_JAX_CACHE")
    assert default_dir() == Path("/xdg/capsnet_jax")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_dir() == Path("/home/me/.cache/capsnet_jax")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(Path, "expanduser", no_home)
    with pytest.raises(FileNotFoundError, match=r"^~/.cache: there is no such home directory$"):
        default_dir()


def no_home(path):
    """Replace `Path.expanduser` as it is without `HOME` and without an entry in passwd."""
    if str(path).startswith("~"):
        raise RuntimeError("Could not determine home directory.")
    return path
