import ast
import dataclasses
import datetime
import json
import os
import re
import shlex
import subprocess
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from capsnet_jax import overrides
from capsnet_jax.config import PRESETS, ConfigError, Eval
from capsnet_jax.models import MODELS
from capsnet_jax.overrides import grid
from capsnet_jax.sweeps import code, plan, records, run
from capsnet_jax.sweeps import train as train_module
from capsnet_jax.sweeps.best import has_params
from capsnet_jax.sweeps.finished import changes_since, is_finished
from capsnet_jax.sweeps.lock import ProgramLock
from capsnet_jax.sweeps.records import Run
from capsnet_jax.sweeps.train import checkpoint_folder
from capsnet_jax.training import evaluation
from tests import tiny


def runs_of(**values) -> list[Run]:
    combinations = grid({name.replace("__", "."): value for name, value in values.items() if name != "seeds"})
    configs = [overrides.build(changes) for changes in combinations]
    return [Run(config, seed) for config in configs for seed in range(values.get("seeds", 1))]


def plan_of(workdir, parallel="auto", **more) -> plan.Plan:
    return plan.Plan(workdir, parallel, lambda _: "", lambda: None, **more)


def train(runs, workdir, **more):
    run.train_all(runs, plan_of(workdir, **more), run.load_and_check(runs))


@pytest.mark.parametrize(
    ("values", "sizes"),
    [
        ({"seeds": 5}, [5]),
        ({"train__learning_rate": (0.1, 0.2), "loss__m_plus": (0.8, 0.9), "seeds": 3}, [12]),
        ({"routing__temperature": (0.5, 1.0, 2.0)}, [3]),
        ({"routing__iterations": (1, 2, 3), "seeds": 2}, [2, 2, 2]),
        ({"train__batch_size": (32, 64)}, [1, 1]),
        ({"data__dataset": ("mnist", "kmnist"), "train__learning_rate": (0.1, 0.2)}, [2, 2]),
        (
            {
                "model__capsule_types": (1, 4),
                "routing__gradient": ("full", "stop"),
                "train__min_learning_rate": (0.0, 0.1),
            },
            [2] * 4,
        ),
    ],
)
def test_the_fewest_programs(values, sizes):
    runs = runs_of(**values)
    groups = plan.group_by_program(runs).values()
    assert [len(group) for group in groups] == sizes
    assert sorted(r.name for group in groups for r in group) == sorted(r.name for r in runs)
    structures = [{jax.tree.structure(r.config) for r in group} for group in groups]
    assert [len(found) for found in structures] == [1] * len(sizes), "runs of a group share their structure"
    assert len(set().union(*structures)) == len(sizes)


def test_runs_of_one_program_need_not_be_neighbours():
    runs = runs_of(train__learning_rate=(0.1, 0.2), routing__iterations=(1, 2))
    assert list(plan.group_by_program(runs).values()) == [[runs[0], runs[2]], [runs[1], runs[3]]]


def test_nothing_to_run_is_no_program():
    assert plan.group_by_program([]) == {}


def test_compilations_are_counted():
    assert "4 runs in 2 compiled training programs (" in tiny.study().printed


@pytest.mark.slow
def test_a_run_alone_is_the_run_of_the_sweep_to_the_bit(tmp_path):
    """By the command in its record, as a reader would type it."""
    wanted = next(r for r in tiny.runs(tiny.study().folder).values() if r.seed == 1)
    words = shlex.split(wanted.command.replace("WORKDIR", str(tmp_path)))
    assert words[:2] == ["python", "launch.py"]
    tiny.succeed(*words[2:])
    [(name, alone)] = tiny.runs(tmp_path).items()
    assert name in tiny.runs(tiny.study().folder)
    assert alone == wanted


@pytest.mark.parametrize(("parallel", "used"), [("auto", "map"), ("map", "map"), ("vmap", "vmap")])
def test_how_runs_share_a_program(parallel, used, tmp_path, monkeypatch):
    """On a CPU they take turns unless told otherwise; `test_fit` compares what the two ways give."""
    trained = []

    def train_together(group, plan, datasets, *_):
        trained.append((len(group), datasets[group[0].config.data].name, plan.parallel))
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "train_together", train_together)
    with pytest.raises(KeyboardInterrupt):
        train(runs_of(routing__iterations=(1,), seeds=3), tmp_path, parallel=parallel)
    assert trained == [(3, "mnist_5k", used)]


@pytest.mark.slow
def test_the_parameters_that_are_saved_are_those_that_were_evaluated(tmp_path):
    changes = tiny.SETTINGS | {"train.ema_epochs": 0.5, "train.epochs": 1}
    one = Run(overrides.resolve(changes).config, 0)
    train([one], tmp_path)
    dataset, params = plan.load_data(one.config.data), tiny.params(tmp_path, one.name)
    record = records.load_all(tmp_path)[one.name]
    for split in ("validation", "test"):
        metrics = evaluation.evaluate(one.config, params, jax.device_put(getattr(dataset, split)), classes=10)
        assert record.result[f"{split}_loss"] == pytest.approx(float(metrics["loss"]), rel=1e-5)
    assert 100 * record.wrong.mean() == pytest.approx(record.result["test_error"], abs=1e-4)


def test_each_run_has_its_own_config_and_seed():
    for name, one in tiny.runs(tiny.study().folder).items():
        assert Run(overrides.build(one.settings), one.seed).name == name
        for path, value in tiny.SETTINGS.items():
            if not path.startswith("eval."):
                assert one.settings[path] == (list(value) if isinstance(value, tuple) else value)


def small_runs(seeds=1, **changes) -> list[Run]:
    sizes = tiny.SETTINGS | {"train.epochs": 1, "data.train_size": 64, "routing.iterations": 1} | changes
    config = overrides.resolve(sizes).config
    return [Run(config, seed) for seed in range(seeds)]


@pytest.mark.slow
def test_a_run_of_other_code_is_trained_anew_and_its_old_record_stays(tmp_path, monkeypatch, capsys):
    [one] = small_runs()
    train([one], tmp_path)
    train([one], tmp_path)
    assert "1 of 1 runs are finished already (code of revision" in capsys.readouterr().out
    real = code.digest

    def changed(path):
        return "changed" if path.name == "dynamic.py" else real(path)

    monkeypatch.setattr(code, "digest", changed)
    train([one], tmp_path)
    printed = capsys.readouterr().out
    assert "1 finished runs are of other code" in printed
    assert "routing/dynamic.py changed since" in printed
    lines = (tmp_path / "runs.jsonl").read_text().splitlines()
    assert len(lines) == 2
    train([one], tmp_path)
    assert "1 of 1 runs are finished already" in capsys.readouterr().out


def test_a_run_of_another_default_is_not_finished(monkeypatch):
    """A run's name leaves out settings at their defaults, so a new default comes under the old name."""
    [one] = small_runs()
    settings = json.loads(json.dumps(overrides.flatten(one.config)))
    record = records.Record(one.name, settings, 0, {}, {}, Path(), code=code.code_of(one.config))
    assert is_finished(one, record)
    entry = MODELS["capsnet_small"]
    other = dataclasses.replace(entry, settings=dataclasses.replace(entry.settings, weight_scale=0.2))
    monkeypatch.setitem(MODELS, "capsnet_small", other)
    [changed] = small_runs()
    assert changed.name == record.name
    assert changes_since(changed, record) == ["model.weight_scale"]
    assert not is_finished(changed, record)
    del settings["model.weight_scale"]  # a setting that is newer than the record
    assert is_finished(changed, record)


def test_the_sizes_of_an_entry_of_models_are_code(monkeypatch):
    resnet = overrides.build({"model.name": "resnet8"})
    before = code.code_of(resnet)
    entry = MODELS["resnet8"]
    monkeypatch.setitem(MODELS, "resnet8", dataclasses.replace(entry, module=partial(entry.module, depths=(2, 1, 1))))
    assert code.differing_files(before, code.code_of(resnet)) == ["MODELS[resnet8]"]


def test_a_changed_router_does_not_concern_a_net_that_does_not_route(monkeypatch):
    cnn = overrides.build({"model.name": "cnn_small"})
    capsnet, uniform = overrides.build({}), overrides.build({"routing.name": "uniform"})
    before = [code.code_of(config) for config in (cnn, capsnet, uniform)]
    real = code.digest
    monkeypatch.setattr(code, "digest", lambda path: "changed" if path.name == "dynamic.py" else real(path))
    after = [code.code_of(config) for config in (cnn, capsnet, uniform)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    assert code.differing_files(before[1], after[1]) == ["routing/dynamic.py"]


def test_a_changed_folder_of_pictures_is_other_code(tmp_path, monkeypatch):
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(b"a picture")
    folder = overrides.build({"data.dataset": f"folder:{tmp_path}"})
    before = code.code_of(folder)
    assert "data/folder.py" in before
    (tmp_path / "cats" / "1.png").write_bytes(b"another")
    assert code.differing_files(before, code.code_of(folder)) == [f"folder:{tmp_path}"]
    assert re.fullmatch(r"folder_\w+-capsnet_small-dynamic3-seed0-\w+", records.Run(folder, 0).name)
    pairs, digits = (code.code_of(overrides.build({"data.dataset": name})) for name in ("multi_mnist", "mnist"))
    assert {"data/pairs.py"} == pairs.keys() - digits.keys()


def test_comments_docstrings_and_layout_are_no_other_code(tmp_path):
    texts = ["def f(x):\n    return x + 1\n", 'def f(x):\n    """Add."""\n    # one\n    return (x +\n        1)\n']
    texts.append("def f(x):\n    return x + 2\n")
    digests = []
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.py").write_text(text)
        digests.append(code.digest(tmp_path / f"{number}.py"))
    assert digests[0] == digests[1] != digests[2]


def test_what_versions_of_python_add_to_a_syntax_tree_is_no_other_code(tmp_path, monkeypatch):
    """3.12 gives functions and classes an empty list of type parameters."""
    path = tmp_path / "a.py"
    path.write_text("def f(x: int) -> int:\n    return x\n\n\nclass A:\n    b = 1\n")
    before = code.digest.__wrapped__(path)
    parse = ast.parse

    def parse_as_later(text):
        tree = parse(text)
        for node in tree.body:
            node._fields, node.type_params = (*node._fields, "type_params"), []
        return tree

    monkeypatch.setattr(ast, "parse", parse_as_later)
    assert code.digest.__wrapped__(path) == before


def test_what_a_run_starts_from_is_code_too(tmp_path, monkeypatch):
    """Its pictures, and the recipe that it was trained by."""
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(b"a picture")
    own = overrides.build({"finetune.source": f"folder:{tmp_path}"})
    before = code.code_of(own)
    (tmp_path / "cats" / "1.png").write_bytes(b"another")
    then = code.code_of(own)
    assert code.differing_files(before, then) == [f"finetune.source: folder:{tmp_path}"]
    monkeypatch.setitem(PRESETS, "small", PRESETS["small"] | {"train.epochs": 77})
    assert code.differing_files(then, code.code_of(own)) == ["finetune.source: recipe"]
    # Runs that share a program share their code.
    other = overrides.build({"finetune.source": f"folder:{tmp_path}", "loss.m_plus": 0.8})
    assert code.code_of(other) == code.code_of(own)


def test_other_settings_do_not_go_on_from_a_checkpoint():
    """A name leaves out settings at their defaults, so a new default comes under the old name."""
    [one], [other] = small_runs(), small_runs(**{"train.min_learning_rate": 1e-9})
    assert train_module.marks_of({}, [one.config]) != train_module.marks_of({}, [other.config])
    assert train_module.marks_of({}, [one.config]) == train_module.marks_of({}, [small_runs()[0].config])


def record_of(one, workdir, history, *, diverged=-1, **more):
    """Record a run that was trained alone."""
    states = SimpleNamespace(diverged=[diverged], eval_params=({"layer": np.zeros((1, 2))}, {}))
    at = SimpleNamespace(history=history, states=states, memory=1e6)
    tested, events = ({"test_error": [6.0]}, np.array([[True]])), SimpleNamespace(finish=lambda *_: None)
    train_module._finish([one], at, tested, plan_of(workdir, **more), {"a.py": "1"}, events)


def test_what_diverged_has_neither_results_nor_parameters(tmp_path):
    """Nor those of the last whole epoch, nor the parameters of an earlier training."""
    [one] = small_runs()
    path = records.params_path(tmp_path, one.name)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"of an earlier training")
    row = {"epoch": 1, "images_per_second": 3.0, "validation_error": [5.0], "test_error_at_epoch": [6.0]}
    record_of(one, tmp_path, [row], diverged=7)
    record = records.load_all(tmp_path)[one.name]
    numbers = {name for name, value in record.result.items() if not np.isnan(value)}
    assert numbers == {"epoch", "images_per_second", "memory_mb", "parameters", "diverged_step"}
    assert not path.exists()
    path.write_bytes(b"of an earlier version")
    assert not has_params(record)


def test_what_was_not_observed_in_every_epoch_was_not_observed(tmp_path):
    """A run went on with `eval.test_each_epoch`, which it did not have before."""
    [one] = small_runs()
    rows = [{"epoch": 1, "images_per_second": 3.0, "validation_error": [5.0]}]
    rows += [{"epoch": 2, "images_per_second": 3.0, "validation_error": [4.0], "test_error_at_epoch": [6.0]}]
    asked = Eval(test_each_epoch=True)
    for history, expected in ((rows, False), (rows[1:], True)):
        record_of(one, tmp_path, history, observed=asked)
        assert records.load_all(tmp_path)[one.name].observed["test_each_epoch"] == expected


@pytest.mark.slow
def test_rerun_trains_anew(tmp_path):
    runs = small_runs()
    train(runs, tmp_path)
    train(runs, tmp_path, rerun=True)
    first, second = map(json.loads, (tmp_path / "runs.jsonl").read_text().splitlines())
    assert first["result"]["test_loss"] == second["result"]["test_loss"]


@pytest.mark.slow
def test_a_run_whose_parameters_are_damaged_is_trained_again(tmp_path, capsys):
    runs = small_runs(2)
    train(runs, tmp_path)
    paths = [records.params_path(tmp_path, one.name) for one in runs]
    whole = [path.read_bytes() for path in paths]
    paths[0].write_bytes(whole[0][:-1])
    capsys.readouterr()
    train(runs, tmp_path)
    printed = capsys.readouterr().out
    assert "1 of 2 runs are finished already" in printed
    assert "the parameters of 1 finished runs are damaged: they are trained anew" in printed
    assert [path.read_bytes() for path in paths] == whole
    train(runs, tmp_path)
    assert "2 of 2 runs are finished already" in capsys.readouterr().out


@pytest.mark.slow
def test_a_damaged_record_is_set_aside_and_its_run_trained_again(tmp_path, caplog):
    runs = small_runs(2)
    train(runs, tmp_path)
    path, before = tmp_path / "runs.jsonl", records.load_all(tmp_path)
    damaged = path.read_text().replace('"seed": 1,', '"seed": 7,')
    path.write_text(damaged)
    train(runs, tmp_path)
    assert "runs.jsonl, line 2 is damaged and left out" in caplog.text
    assert (tmp_path / "runs.jsonl.damaged").read_text() == damaged.splitlines()[1] + "\n"
    after = records.load_all(tmp_path)
    assert len(path.read_text().splitlines()) == 2
    for one in runs:
        old, new = before[one.name].result, after[one.name].result
        assert {**old, **dict.fromkeys(tiny.OF_THE_MACHINE)} == {**new, **dict.fromkeys(tiny.OF_THE_MACHINE)}


@pytest.mark.slow
def test_what_is_observed_is_no_part_of_a_run(tmp_path, capsys):
    runs = small_runs(**{"routing.iterations": 2})
    train(runs, tmp_path)
    observed = overrides.resolve({"eval.max_routing_iterations": 3}).observed
    train(runs, tmp_path, observed=observed)
    printed = capsys.readouterr().out
    assert "1 of 1 runs are finished already" in printed
    assert "1 finished runs were trained without eval.max_routing_iterations=3; --rerun" in printed


@pytest.mark.slow
def test_a_program_that_another_process_trains_is_waited_for(tmp_path, monkeypatch):
    """The lock is held elsewhere at first; meanwhile that process finishes the run, so it is not trained here."""
    [one] = small_runs()
    train([one], tmp_path / "elsewhere")
    [record] = records.load_all(tmp_path / "elsewhere").values()
    workdir = tmp_path / "here"
    [key] = plan.group_by_program([one])
    other = ProgramLock(workdir / "programs" / key / "lock")
    assert other.acquire()
    waited = []

    def finish_elsewhere(seconds):
        waited.append(seconds)
        records.append([record], workdir)
        other.release()

    monkeypatch.setattr(time, "sleep", finish_elsewhere)
    monkeypatch.setattr(run, "train_together", lambda *_: pytest.fail("it was finished by the other process"))
    train([one], workdir)
    assert len(waited) == 1
    assert len((workdir / "runs.jsonl").read_text().splitlines()) == 1


def test_a_worker_leaves_what_another_process_trains(tmp_path, monkeypatch, capsys):
    """It trains the program that is free, and ends; which records are missing is not its matter."""
    [free], [held] = small_runs(), small_runs(**{"routing.iterations": 2})
    trained = []
    monkeypatch.setattr(run, "train_together", lambda part, *_: trained.extend(part) or 0.0)
    other = ProgramLock(tmp_path / "programs" / next(iter(plan.group_by_program([held]))) / "lock")
    assert other.acquire()
    train([held, free], tmp_path, wait=False)
    assert trained == [free]
    assert "1 program left to other processes\n" in capsys.readouterr().out
    other.release()
    train([held, free], tmp_path, wait=False)
    assert trained == [free, held, free]


@pytest.mark.slow
def test_two_processes_share_the_work(tmp_path):
    """The same command twice at once: every run is there, none twice, and equal to the bit to one process's."""
    line = tiny.command_line(*tiny.STUDY, f"--workdir={tmp_path}")
    tiny.study()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(line, cwd=tiny.ROOT, env=tiny.environment(), **pipes) for _ in range(2)]
    printed = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    names = [line.split('"name": "')[1].split('"')[0] for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert sorted(names) == sorted(set(names)) == sorted(tiny.runs(tiny.study().folder))
    for name, one in tiny.runs(tiny.study().folder).items():
        assert tiny.runs(tmp_path)[name].params == one.params


@pytest.mark.parametrize(
    ("settings", "files"),
    [
        ({"routing.name": "max_min"}, {"max_min", "dynamic", "result", "router", "layer"}),
        ({"routing.name": "variational"}, {"variational", "em", "result", "router", "layer"}),
        ({"model.name": "matrix_capsnet"}, {"em", "convolution", "inverted_attention", "result", "router", "layer"}),
        ({"model.name": "cnn_small"}, set()),
    ],
)
def test_a_routers_code_is_also_what_it_is_made_of(settings, files):
    names = [name for name in code.code_of(overrides.build(settings)) if name.startswith("routing/")]
    assert {name.removeprefix("routing/").removesuffix(".py") for name in names} == files


@pytest.mark.parametrize(
    ("dataset", "files"),
    [
        ("folder:{}", {"folder", "picture"}),
        ("multi_mnist", {"pairs"}),
        ("affnist", {"affnist", "pairs"}),
        ("smallnorb_azimuth", {"tfds/viewpoints", "tfds/decode"}),
        ("mnist_5k", {"embedded"}),
    ],
)
def test_the_code_of_a_set_is_what_makes_its_images(dataset, files, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").touch()
    found = code.code_of(overrides.build({"data.dataset": dataset.format(tmp_path)}))
    of_all = {"augment", "split", "transform"}
    assert {n[5:-3] for n in found if n.startswith("data/")} == files | of_all


def test_checkpoints_that_are_newer_than_records_are_kept(tmp_path):
    """A group that was finished, and is trained anew, was interrupted: another one of its program leaves it alone."""
    names, recorded = ["a", "b"], datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    program = tmp_path / "programs/key"
    records.register_group(tmp_path, "key", names)
    checkpoints = checkpoint_folder(program, names)
    found = {
        name: records.Record(name, {}, 0, {}, {"diverged_step": -1}, tmp_path, recorded=recorded.isoformat())
        for name in names
    }
    left = []
    for seconds in (60, -60):
        checkpoints.mkdir(parents=True, exist_ok=True)
        os.utime(checkpoints, (recorded.timestamp() + seconds,) * 2)
        run._remove_finished(tmp_path, program, found)
        left.append(checkpoints.exists())
    assert left == [True, False]


@pytest.mark.parametrize(("name", "value"), [("max_shift", 1), ("flip", True), ("transform", "inverted")])
def test_words_of_stories_are_not_moved(name, value):
    stories = {"data.dataset": "babi_1", "model.name": "memory_network", f"data.{name}": value}
    with pytest.raises(ConfigError, match=rf"^babi_1 holds stories, .* leave out data\.{name}$"):
        plan.check([Run(overrides.build(stories), 0)], {})
