"""Groups measured with workers that only pretend, at known speeds."""

import dataclasses

import pytest

from capsnet_jax.bench import measure, nets, plan
from capsnet_jax.bench.plan import Effort, Group
from tests.bench import small
from tests.bench.fake_process import LOG, STEP, FakeProcess


@pytest.fixture
def bench(monkeypatch, tmp_path):
    LOG.clear()
    monkeypatch.setattr(measure, "Process", FakeProcess)
    monkeypatch.setattr(plan, "EFFORT", Effort(slow_rounds=1))
    return measure.Bench(tmp_path, lambda: None)


def group(name="training", kind="blocks", subjects=tuple(STEP), rounds=2, seconds=1.0, **fields):
    phase = "inference" if name == "inference" else "training"
    return Group(name, kind, tuple(small.workload(s, phase, **fields) for s in subjects), rounds, seconds)


def asked(do):
    return [entry[1:] for entry in LOG if entry[0] == do]


def told(rows):
    return [(row.quantity, row.subject, row.round, row.value, row.unit) for row in rows]


def test_blocks_in_turn_then_memory_and_compilation(bench):
    found = told(bench.measure(group()))
    speeds = {"capsnet_jax": 64.0, "plain_jax": 16.0, "pytorch": 32.0}  # batches of 32
    assert found[:6] == [("training", s, k, speeds[s], "images/s") for k in range(2) for s in STEP]
    assert found[6:] == [
        ("training_memory", "capsnet_jax", 0, 500.0, "MB"),
        ("compile_cold", "capsnet_jax", 0, 8.0, "s"),
        ("training_memory", "plain_jax", 0, 2000.0, "MB"),
        ("compile_cold", "plain_jax", 0, 8.0, "s"),
        ("training_memory", "pytorch", 0, 1000.0, "MB"),
    ]
    steps = {"capsnet_jax": 2, "plain_jax": 1, "pytorch": 1}  # of a block, and one before it that is not measured
    assert asked("run")[-12:] == [(s, n) for s in STEP for n in (1, steps[s])] * 2


def test_new_processes_go_on_with_the_rounds_and_find_what_was_compiled(bench):
    once, thrice = group(), group()._replace(starts=3)
    assert once.digest != thrice.digest
    found = told(bench.measure(thrice))
    rounds = [number for quantity, subject, number, *_ in found if (quantity, subject) == ("training", "pytorch")]
    assert rounds == list(range(6))
    assert [row[0] for row in found].count("training_memory") == 3
    assert {row[3] for row in found if row[0] == "compile_cold"} == {8.0}
    assert len(asked("open")) == 9 == len([s for (s,) in asked("close") if s])


@pytest.mark.parametrize(
    ("name", "backend", "in_turn"), [("training", "cpu", True), ("batch", "cpu", False), ("batch", "gpu", True)]
)
def test_what_is_timed_is_compiled_while_the_others_rest(bench, name, backend, in_turn):
    bench.backend = backend
    list(bench.measure(group(name)))
    order = [entry[0] for entry in LOG if entry[0] in ("receive", "prepare")]
    assert order == ["receive"] * 3 + (["prepare", "receive"] * 3 if in_turn else ["prepare"] * 3 + ["receive"] * 3)


def test_workers_end_with_their_group(bench):
    list(bench.measure(group()))
    order = [entry[0] for entry in LOG if entry[0] in ("open", "prepare", "run", "peak", "close")]
    assert [do for do in dict.fromkeys(order) if do != "close"] == ["open", "prepare", "run", "peak"]
    assert order[-3:] == ["close"] * 3
    assert sorted(s for (s,) in asked("close") if s) == sorted(STEP)


def test_peers_share_one_file_of_initial_weights_a_size(bench):
    list(bench.measure(group()))
    list(bench.measure(group("batch", changes={"train__batch_size": 8})))
    assert len(asked("weights")) == 1
    list(bench.measure(group("classes", classes=4)))
    assert len(asked("weights")) == 2


def test_rows_say_what_was_measured(bench):
    rows = list(bench.measure(group("side", classes=4, side=20, subjects=["capsnet_jax"], runs=3, across="vmap")))
    expected = {"preset": "small", "batch": 32, "iterations": 3, "classes": 4, "side": 20, "runs": 3, "across": "vmap"}
    for row in rows:
        assert {name: getattr(row, name) for name in expected} == expected
        assert (row.group, row.case) == ("side", "")
    assert rows[0].value == 3 * 64.0  # images of all runs
    assert {row.quantity for row in rows} == {"training", "training_memory"}  # compile times: of the first group


def test_inference_has_its_own_memory(bench):
    assert {row.quantity for row in bench.measure(group("inference"))} == {"inference", "inference_memory"}


def test_a_warm_compilation_is_by_a_second_process(bench):
    found = told(bench.measure(group("compile", "compile", ("capsnet_jax", "plain_jax"))))
    assert found == [
        (quantity, subject, number + (quantity == "compile_cold"), seconds, "s")
        for number in range(2)
        for subject in ("capsnet_jax", "plain_jax")
        for quantity, seconds in (("compile_cold", 8.0), ("compile_warm", 0.25))
    ]
    assert len(asked("prepare")) == 8 == len([s for (s,) in asked("close") if s])


def test_a_fit_together_then_each_seed_alone_by_its_own_process(bench):
    found = told(bench.measure(group("seeds", "fits", ("capsnet_jax",), runs=3)))
    assert found == [
        (quantity, "capsnet_jax", number, seconds, "s")
        for number in range(2)
        for quantity, seconds in (("fit_together", 33.0), ("fit_alone", 39.0))
    ]
    assert asked("fit") == [(None, [0, 1, 2]), (None, [0]), (None, [1]), (None, [2])] * 2
    assert len(asked("close")) == 8


def test_where_one_process_holds_the_device_there_is_one_at_a_time(bench):
    bench.backend = "tpu"
    found = told(bench.measure(group(seconds=4.0)))
    running = 0
    for entry in LOG:
        running += {"start": 1, "close": -1}.get(entry[0], 0)
        assert running <= 1
    assert [row[1] for row in found[:6]] == list(STEP) * 2
    memory = {subject: value for quantity, subject, _, value, _ in found if quantity == "training_memory"}
    assert memory == {subject: 1000 * step for subject, step in STEP.items()}
    # Each new process of a group finds what its first one compiled; the cold time is that one's.
    assert {row[3] for row in found if row[0] == "compile_cold"} == {8.0}


def test_finished_groups_are_not_measured_again(bench, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(measure, "_look_around", lambda *_: ({"backend": "cpu"}, ["plain_jax"]))
    monkeypatch.setattr(plan, "EFFORT", small.EFFORT)
    measure.measure([small.settings()], tmp_path, lambda: None)
    first = measure.Ledger(tmp_path).rows()
    assert {row.case for row in first} == {plan.case(small.settings())}
    assert first[0].group == "training"
    LOG.clear()
    measure.measure([small.settings()], tmp_path, lambda: None)
    assert LOG == []
    assert "[1/4] training: measured already" in capsys.readouterr().out
    monkeypatch.setattr(plan, "EFFORT", dataclasses.replace(small.EFFORT, iterations=(1, 2, 3)))
    measure.measure([small.settings()], tmp_path, lambda: None)
    assert {entry[1] for entry in LOG if entry[0] == "run"} == {"capsnet_jax"}  # that curve alone
    rows = measure.Ledger(tmp_path).rows()
    assert {row.iterations for row in rows if row.group == "iterations"} == {1, 2, 3}


@pytest.mark.parametrize(
    ("backend", "device", "told"),
    [
        ("cpu", "cpu", ""),
        ("gpu", "cuda", ""),
        ("gpu", "cpu", "which computes on the CPU and JAX on gpu"),
        ("cpu", None, "which is not installed: pip install -e '.[peers]' brings it"),
    ],
)
def test_pytorch_is_left_out_with_a_line(bench, monkeypatch, capsys, backend, device, told):
    answers = {"about": {"backend": backend}, "about_pytorch": {"device": device, "version": "1"}}
    monkeypatch.setattr(FakeProcess, "ask", lambda self, do, **_: dict(answers[do]))
    monkeypatch.setattr(measure.importlib.util, "find_spec", lambda name: device)
    about, peers = measure._look_around(bench, plan)
    said = capsys.readouterr().out
    assert told in said
    assert len(said.splitlines()) == bool(told)
    assert peers == (["plain_jax"] if told else ["pytorch", "pytorch_compiled", "plain_jax"])
    assert about["backend"] == backend
    assert ("pytorch" in about) == (device is not None)


@pytest.mark.parametrize("missing", ["torch", "torchvision", None])
def test_torchvision_is_left_out_with_a_line(bench, monkeypatch, capsys, missing):
    versions = {"about": {"backend": "cpu"}, "about_pytorch": {"device": "cpu"}, "about_torchvision": {"version": "1"}}
    monkeypatch.setattr(FakeProcess, "ask", lambda self, do, **_: dict(versions[do]))
    monkeypatch.setattr(measure.importlib.util, "find_spec", lambda name: None if name == missing else name)
    about, peers = measure._look_around(bench, nets)
    told = "without rows of torchvision, which is not installed: pip install -e '.[peers]' brings it\n"
    assert capsys.readouterr().out == (told if missing else "")
    assert peers == ([] if missing else ["torchvision", "torchvision_channels_last"])
    assert set(about) == ({"backend"} if missing else {"backend", "pytorch", "torchvision"})
