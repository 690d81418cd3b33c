from pathlib import Path

import numpy as np
import pytest

from capsnet_jax.data import Examples, RawDataset, cache
from capsnet_jax.data.cache import cached, default_dir

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
    for left, right in zip((*one.train, *one.test), (*other.train, *other.test), strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


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


def test_the_folder_follows_the_environment(monkeypatch):
    monkeypatch.setenv("CAPSNET_JAX_CACHE", "/chosen")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_dir() == Path("/chosen")
    monkeypatch.delenv("CAPSNET_JAX_CACHE")
    assert default_dir() == Path("/xdg/capsnet_jax")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_dir() == Path("/home/me/.cache/capsnet_jax")
