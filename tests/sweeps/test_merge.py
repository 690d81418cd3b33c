import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from capsnet_jax import overrides
from capsnet_jax.config import ConfigError
from capsnet_jax.sweeps import checkpoint, merge, records
from capsnet_jax.sweeps.files import write_bytes
from capsnet_jax.sweeps.records import Record, Run, params_path, run_folder
from capsnet_jax.sweeps.train import checkpoint_folder
from tests import tiny

CONFIG = overrides.build({})
NAMES = [Run(CONFIG, seed).name for seed in range(4)]


def finish(workdir: Path, seed: int, recorded: str, value: float, observed: str = "") -> None:
    """A finished run whose one parameter is `value`, and whose file of observations holds `observed`."""
    name = NAMES[seed]
    checkpoint.save_params(params_path(workdir, name), {"w": np.array([value], np.float32)}, {})
    if observed:
        write_bytes(run_folder(workdir, name) / "seen.npz", observed.encode())
    result = {"test_error": value, "validation_error": float("nan"), "diverged_step": -1}
    record = Record(name, overrides.flatten(CONFIG), seed, {}, result, workdir, code={"a.py": "1"}, recorded=recorded)
    records.append([record], workdir)
    records.note_experiment(workdir, "routing_iterations", [Run(CONFIG, seed)], ["seed"])


def value(workdir: Path, seed: int) -> float:
    """The parameter of a run, which must be the one that its record tells of."""
    [leaf] = checkpoint.load_params(params_path(workdir, NAMES[seed]), {"w": np.zeros(1, np.float32)}, {})[0].values()
    assert records.load_all(workdir)[NAMES[seed]].result["test_error"] == leaf[0]
    return float(leaf[0])


def digests(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def two(tmp_path) -> tuple[Path, Path]:
    """Seeds 0 and 1 on one machine; 1 (later), 2 and 3 on another, which still trains more."""
    one, other = tmp_path / "one", tmp_path / "other"
    finish(one, 0, "2026-01-01", 10.0, "seen of 0")
    finish(one, 1, "2026-01-02", 11.0, "older")
    finish(other, 1, "2026-01-03", 12.0)
    finish(other, 2, "2026-01-01", 13.0)
    finish(other, 3, "2026-01-01", 14.0)
    for seeds in ([3, 0], [2, 3]):  # a group that is not finished, and one whose checkpoints a diverged run has kept
        names = [NAMES[seed] for seed in seeds]
        records.register_group(other, "key", names)
        write_bytes(checkpoint_folder(other / "programs/key", names) / "7.safetensors", b"")
    return one, other


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_workdirs_become_one(order, two, tmp_path, capsys):
    before, new = digests(tmp_path), tmp_path / "new"
    merge.merge([two[index] for index in order], new)
    assert [value(new, seed) for seed in range(4)] == [10.0, 12.0, 13.0, 14.0]
    assert {name: digest for name, digest in digests(tmp_path).items() if not name.startswith(str(new))} == before
    assert (run_folder(new, NAMES[0]) / "seen.npz").read_bytes() == b"seen of 0"
    assert not (run_folder(new, NAMES[1]) / "seen.npz").exists()  # what was seen of the older parameters
    found, swept = records.load(new, "routing_iterations")
    assert {record.name for record in found} == {*NAMES}
    assert swept == ["seed"]
    assert not (new / "programs").exists()
    out = capsys.readouterr().out
    assert f"{two[1]}: 3 of 3 runs taken; checkpoints of 1 unfinished program are not taken" in out
    assert f"{two[0]}: {2 - order[0]} of 2 runs taken" in out


def test_again_changes_nothing(two, tmp_path, capsys):
    new = tmp_path / "new"
    merge.merge(two, new)
    after, lines = digests(new), (new / "runs.jsonl").read_bytes()
    merge.merge(two, new)
    assert digests(new) == after
    assert capsys.readouterr().out.count("0 of 2 runs taken; 2 were here already") == 1
    theirs = {
        json.loads(line)["name"]: line for path in two for line in (path / "runs.jsonl").read_bytes().splitlines()
    }
    ours = {json.loads(line)["name"]: line for line in lines.splitlines()}
    assert ours == theirs  # to the byte, checksums too


def test_killed_and_repeated(two, tmp_path, monkeypatch):
    """The process ends before one of the seven appended lines, each time a later one of those that are left."""
    new, append = tmp_path / "new", merge.append_lines
    for survived in range(4):
        left = [survived]

        def killed(path: Path, lines: list, left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            append(path, lines)

        monkeypatch.setattr(merge, "append_lines", killed)
        with pytest.raises(KeyboardInterrupt):
            merge.merge(two, new)
    monkeypatch.setattr(merge, "append_lines", append)
    merge.merge(two, new)
    assert [value(new, seed) for seed in range(4)] == [10.0, 12.0, 13.0, 14.0]


def test_damage_is_named_and_left_out(two, tmp_path, capsys, caplog):
    one, other = two
    path = params_path(other, NAMES[2])
    path.write_bytes(path.read_bytes()[:-1])
    lines = (other / "runs.jsonl").read_bytes().splitlines(keepends=True)
    (other / "runs.jsonl").write_bytes(b"".join([*lines[:2], lines[2].replace(b"14.0", b"41.0")]))
    merge.merge([one, other], tmp_path / "new")
    assert records.load_all(tmp_path / "new").keys() == {NAMES[0], NAMES[1]}
    assert f"{other / 'runs.jsonl'}, line 3 is damaged and left out" in caplog.text
    assert f"left out, as their parameters are damaged: {NAMES[2]}" in capsys.readouterr().out


def test_a_record_without_its_parameters_counts_less(two, tmp_path):
    one, other = two
    params_path(other, NAMES[1]).unlink()
    merge.merge([other, one], tmp_path / "new")
    assert value(tmp_path / "new", 1) == 11.0
    assert (run_folder(tmp_path / "new", NAMES[1]) / "seen.npz").read_bytes() == b"older"


def test_mistakes(two, tmp_path, capsys):
    with pytest.raises(ConfigError, match=r"nowhere holds no runs\.jsonl"):
        merge.merge([two[0], tmp_path / "nowhere"], tmp_path / "new")
    with pytest.raises(ConfigError, match="one is the --workdir itself"):
        merge.merge(two, two[0])
    assert not (tmp_path / "new").exists()
    code, _, error = tiny.call(capsys, f"--merge={two[0]}")
    assert (code, error) == (2, "--merge needs the --workdir that is to hold the runs of the others\n")


def test_the_command(two, tmp_path, capsys):
    code, out, error = tiny.call(capsys, f"--merge={two[0]},{two[1]}", f"--workdir={tmp_path / 'new'}")
    assert (code, error) == (0, "")
    assert re.fullmatch(r"(.*runs taken.*\n){2}", out)
    assert records.load_all(tmp_path / "new").keys() == {*NAMES}
