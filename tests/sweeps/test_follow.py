import json
from pathlib import Path

import pytest

from capsnet_jax import overrides
from capsnet_jax.sweeps import records
from capsnet_jax.sweeps.files import set_damaged_aside
from capsnet_jax.sweeps.follow import Follower
from capsnet_jax.sweeps.records import Record, Run

CONFIG = overrides.build({})


def finish(workdir: Path, seed: int, error: float = 1.0) -> str:
    name = Run(CONFIG, seed).name
    result = {"test_error": error, "diverged_step": -1}
    records.append([Record(name, overrides.flatten(CONFIG), seed, {}, result, workdir)], workdir)
    return name


def errors(finished: dict[str, Record]) -> dict[str, float]:
    return {name: record.result["test_error"] for name, record in finished.items()}


@pytest.fixture
def follower(tmp_path) -> Follower:
    return Follower(tmp_path)


def test_sees_what_load_all_sees(follower, tmp_path):
    assert follower.read() == {}
    names = [finish(tmp_path, 0)]
    assert errors(follower.read()) == {names[0]: 1.0}
    names += [finish(tmp_path, 1), finish(tmp_path, 2)]
    finish(tmp_path, 0, error=2.0)
    assert errors(follower.read()) == {names[0]: 2.0, names[1]: 1.0, names[2]: 1.0}
    assert errors(follower.read()) == errors(records.load_all(tmp_path))


def test_reads_only_what_is_new(follower, tmp_path, monkeypatch):
    for seed in range(3):
        finish(tmp_path, seed)
    follower.read()
    parsed = []
    monkeypatch.setattr("capsnet_jax.sweeps.follow.from_line", lambda row, _: parsed.append(row["seed"]))
    follower.read()
    assert parsed == []
    finish(tmp_path, 3)
    follower.read()
    assert parsed == [3]


def test_a_line_that_is_being_written(follower, tmp_path):
    """Half a line is none; a whole one without its newline is one, also when the newline comes."""
    path, name = tmp_path / "runs.jsonl", finish(tmp_path, 0)
    line = path.read_bytes()
    for end, count in ((len(line) // 2, 0), (len(line) - 1, 1), (len(line), 1)):
        path.write_bytes(line[:end])
        assert len(follower.read()) == count
    other = finish(tmp_path, 1)
    assert follower.read().keys() == {name, other}


def test_a_file_that_is_replaced_is_read_anew(follower, tmp_path):
    names = [finish(tmp_path, seed) for seed in range(3)]
    assert len(follower.read()) == 3
    path = tmp_path / "runs.jsonl"
    path.write_bytes(path.read_bytes().replace(json.dumps(names[1]).encode(), b'"x"'))
    set_damaged_aside(path)
    assert follower.read().keys() == {names[0], names[2]}
    path.unlink()
    assert follower.read() == {}
