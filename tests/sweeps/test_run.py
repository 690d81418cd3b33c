import json
import shlex

import jax
import pytest

from capsnet_jax import config
from capsnet_jax.config import Config
from capsnet_jax.overrides import grid
from capsnet_jax.sweeps import run as sweep
from capsnet_jax.sweeps.records import Cell
from capsnet_jax.training import evaluation
from tests import tiny


def cells_of(**values) -> list[Cell]:
    combinations = grid({name.replace("__", "."): value for name, value in values.items() if name != "seeds"})
    settings = [config.override(Config(), changes) for changes in combinations]
    return [Cell(setting, seed) for setting in settings for seed in range(values.get("seeds", 1))]


@pytest.mark.parametrize(
    ("values", "sizes"),
    [
        ({"seeds": 5}, [5]),
        ({"train__learning_rate": (0.1, 0.2), "loss__m_plus": (0.8, 0.9), "seeds": 3}, [12]),
        ({"routing__temperature": (0.5, 1.0, 2.0)}, [3]),
        ({"routing__iterations": (1, 2, 3), "seeds": 2}, [2, 2, 2]),
        ({"train__batch_size": (32, 64)}, [1, 1]),
        ({"data__dataset": ("mnist", "kmnist"), "train__learning_rate": (0.1, 0.2)}, [2, 2]),
        ({"model__types": (1, None), "routing__gradient": ("full", "stop"), "train__floor": (0.0, 0.1)}, [2] * 4),
    ],
)
def test_the_fewest_programs(values, sizes):
    cells = cells_of(**values)
    groups = sweep.programs(cells)
    assert [len(group) for group in groups] == sizes
    assert sorted(cell.name for group in groups for cell in group) == sorted(cell.name for cell in cells)


def test_runs_of_one_program_need_not_be_neighbours():
    cells = cells_of(train__learning_rate=(0.1, 0.2), routing__iterations=(1, 2))
    assert sweep.programs(cells) == [[cells[0], cells[2]], [cells[1], cells[3]]]


def test_nothing_to_run_is_no_program():
    assert sweep.programs([]) == []


def test_compilations_are_counted():
    assert "4 runs in 2 compiled training programs (" in tiny.study().printed


def test_a_cell_alone_is_the_cell_of_the_sweep_to_the_bit(tmp_path):
    """By the command in its record, as a reader would type it."""
    wanted = next(c for c in tiny.cells(tiny.study().folder).values() if c.record["seed"] == 1)
    words = shlex.split(wanted.record["command"].replace("WORKDIR", str(tmp_path)))
    assert words[:2] == ["python", "launch.py"]
    tiny.succeed(*words[2:])
    [(name, alone)] = tiny.cells(tmp_path).items()
    assert (tiny.study().folder / "cells" / name).exists()
    assert alone.record == wanted.record
    assert alone.params == wanted.params
    assert (alone.result, alone.rows, alone.events) == (wanted.result, wanted.rows, wanted.events)


@pytest.mark.parametrize(("across", "used"), [("auto", "map"), ("map", "map"), ("vmap", "vmap")])
def test_how_runs_share_a_program(across, used, tmp_path, monkeypatch):
    """On a CPU they take turns unless told otherwise; `test_train` compares what the two ways give."""
    plans = []

    def train_together(group, datasets, plan, *_):
        plans.append((len(group), datasets[group[0].config.data].name, plan.across))
        return 0.0

    monkeypatch.setattr(sweep, "_train_together", train_together)
    monkeypatch.setattr(sweep, "_failure", lambda *_: None)  # there is no record of what was not trained
    cells = cells_of(routing__iterations=(1, 2), seeds=3)
    sweep.run(cells, sweep.Plan(tmp_path, across, lambda _: "", lambda: None))
    assert plans == [(3, "mnist_5k", used)] * 2


def test_the_parameters_kept_are_those_that_were_judged(tmp_path):
    cell = Cell(config.override(Config(), tiny.SETTINGS | {"train.average": 0.5, "train.epochs": 1}), 0)
    sweep.run([cell], sweep.Plan(tmp_path, "auto", lambda _: "", lambda: None))
    folder, dataset = tmp_path / "cells" / cell.name, sweep.load_data(cell.config.data)
    result, params = json.loads((folder / "result.json").read_text()), tiny.params(folder)
    for split in ("validation", "test"):
        found = evaluation.evaluate(cell.config, params, jax.device_put(getattr(dataset, split)), classes=10)
        assert result[f"{split}_loss"] == pytest.approx(float(found["loss"]), rel=1e-5)


def test_each_cell_has_its_own_config_and_seed():
    for path in (tiny.study().folder / "cells").iterdir():
        record = json.loads((path / "record.json").read_text())
        cell = Cell(config.unflatten(record["config"]), record["seed"])
        assert cell.name == path.name
        for name, value in tiny.SETTINGS.items():
            assert record["config"][name] == (list(value) if isinstance(value, tuple) else value)
