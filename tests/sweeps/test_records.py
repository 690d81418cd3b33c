import csv
import dataclasses
import importlib.metadata
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

from capsnet_jax import config
from capsnet_jax.config import Config
from capsnet_jax.sweeps import records
from capsnet_jax.sweeps.records import Cell, CellWriter, Record
from tests import tiny


def changed(path: str, value: object) -> Config:
    return config.override(Config(), {path: value})


def record(seed=0, test_error=1.0, validation_error=2.0, speed=100.0, **settings) -> Record:
    """Settings are given as `routing__iterations=3`."""
    flat = config.flatten(Config()) | {name.replace("__", "."): value for name, value in settings.items()}
    result = {"test_error": test_error, "validation_error": validation_error, "images_per_second": speed}
    return Record(flat, seed, {}, result, Path("nowhere"))


def test_a_cells_name_says_what_it_is():
    settings = config.override(Config(), {"data.dataset": "emnist/letters:3.1.0", "routing.iterations": 5})
    name = Cell(settings, 7).name
    assert re.fullmatch(r"emnist_letters_3\.1\.0-capsnet_small-dynamic5-seed7-[0-9a-f]{10}", name)


def test_a_cells_name_is_the_same_in_every_process():
    code = "from capsnet_jax.sweeps.records import Cell; from capsnet_jax.config import Config; "
    code += "print(Cell(Config(), 3).name)"
    line, environment = [sys.executable, "-c", code], tiny.environment() | {"PYTHONHASHSEED": "12345"}
    done = subprocess.run(line, cwd=tiny.ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == Cell(Config(), 3).name


def test_cells_that_differ_have_names_that_differ():
    cells = [Cell(Config(), 0), Cell(Config(), 1), Cell(Config(), 10)]
    for path, field in config.paths().items():
        value, meta = field.default, field.metadata
        if meta.get("among"):
            other = next(word for word in meta["among"] if word != value)
        elif isinstance(value, bool):
            other = not value
        elif isinstance(value, str):
            other = value + "x"
        elif value is None:
            other = (3,) if path == "model.decoder" else 3
        else:
            other = value + 1 if value + 1 <= meta["high"] else value / 2 + 0.01
        cells.append(Cell(changed(path, other), 0))
    assert len({cell.name for cell in cells}) == len(cells)
    assert Cell(changed("train.floor", 1e-6), 0).name == cells[0].name  # the default, given


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_csv_holds_every_number(tmp_path):
    found = [
        record(seed, test_error=seed + 0.1234567, routing__iterations=r, train__epochs=4)
        for r in (1, 3)
        for seed in (0, 2)
    ]
    records.write_csv(tmp_path / "new" / "table.csv", found, ["routing.iterations"])
    text = (tmp_path / "new" / "table.csv").read_text()
    assert text.splitlines()[0] == (
        "dataset,preset,seed,epochs,routing.iterations,test_error,validation_error,images_per_second"
    )
    assert text.splitlines()[1] == "mnist_5k,small,0,4,1,0.123457,2,100"
    rows = read(tmp_path / "new" / "table.csv")
    assert [(r["routing.iterations"], r["seed"], r["test_error"]) for r in rows] == [
        ("1", "0", "0.123457"),
        ("1", "2", "2.12346"),
        ("3", "0", "0.123457"),
        ("3", "2", "2.12346"),
    ]


def test_the_csv_has_swept_and_differing_paths(tmp_path):
    found = [record(), record(model__decoder=[8, 9], train__epochs=2, preset="paper", data__dataset="mnist")]
    records.write_csv(tmp_path / "table.csv", found, ["routing.iterations"])
    rows = read(tmp_path / "table.csv")
    assert list(rows[0])[:6] == ["dataset", "preset", "seed", "epochs", "routing.iterations", "model.decoder"]
    assert [(r["model.decoder"], r["epochs"], r["preset"], r["dataset"]) for r in rows] == [
        ("None", "10", "small", "mnist_5k"),
        ("8x9", "2", "paper", "mnist"),
    ]
    assert not {name for name in rows[0] if name.startswith(("loss.", "data."))}


def test_whole_numbers_are_whole_in_the_csv(tmp_path):
    large = dataclasses.replace(record(), result={"test_error": 0.5, "parameters": 1_112_208.0})
    records.write_csv(tmp_path / "table.csv", [large], [])
    assert [(row["test_error"], row["parameters"]) for row in read(tmp_path / "table.csv")] == [("0.5", "1112208")]


def test_a_diverged_run_is_nan_in_the_csv(tmp_path):
    lacking = dataclasses.replace(record(1), result={"test_error": math.nan})
    records.write_csv(tmp_path / "table.csv", [record(), lacking], [])
    assert [row["test_error"] for row in read(tmp_path / "table.csv")] == ["1", "nan"]
    assert [row["validation_error"] for row in read(tmp_path / "table.csv")] == ["2", "nan"]


def test_differing_paths():
    assert records.differing([]) == []
    assert records.differing([record(), record(1)]) == []
    assert records.differing([record(), record(1)], ["routing.iterations"]) == ["routing.iterations"]
    found = [record(train__floor=0.1), record(train__floor=0.2, routing__iterations=1, data__dataset="mnist")]
    assert records.differing(found) == ["routing.iterations", "train.floor"]
    assert records.differing(found, ["train.floor"]) == ["train.floor", "routing.iterations"]


def test_environment_says_what_a_result_may_depend_on():
    told = records.environment()
    assert told["packages"]["jax"] == jax.__version__
    assert told["packages"]["orbax-checkpoint"] == importlib.metadata.version("orbax-checkpoint")
    assert set(told["packages"]) >= {"jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets"}
    assert (told["device"], told["backend"]) == (jax.devices()[0].device_kind, jax.default_backend())
    assert told["python"] == ".".join(map(str, sys.version_info[:3]))
    git = ["git", "-C", str(tiny.ROOT), "rev-parse", "HEAD"]
    assert told["git_revision"] == subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    assert isinstance(told["git_changes"], bool)
    json.dumps(told)


def test_no_git_is_no_error(monkeypatch):
    monkeypatch.setenv("PATH", "")
    told = records.environment()
    assert (told["git_revision"], told["python"]) == (None, ".".join(map(str, sys.version_info[:3])))


def test_the_study_keeps_its_environment():
    for folder in (tiny.study().folder / "cells").iterdir():
        kept = json.loads((folder / "environment.json").read_text())
        assert kept["packages"] == records.environment()["packages"]
        assert (kept["backend"], kept["cores"]) == ("cpu", os.cpu_count())


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    records.write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}

    def fail(*_arguments):
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="full"):
            records.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    records.write_json(path, {"a": 3})
    assert json.loads(path.read_text()) == {"a": 3}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def row(epoch: int, **more) -> dict:
    return {"epoch": epoch, "images_per_second": 10.0 * epoch, "train_loss": 1 / epoch, "train_error": 50.0} | more


def test_a_cells_folder_from_start_to_finish(tmp_path):
    folder, cell = tmp_path / "cells" / "one", Cell(changed("routing.iterations", 2), 5)
    writer = CellWriter(folder, cell, "python launch.py", [])
    for epoch in (1, 2):
        writer.epoch(row(epoch))
    assert not (folder / "result.json").exists()
    writer.close()
    records.write_result(folder, {"test_error": 3.5, "diverged_step": -1})
    loaded = records.load_cell(folder)
    assert (loaded.seed, loaded.settings, loaded.folder) == (5, config.flatten(cell.config), folder)
    assert loaded.result == {"test_error": 3.5, "diverged_step": -1}
    np.testing.assert_array_equal(loaded.metrics["epoch"], [1, 2])
    np.testing.assert_array_equal(loaded.metrics["train_loss"], [1.0, 0.5])
    assert json.loads((folder / "record.json").read_text())["command"] == "python launch.py"
    assert [r.folder for r in records.load_all(tmp_path)] == [folder]


def test_nan_is_null_on_the_disk_and_nan_again(tmp_path):
    writer = CellWriter(tmp_path, Cell(Config(), 0), "", [])
    writer.epoch(row(1, validation_error=math.nan))
    writer.epoch(row(2, validation_error=math.inf))
    writer.close()
    records.write_result(tmp_path, {"test_error": math.nan, "parameters": 7})
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        strict = json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
        assert strict["validation_error"] is None
    assert json.loads((tmp_path / "result.json").read_text()) == {"test_error": None, "parameters": 7}
    loaded = records.load_cell(tmp_path)
    assert math.isnan(loaded.result["test_error"])
    assert np.all(np.isnan(loaded.metrics["validation_error"]))
    assert loaded.result["parameters"] == 7
    assert {tag for tag, _, _ in tiny.events(tmp_path)} == {"images/per_second", "train/loss", "train/error"}


def test_metric_files_are_brought_to_the_history_of_the_checkpoint(tmp_path):
    cell, history = Cell(Config(), 0), [row(epoch) for epoch in (1, 2, 3)]
    killed = CellWriter(tmp_path, cell, "", [])
    for one in history:
        killed.epoch(one)
    killed.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "tra')  # a kill in the middle of a line
    for length in (1, 3):
        CellWriter(tmp_path, cell, "", history[:length]).close()
        rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        assert rows == history[:length]
        losses = [(step, value) for tag, step, value in tiny.events(tmp_path) if tag == "train/loss"]
        assert losses == [(one["epoch"], pytest.approx(one["train_loss"])) for one in history[:length]]


def test_a_workdir_remembers_what_was_asked_for(tmp_path):
    cells = [Cell(changed("routing.iterations", r), 0) for r in (1, 2, 3)]
    for cell in (cells[2], cells[0]):
        writer = CellWriter(tmp_path / "cells" / cell.name, cell, "", [])
        writer.close()
        records.write_result(tmp_path / "cells" / cell.name, {"test_error": float(cell.config.routing.iterations)})
    records.note_experiment(tmp_path, "study", cells[:2], ["routing.iterations"])
    records.note_experiment(tmp_path, "study", cells[1:], ["train.epochs", "routing.iterations"])
    found, swept = records.load(tmp_path, "study")
    assert [r.result["test_error"] for r in found] == [1.0, 3.0]  # as asked for; the second is not finished
    assert swept == ["routing.iterations", "train.epochs"]
    assert records.load(tmp_path, "other") == ([], [])
    assert [records.finished(tmp_path, cell) for cell in cells] == [True, False, True]


def test_settings_of_one_data_set_are_compared():
    found = [
        record(routing__iterations=r, data__shift=shift, train__epochs=epochs, data__dataset=dataset)
        for dataset, shift, epochs in (("mnist", 2, 10), ("kmnist", 1, 10), ("kmnist", 1, 20))
        for r in (1, 3)
    ]
    assert records.differing(found) == ["data.shift", "routing.iterations", "train.epochs"]
    assert records.compared(found) == ["routing.iterations", "train.epochs"]
    assert records.compared(found, ["data.shift"]) == ["data.shift", "routing.iterations", "train.epochs"]
    assert records.compared([]) == []


def test_a_setting_younger_than_a_record_was_as_usual(tmp_path):
    folder = tmp_path / "cells" / "old"
    records.write_json(folder / "record.json", {"config": {"data.dataset": "mnist"}, "seed": 1, "command": ""})
    records.write_json(folder / "result.json", {"test_error": 1.0})
    records.write_text(folder / "metrics.jsonl", "")
    assert records.load_cell(folder).settings == config.flatten(changed("data.dataset", "mnist"))
