"""Groups measured with subjects that only pretend, at known speeds."""

import dataclasses
import importlib.util

import pytest

from capsnet_jax.bench import measure, records
from capsnet_jax.bench.measure import Group
from capsnet_jax.bench.process import WorkerError
from capsnet_jax.sweeps.interrupt import Interrupted
from tests.bench import small
from tests.bench.fake import DEAD, LOG, STEP, FakeProcess, asked

SUBJECTS = ("capsnet_jax", "plain_jax", "pytorch")
NEVER = lambda: None  # noqa: E731


@pytest.fixture
def bench(monkeypatch, tmp_path):
    LOG.clear()
    DEAD.clear()
    monkeypatch.setattr(measure, "Process", FakeProcess)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1")
    return measure._Bench(str(tmp_path), NEVER)


def group(name="training", kind="blocks", subjects=SUBJECTS, rounds=2, seconds=1.0, **fields):
    phase = "inference" if name == "inference" else "training"
    return Group(name, kind, tuple(small.workload(s, phase, **fields) for s in subjects), rounds, seconds)


def told(rows):
    return [tuple(row[name] for name in ("quantity", "subject", "round", "value", "unit")) for row in rows]


def test_blocks_in_turn_then_memory_and_compilation(bench):
    found = told(bench.measure(group())[0])
    speeds = {"capsnet_jax": 64.0, "plain_jax": 16.0, "pytorch": 32.0}  # batches of 32
    assert found[:6] == [("training", s, k, speeds[s], "images/s") for k in range(2) for s in SUBJECTS]
    assert found[6:] == [
        ("training_memory", "capsnet_jax", 0, 500.0, "MB"),
        ("compile_cold", "capsnet_jax", 0, 8.0, "s"),
        ("training_memory", "plain_jax", 0, 2000.0, "MB"),
        ("compile_cold", "plain_jax", 0, 8.0, "s"),
        ("training_memory", "pytorch", 0, 1000.0, "MB"),
    ]
    steps = {"capsnet_jax": 2, "plain_jax": 1, "pytorch": 1}  # of a block, and one before it that is not measured
    assert asked("run_steps")[-12:] == [(s, n) for s in SUBJECTS for n in (1, steps[s])] * 2


def test_new_processes_go_on_with_the_rounds_and_find_what_was_compiled(bench):
    once, thrice = group(), group()._replace(starts=3)
    assert once.digest != thrice.digest
    found = told(bench.measure(thrice)[0])
    rounds = [number for quantity, subject, number, *_ in found if (quantity, subject) == ("training", "pytorch")]
    assert rounds == list(range(6))
    assert [row[0] for row in found].count("training_memory") == 3
    assert {row[3] for row in found if row[0] == "compile_cold"} == {8.0}
    assert len(asked("open_subject")) == 9 == len([s for (s,) in asked("close") if s])


@pytest.mark.parametrize(
    ("name", "backend", "in_turn"), [("training", "cpu", True), ("batch", "cpu", False), ("batch", "gpu", True)]
)
def test_what_is_timed_is_compiled_while_the_others_rest(bench, name, backend, in_turn):
    bench._backend = backend
    bench.measure(group(name))
    order = [entry[0] for entry in LOG if entry[0] in ("receive", "compile_subject")]
    each = ["compile_subject", "receive"] * 3 if in_turn else ["compile_subject"] * 3 + ["receive"] * 3
    assert order == ["receive"] * 3 + each


def test_peers_share_initial_weights_of_one_size(bench):
    bench.measure(group())
    bench.measure(group("batch", changes={"train__batch_size": 8}))
    assert len(asked("initial_weights")) == 1
    bench.measure(group("classes", classes=4))
    assert len(asked("initial_weights")) == 2


def test_records_say_what_was_measured(bench):
    rows, _ = bench.measure(group("side", classes=4, side=20, subjects=["capsnet_jax"], runs=3, parallel="vmap"))
    wanted = {"preset": "small", "batch": 32, "iterations": 3, "classes": 4, "side": 20, "runs": 3, "parallel": "vmap"}
    assert all(wanted.items() <= row.items() for row in rows)
    assert rows[0]["value"] == 3 * 64.0  # images of all runs
    assert {row["quantity"] for row in rows} == {"training", "training_memory"}  # compile times: of the first group


def test_a_warm_compilation_is_by_a_second_process(bench):
    found = told(bench.measure(group("compile", "compile", ("capsnet_jax", "plain_jax")))[0])
    assert found == [
        (quantity, subject, number + (quantity == "compile_cold"), seconds, "s")
        for number in range(2)
        for subject in ("capsnet_jax", "plain_jax")
        for quantity, seconds in (("compile_cold", 8.0), ("compile_warm", 0.25))
    ]
    assert len(asked("compile_subject")) == 8 == len([s for (s,) in asked("close") if s])


def test_a_fit_together_then_each_seed_alone_by_its_own_process(bench):
    found = told(bench.measure(group("seeds", "seeds", ("capsnet_jax",), runs=3))[0])
    assert found == [
        (quantity, "capsnet_jax", number, seconds, "s")
        for number in range(2)
        for quantity, seconds in (("fit_together", 33.0), ("fit_alone", 39.0))
    ]
    assert asked("fit") == [(None, [0, 1, 2]), (None, [0]), (None, [1]), (None, [2])] * 2
    assert len(asked("close")) == 8


def test_seeds_alone_find_what_the_first_of_them_compiled(bench, monkeypatch):
    folders = []

    class Noted(FakeProcess):
        def __init__(self, name, stop, cache, failures):
            folders.append(cache)
            super().__init__(name, stop, cache, failures)

    monkeypatch.setattr(measure, "Process", Noted)
    bench.measure(group("seeds", "seeds", ("capsnet_jax",), runs=3))
    together, *alone = folders[:4]
    assert len(set(alone)) == 1
    assert len({together, alone[0], *folders[4:]}) == 4


@pytest.mark.parametrize("function", ["open_subject", "compile_subject", "run_steps", "peak_memory"])
def test_a_dead_subject_is_told_and_the_others_are_measured(bench, function):
    whole = told(bench.measure(group())[0])
    DEAD.add((function, "plain_jax"))
    rows, failures = bench.measure(group())
    assert failures == ["plain_jax: no memory left"]
    assert [row for row in told(rows) if row[1] != "plain_jax"] == [row for row in whole if row[1] != "plain_jax"]


def test_a_fit_that_fails_leaves_its_sum_out(bench):
    DEAD.add(("fit", None))
    rows, failures = bench.measure(group("seeds", "seeds", ("capsnet_jax",), runs=3))
    assert rows == []
    assert set(failures) == {"None: no memory left"}


def test_devices_that_are_not_there_are_left_out(bench, tmp_path, capsys, monkeypatch):
    [one] = group().workloads[:1]
    curve = group("devices")._replace(workloads=tuple(dataclasses.replace(one, devices=n) for n in (1, 2, 4)))
    measure.measure(tmp_path / "two.jsonl", {"small": [curve]}, NEVER)
    found = records.load(tmp_path / "two.jsonl")
    assert found["devices"].unique().tolist() == [1, 2]
    about = {"machine": "here", "backend": "cpu", "devices": "1", "revision": "abc"}
    monkeypatch.setattr(FakeProcess, "environment", lambda self: about)
    measure.measure(tmp_path / "one.jsonl", {"small": [curve]}, NEVER)
    assert records.load(tmp_path / "one.jsonl").empty  # one device has no curve
    assert "devices" not in capsys.readouterr().out.split("small")[-1]


def test_finished_groups_are_not_measured_again(bench, tmp_path, capsys):
    path = tmp_path / "t.jsonl"
    measure.measure(path, {"small": [group(), group("inference")]}, NEVER)
    first = records.load(path)
    assert set(first["group"]) == {"training", "inference"}
    assert set(zip(first["machine"], first["case"], first["revision"], first["versions"], strict=True)) == {
        ("here", "small", "abc", "jax 1, torch 1")
    }
    LOG.clear()
    measure.measure(path, {"small": [group(), group("inference")]}, NEVER)
    assert {entry[0] for entry in LOG} == {"environment", "torch_device", "close"}
    assert "[2/2] inference: measured already (code of revision abc)" in capsys.readouterr().out
    assert records.load(path).equals(first)
    LOG.clear()
    measure.measure(path, {"small": [group(), group("inference", rounds=3)], "other": [group()]}, NEVER)
    assert len(asked("open_subject")) == 6  # what is asked for otherwise, and the other case
    assert len(records.load(path)["case"].unique()) == 2


def test_a_group_with_a_dead_subject_is_measured_again(bench, tmp_path):
    path, cases = tmp_path / "t.jsonl", {"a": [group(), group("inference")], "b": [group()]}
    DEAD.add(("run_steps", "pytorch"))
    with pytest.raises(WorkerError, match=r"^pytorch: no memory left$"):
        measure.measure(path, cases, NEVER)
    frame = records.load(path)
    assert set(zip(frame["case"], frame["group"], strict=True)) == {
        ("a", "training"),
        ("a", "inference"),
        ("b", "training"),
    }
    assert set(frame[frame["quantity"] == "training"]["subject"]) == {"capsnet_jax", "plain_jax"}
    DEAD.clear()
    measure.measure(path, cases, NEVER)
    frame = records.load(path)
    assert set(frame[frame["quantity"] == "training"]["subject"]) == set(SUBJECTS)
    assert (frame["digest"] != "").all()


def test_without_ours_a_case_ends_and_the_next_is_measured(bench, tmp_path):
    path = tmp_path / "t.jsonl"
    DEAD.add(("open_subject", "capsnet_jax"))
    with pytest.raises(WorkerError, match="capsnet_jax: no memory left"):
        measure.measure(path, {"a": [group(), group("inference")], "b": [group()]}, NEVER)
    frame = records.load(path)
    assert set(zip(frame["case"], frame["group"], strict=True)) == {("a", "training"), ("b", "training")}


def test_an_interrupted_group_leaves_nothing_and_finished_ones_stay(bench, tmp_path, monkeypatch):
    path, run_steps = tmp_path / "t.jsonl", FakeProcess.run_steps

    def stopped(self, steps):
        if len(asked("run_steps")) > 20:
            raise Interrupted(15)
        return run_steps(self, steps)

    monkeypatch.setattr(FakeProcess, "run_steps", stopped)
    with pytest.raises(Interrupted):
        measure.measure(path, {"a": [group(), group("inference")]}, NEVER)
    assert set(records.load(path)["group"]) == {"training"}
    opened, closed = asked("open_subject"), [s for (s,) in asked("close") if s]
    assert len(opened) == len(closed) == 6


@pytest.mark.parametrize(
    ("backend", "device", "missing", "why"),
    [
        ("cpu", "cpu", None, ""),
        ("gpu", "cuda", None, ""),
        ("gpu", "cpu", None, "which computes on the CPU and JAX on gpu"),
        ("cpu", "cpu", "torch", "which is not installed: pip install -e '.[peers]' brings it"),
        ("cpu", "cpu", "torchvision", "which is not installed: pip install -e '.[peers]' brings it"),
    ],
)
def test_peers_that_are_not_here_are_left_out_with_a_line(bench, monkeypatch, capsys, backend, device, missing, why):
    about = {"machine": "here", "backend": backend, "devices": "1", "revision": ""}
    monkeypatch.setattr(FakeProcess, "environment", lambda self: dict(about))
    monkeypatch.setattr(FakeProcess, "torch_device", lambda self: device)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else name)
    _, absent = bench.environment(set(STEP))
    said = capsys.readouterr().out
    assert why in said
    assert len(said.splitlines()) == bool(why)
    assert absent == ({"pytorch", "torchvision", "torchvision_channels_last"} if why else set())


def test_without_peers_pytorch_is_not_asked_for(bench):
    about, absent = bench.environment({"capsnet_jax", "plain_jax"})
    assert (about["versions"], absent) == ("jax 1", set())
    assert asked("torch_device") == []


def test_a_record_says_the_machine_and_the_code():
    about = measure.environment()
    assert set(about) == {"machine", "backend", "devices", "revision"}
    assert about["machine"].endswith(" cores") == (about["backend"] == "cpu")
    assert len(about["revision"].rstrip("+")) == 40
