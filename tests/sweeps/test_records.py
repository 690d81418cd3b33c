import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from capsnet_jax import overrides
from capsnet_jax.config import Config, Eval
from capsnet_jax.sweeps import files, records
from capsnet_jax.sweeps.finished import changes_since
from capsnet_jax.sweeps.records import Record, Run
from tests import tiny


def changed(path: str, value: object) -> Config:
    return overrides.build({path: value})


def record(seed=0, test_error=1.0, validation_error=2.0, speed=100.0, **settings) -> Record:
    """Settings are given as `routing__iterations=3`."""
    flat = overrides.flatten(overrides.build({})) | {n.replace("__", "."): value for n, value in settings.items()}
    result = {
        "test_error": test_error,
        "validation_error": validation_error,
        "images_per_second": speed,
        "diverged_step": -1,
    }
    name = json.dumps([flat, seed], sort_keys=True)
    return Record(name, flat, seed, {}, result, Path("nowhere"))


def test_a_runs_name_says_what_it_is():
    config = overrides.build({"data.dataset": "emnist/letters:3.1.0", "routing.iterations": 5})
    name = Run(config, 7).name
    assert re.fullmatch(r"emnist_letters_3\.1\.0-capsnet_small-dynamic5-seed7-[0-9a-f]{10}", name)


def test_a_net_that_does_not_route_has_no_routing_in_its_name():
    config = overrides.build({"model.name": "resnet8"})
    assert re.fullmatch(r"mnist_5k-resnet8-seed0-[0-9a-f]{10}", Run(config, 0).name)
    assert not [path for path in overrides.flatten(config) if path.startswith(("routing", "eval"))]


@pytest.mark.slow
def test_a_runs_name_is_the_same_in_every_process():
    code = "from capsnet_jax import overrides; from capsnet_jax.sweeps.records import Run; "
    code += "print(Run(overrides.build({}), 3).name)"
    line, environment = [sys.executable, "-c", code], tiny.environment() | {"PYTHONHASHSEED": "12345"}
    done = subprocess.run(line, cwd=tiny.ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == Run(overrides.build({}), 3).name


def other_values(config: Config) -> list[tuple[str, object]]:
    """For each path a value that is not the one in force."""
    changes = []
    flat = overrides.flatten(config)
    for path, field in overrides.fields_of(config).items():
        if path.startswith("eval.") or path not in flat:
            continue
        value, meta = flat[path], field.metadata
        if path in overrides.REGISTRIES:
            other = next(word for word in overrides.REGISTRIES[path] if word != value)
        elif len(meta.get("choices") or ()) > 1:
            other = next(word for word in meta["choices"] if word != value)
        elif meta.get("choices"):
            continue
        elif isinstance(value, bool):
            other = not value
        elif isinstance(value, str):
            other = value + "x"
        elif isinstance(value, list):
            other = (3,)
        else:
            other = value + 1 if value + 1 <= meta["high"] else value / 2 + 0.01
        changes.append((path, other))
    return changes


def test_runs_that_differ_have_names_that_differ():
    config = overrides.build({})
    runs = [Run(config, 0), Run(config, 1), Run(config, 10)]
    runs += [Run(overrides.resolve({path: value}).config, 0) for path, value in other_values(config)]
    assert len({run.name for run in runs}) == len(runs) > 30
    assert Run(changed("train.min_learning_rate", 1e-6), 0).name == runs[0].name  # the default, given


def test_environment_says_what_a_result_may_depend_on():
    environment = records.environment()
    assert environment["packages"]["jax"] == jax.__version__
    assert set(environment["packages"]) >= {"jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets"}
    assert (environment["device"], environment["backend"]) == (jax.devices()[0].device_kind, jax.default_backend())
    assert environment["python"] == ".".join(map(str, sys.version_info[:3]))
    git = ["git", "-C", str(tiny.ROOT), "rev-parse", "HEAD"]
    assert environment["git_revision"] == subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    assert isinstance(environment["git_changes"], bool)
    json.dumps(environment)


def test_no_git_is_no_error(monkeypatch):
    monkeypatch.setenv("PATH", "")
    environment = records.environment.__wrapped__()
    assert (environment["git_revision"], environment["python"]) == (None, ".".join(map(str, sys.version_info[:3])))


def revision_of(root: Path, monkeypatch) -> tuple[object, object]:
    """What is recorded of a copy of the package's folders under `root`."""
    monkeypatch.setattr(records, "__file__", str(root / "capsnet_jax/sweeps/records.py"))
    environment = records.environment.__wrapped__()
    return environment["git_revision"], environment["git_changes"]


def test_only_the_revision_of_this_checkout_is_recorded(monkeypatch, tmp_path):
    def git(folder: Path, *words: str) -> str:
        name = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        done = subprocess.run(["git", "-C", str(folder), *name, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    ours, other = tmp_path / "ours", tmp_path / "other"
    for folder in (ours, other):
        (folder / "capsnet_jax/sweeps").mkdir(parents=True)
        (folder / "file").write_text(folder.name)
        git(folder, "init")
        git(folder, "add", "file")
        git(folder, "commit", "-m", "first")
    head = git(ours, "rev-parse", "HEAD")
    assert revision_of(ours, monkeypatch) == (head, False)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert revision_of(ours, monkeypatch) == (head, False)
    installed = other / "venv/site-packages"
    (installed / "capsnet_jax/sweeps").mkdir(parents=True)
    assert revision_of(installed, monkeypatch) == (None, None)
    (ours / "file").write_text("changed")
    assert revision_of(ours, monkeypatch) == (head, True)
    (ours / ".git/index").write_text("damaged")  # git tells the revision, but not whether there are changes
    assert revision_of(ours, monkeypatch) == (head, None)
    one = dataclasses.replace(record(), environment={"git_revision": head, "git_changes": None})
    assert one.revision == f"{head[:7]}, changes unknown"


def test_the_study_keeps_its_environment():
    for one in records.load_all(tiny.study().folder).values():
        assert one.environment["packages"] == records.environment()["packages"]
        assert (one.environment["backend"], one.environment["cores"]) == ("cpu", os.cpu_count())
        assert one.code
        assert one.observed == dataclasses.asdict(Eval(max_routing_iterations=2))


def finished(run: Run, workdir: Path, **result) -> Record:
    rows = [{"epoch": 1.0, "train_loss": 1.0}, {"epoch": 2.0, "train_loss": math.nan}]
    wrong = np.array([True, False, False, True, False, False, False, False, True])
    return Record(
        run.name,
        overrides.flatten(run.config),
        run.seed,
        records.to_columns(rows),
        {"test_error": 3.5, "diverged_step": -1} | result,
        workdir,
        command="python launch.py",
        environment={"git_revision": "0123456789", "git_changes": False},
        code={"routing/dynamic.py": "abc"},
        observed={"max_routing_iterations": 2},
        recorded="2026-01-02T03:04:05+00:00",
        wrong=wrong,
    )


def test_a_record_comes_back_as_it_was(tmp_path):
    one = finished(Run(changed("routing.iterations", 2), 5), tmp_path, validation_error=math.nan)
    records.append([one], tmp_path)
    [loaded] = records.load_all(tmp_path).values()
    for field in dataclasses.fields(Record):
        if field.name not in ("metrics", "result", "wrong"):
            assert getattr(loaded, field.name) == getattr(one, field.name), field.name
    np.testing.assert_array_equal(loaded.metrics["epoch"], [1, 2])
    np.testing.assert_array_equal(loaded.metrics["train_loss"], [1.0, math.nan])
    np.testing.assert_array_equal(loaded.wrong, one.wrong)
    assert loaded.result["test_error"] == 3.5
    assert math.isnan(loaded.result["validation_error"])
    assert overrides.build(loaded.settings) == changed("routing.iterations", 2)
    assert loaded.revision == "0123456"
    strict = (tmp_path / "runs.jsonl").read_text()
    json.loads(strict, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def test_a_run_that_was_trained_anew_counts_as_the_last_time(tmp_path):
    run = Run(overrides.build({}), 0)
    records.append([finished(run, tmp_path)], tmp_path)
    records.append([finished(run, tmp_path, test_error=2.5)], tmp_path)
    [loaded] = records.load_all(tmp_path).values()
    assert loaded.result["test_error"] == 2.5
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 2


def test_a_workdir_remembers_what_was_asked_for(tmp_path):
    runs = [Run(changed("routing.iterations", r), 0) for r in (1, 2, 3)]
    for run in (runs[2], runs[0]):
        iterations = float(run.config.routing.settings.iterations)
        records.append([finished(run, tmp_path, test_error=iterations)], tmp_path)
    records.note_experiment(tmp_path, "study", runs[:2], ["routing.iterations"])
    records.note_experiment(tmp_path, "study", runs[1:], ["train.epochs", "routing.iterations"])
    results, swept = records.load(tmp_path, "study")
    assert [r.result["test_error"] for r in results] == [1.0, 3.0]  # as asked for; the second is not finished
    assert swept == ["routing.iterations", "train.epochs"]
    assert records.load(tmp_path, "other") == ([], [])
    assert records.experiments_in(tmp_path) == ["study"]
    before = (tmp_path / "experiments.jsonl").read_text()
    records.note_experiment(tmp_path, "study", runs[:2], ["routing.iterations"])
    assert (tmp_path / "experiments.jsonl").read_text() == before  # the same command twice


def test_records_of_another_version_are_told_and_left_out(tmp_path, caplog):
    run = Run(changed("routing.iterations", 2), 5)
    records.append([finished(run, tmp_path)], tmp_path)
    [line] = files.read_lines(tmp_path / "runs.jsonl")
    others: list[dict] = [
        {},
        {name: value for name, value in line.items() if name != "code"},
        line | {"name": "../../outside"},
        line | {"name": "a/b"},
        line | {"name": ".."},
        line | {"settings": ["list"]},
        line | {"result": {}},
        line | {"metrics": {"loss": "abc"}},
    ]
    files.append_lines(tmp_path / "runs.jsonl", others)
    files.append_lines(tmp_path / "experiments.jsonl", [{}])
    files.append_lines(tmp_path / "programs.jsonl", [{}])
    assert list(records.load_all(tmp_path)) == [run.name]
    assert caplog.messages == [f"{tmp_path}/runs.jsonl: 8 of 9 runs are of another version of capsnet_jax and left out"]
    assert (records.experiments_in(tmp_path), records.registered_groups(tmp_path, "key")) == ([], [])


def test_a_setting_that_this_version_does_not_have_is_told(tmp_path, caplog):
    run = Run(changed("routing.iterations", 2), 5)
    one = finished(run, tmp_path)
    records.append([dataclasses.replace(one, settings=one.settings | {"train.smoothing": 0.1})], tmp_path)
    [loaded] = records.load_all(tmp_path).values()
    assert caplog.messages == [
        f"{tmp_path}/runs.jsonl: runs with settings that this version does not have: train.smoothing"
    ]
    assert "train.smoothing" in changes_since(run, loaded)  # so that the run is trained, not taken for finished
