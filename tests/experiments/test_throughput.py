"""The experiment as it is called, at sizes that take a moment: interrupted, finished, and drawn again."""

import dataclasses
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from capsnet_jax import overrides
from capsnet_jax.bench.workload import OURS
from capsnet_jax.config import PRESETS, Config, ConfigError
from experiments import throughput
from experiments.throughput import CONFIG, PEERS, Effort
from tests import tiny
from tests.bench import rows, small
from tests.bench.rows import frame

# Inference alone: its two subjects compile quickly.
EFFORT = dataclasses.replace(small.EFFORT, rounds=2, compile_rounds=0, iterations=())
GROUPS = ("inference",)


def start(workdir, **more) -> subprocess.Popen[str]:
    line = small.command_line(f"--workdir={workdir}", effort=EFFORT, groups=GROUPS, **more)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(line, cwd=tiny.ROOT, env=tiny.environment(), text=True, **pipes)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_until_gone(pids):
    for _ in range(100):
        if not [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
            return
        time.sleep(0.05)
    pytest.fail("a process lives on")


@pytest.mark.slow
def test_interrupted_finished_and_drawn_again(tmp_path, capsys):
    stopped = start(tmp_path)
    while len(workers := children(stopped.pid)) < 2:  # a subject's, and Python's that tidies up
        assert stopped.poll() is None, stopped.stderr.read()
        time.sleep(0.05)
    stopped.send_signal(signal.SIGTERM)
    _, told = stopped.communicate(timeout=60)
    assert (stopped.returncode, told.splitlines()[-1]) == (143, "stopped by SIGTERM; the same command continues")
    wait_until_gone(workers)
    assert tiny.visible(tmp_path) == []

    out, told = start(tmp_path).communicate(timeout=120)
    assert told == ""
    assert "inference speed / plain JAX" in out
    assert tiny.visible(tmp_path) == ["figures", "report.html", "throughput.csv", "throughput.jsonl"]
    [figure] = tiny.visible(tmp_path / "figures")
    assert figure.startswith("throughput-subjects-small-")
    found = pd.read_csv(tmp_path / "throughput.csv")
    speeds = found[found["quantity"] == "inference"][["subject", "round"]].to_numpy().tolist()
    assert speeds == [[subject, number] for number in range(2) for subject in ("capsnet_jax", "plain_jax")]
    assert (found["value"] > 0).all()
    assert set(zip(found["preset"], found["batch"], found["iterations"], strict=True)) == {("small", 32, 3)}
    assert found["versions"].str.startswith("jax ").all()

    (tmp_path / "throughput.csv").unlink()
    code, out, _ = tiny.call(capsys, "--experiment=throughput", f"--workdir={tmp_path}", "--figures_only")
    assert code == 0
    assert "inference speed / plain JAX" in out
    assert pd.read_csv(tmp_path / "throughput.csv").equals(found)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--set=routing.name=uniform"], "throughput is measured with routing.name=dynamic"),
        (["--dataset=kmnist"], "images are synthetic"),
        (["--set=routing.iteration=3"], "did you mean 'routing.iterations'?"),
        (["--figures_only"], "no finished run of throughput"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, capsys, arguments, told):
    code, _, error = tiny.call(capsys, "--experiment=throughput", f"--workdir={tmp_path / 'new'}", *arguments)
    assert code == 2
    assert told in error
    assert len(error.splitlines()) == 1


@pytest.mark.slow
def test_a_subject_that_fails_is_one_line(tmp_path, capsys, monkeypatch):
    """Images too small for the kernels are found by the process that sets up the model."""
    monkeypatch.setattr(throughput, "EFFORT", dataclasses.replace(EFFORT, rounds=1))
    size = ["--set=model.kernel=40", *tiny.SIZES]
    code, _, error = tiny.call(capsys, "--experiment=throughput", f"--workdir={tmp_path}", *size)
    assert code == 3
    assert len(error.splitlines()) == 1


def setting(preset="paper", **changes) -> Config:
    base = overrides.from_preset(preset, CONFIG)
    return overrides.override(base, {path.replace("__", "."): value for path, value in changes.items()})


def groups(given, **effort):
    return {group.name: group for group in throughput.groups(given, Effort(**effort))}


def presets(workloads):
    return [w.settings["preset"] for w in workloads]


def test_everything_is_measured():
    found = groups(setting())
    assert list(found) == [
        *("training", "inference", "compile", "iterations", "batch", "classes", "side", "runs", "devices", "seeds"),
    ]
    training = found["training"].workloads
    assert [w.subject for w in training] == [OURS, OURS, *PEERS]
    assert presets(training) == ["paper", "small", *["paper"] * 3]
    assert {w.phase for w in training} == {"training"}
    assert [w.subject for w in found["inference"].workloads] == [OURS, *PEERS]
    assert {w.phase for w in found["inference"].workloads} == {"inference"}
    assert [w.subject for w in found["compile"].workloads] == [OURS, "plain_jax"]


def test_curves_vary_one_thing_each():
    effort, found = Effort(), groups(setting())
    names = ("iterations", "batch", "classes", "side")
    for name in names:
        for subject in (OURS, "pytorch"):
            own = [w for w in found[name].workloads if w.subject == subject]
            assert tuple(getattr(w, name) for w in own) == getattr(effort, name)
            assert all(len({getattr(w, other) for w in own}) == 1 for other in names if other != name)
    assert {name: set(presets(found[name].workloads)) for name in names} == {
        **{"iterations": {"paper"}, "batch": {"paper"}, "classes": {"small"}, "side": {"small"}}
    }


def test_runs_share_a_program_in_both_ways():
    found = [(w.runs, w.parallel) for w in groups(setting())["runs"].workloads]
    assert found == [(1, "map"), (2, "map"), (5, "map"), (10, "map"), (2, "vmap"), (5, "vmap"), (10, "vmap")]


def test_devices_take_a_run_each_or_share_one():
    found = [(w.devices, w.runs) for w in groups(setting())["devices"].workloads]
    assert found == [(1, 1), (2, 2), (4, 4), (8, 8), (2, 1), (4, 1), (8, 1)]


def test_an_empty_curve_is_no_group():
    found = groups(setting(), iterations=(), runs=(), devices=(), compile_rounds=0, seeds=0)
    assert list(found) == ["training", "inference", "batch", "classes", "side"]


def test_seeds_are_trained_for_the_efforts_epochs():
    [together] = groups(setting(), seeds=3, epochs=7)["seeds"].workloads
    assert (together.runs, together.settings["train.epochs"], together.settings["preset"]) == (3, 7, "small")


def test_changes_hold_for_both_presets():
    given = setting(model__channels=12, model__precision="bfloat16")
    for group in groups(given).values():
        assert all(w.settings["model.channels"] == 12 for w in group.workloads)
    other = throughput.rebase(given, CONFIG, "small")
    assert (other.preset, other.model.name, other.train.schedule) == ("small", "capsnet_small", "cosine")
    assert (other.train.batch_size, throughput.rebase(other, CONFIG, "paper").train.batch_size) == (128, 128)
    assert throughput.rebase(other, CONFIG, "paper") == given
    assert throughput.case(given, CONFIG) == "paper model.channels=12 model.precision=bfloat16"


def test_the_digest_tells_what_was_asked():
    group = groups(setting())["training"]
    assert group.digest == groups(setting())["training"].digest
    others = [groups(setting(train__batch_size=64))["training"], groups(setting(), rounds=4)["training"]]
    others += [group._replace(workloads=group.workloads[:3]), group._replace(seconds=2.0), group._replace(starts=3)]
    assert len({group.digest, *(other.digest for other in others)}) == 6


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"routing__name": "uniform"}, r"routing\.name=dynamic"),
        ({"routing__gradient": "stop"}, r"routing\.gradient=full"),
        ({"loss__form": "official"}, r"loss\.form=paper"),
        ({"data__dataset": "kmnist"}, "images are synthetic"),
        ({"model__name": "sabour_cnn"}, "with a CapsNet"),
        ({"routing__temperature": 2.0}, r"routing\.temperature=1"),
        ({"train__batch_size": 9000}, r"lower train\.batch_size"),
        ({"train__optimizer": "muon"}, r"train\.optimizer=adam; its peers know no other"),
        ({"train__frozen": "conv1"}, r"train\.frozen=none"),
        ({"train__ema_epochs": 1.0}, r"train\.ema_epochs=0"),
        ({"routing__bias": True}, r"routing\.bias=false"),
        ({"model__squash": "half"}, r"model\.squash=sabour"),
        ({"data__max_rotation": 15.0}, r"data\.max_rotation=0"),
        ({"finetune__source": "mnist"}, r"finetune\.source=none"),
    ],
)
def test_settings_that_peers_do_not_know(changes, told):
    with pytest.raises(ConfigError, match=told):
        throughput.requires(setting(**changes), None)


@pytest.mark.parametrize("change", [{"routing__iterations": 1}, {"loss__m_plus": 0.8}, {"loss__down_weight": 0.3}])
def test_what_peers_know_can_be_measured(change):
    """One iteration has neither a temperature nor a gradient; the loss is one function for all."""
    throughput.requires(setting(**change), None)


def test_the_presets_can_be_measured_but_for_what_peers_do_not_know():
    for preset in PRESETS.keys() - {"released"}:
        throughput.requires(setting(preset), None)
    with pytest.raises(ConfigError, match=r"data\.shift_order=random; its peers know no other"):
        throughput.requires(setting("released"), None)


def test_all_comparisons():
    found = throughput.ratios(frame(rows.comparison() + rows.curves() + rows.seeds()))
    wanted = {
        "training speed / faster of PyTorch": (240 / 51, 3),
        "inference speed / faster of PyTorch": (240 / 51, 3),
        "training speed / plain JAX": (240 / 4.1, 2),
        "inference speed / plain JAX": (240 / 4.1, 2),
        "training memory / PyTorch eager": (1140 / 948, 1),
        "inference memory / PyTorch eager": (740 / 548, 1),
        "step time r = 3 / r = 1": (245 / 235, 2),
        "step time r = 7 / r = 1": (245 / 215, 2),
        "training speed small / paper": (3000 / 240, 3),
        "5 seeds of small alone / in one program, time": ((61 / 30 + 62 / 31) / 2, 2),
        "compile time, cold [s]": (6.0, 2),
        "compile time, warm [s]": (0.4, 1),
    }
    assert {name: (values.median(), len(values)) for name, values in found.items()} == {
        name: (pytest.approx(median), n) for name, (median, n) in wanted.items()
    }


def test_ratios_are_of_one_round():
    """A machine that is half as fast in round 1 slows both, so the ratio does not see it; round 2 has no neighbour."""
    ours, theirs = (10.0, 5.0, 99.0), (2.0, 1.0)
    found = [rows.row(value=value, round=k) for k, value in enumerate(ours)]
    found += [rows.row(value=value, subject="plain_jax", round=k) for k, value in enumerate(theirs)]
    assert throughput.ratios(frame(found))["training speed / plain JAX"].to_list() == [5.0, 5.0]


def test_the_faster_peer_is_chosen_in_every_round():
    speeds = {"capsnet_jax": (10.0, 10.0, 12.0), "pytorch": (1.0, 5.0), "pytorch_compiled": (2.0, 4.0, 3.0)}
    found = [rows.row(value=v, subject=s, round=k) for s, values in speeds.items() for k, v in enumerate(values)]
    assert throughput.ratios(frame(found))["training speed / faster of PyTorch"].to_list() == [5.0, 2.0, 4.0]


def test_what_was_not_measured_is_left_out():
    without = [row for row in rows.comparison() if not row["subject"].startswith("pytorch")]
    found = throughput.ratios(frame(without))
    assert not [name for name in found if "PyTorch" in name or "r = " in name or "seeds" in name]
    assert "training speed / plain JAX" in found


def test_a_spread_is_median_least_and_greatest():
    assert throughput.spread(pd.Series([4.0, 5.0, 4.5])) == "4.5 (4 to 5, n = 3)"
    assert throughput.spread(pd.Series([3.0, 1.0, 7.0, 2.0])) == "2.5 (1 to 7, n = 4)"
    assert throughput.spread(pd.Series([4.0])) == "4 (n = 1)"


def test_the_summary_tells_medians_and_ratios_of_each_machine_and_case():
    text = throughput.summary(
        frame(rows.comparison() + rows.comparison(machine="there") + rows.comparison("paper x=8"))
    )
    assert [line for line in text.splitlines() if line.startswith("paper")] == [
        *("paper, here", "paper, there", "paper x=8, here"),
    ]
    first = text.split("paper, there")[0].splitlines()
    cells = {line.split()[0]: line.split() for line in first if line.startswith(("plain_jax", "pytorch "))}
    assert sorted(cells["plain_jax"][2:]) == sorted(["4.12", "16.48", "904.1", "504.1", "6", "0.4"])
    assert sorted(cells["pytorch"][2:]) == sorted(["48.48", "193.9", "948", "548"])
    [ratio] = [line for line in first if line.startswith("training speed / plain JAX")]
    assert ratio.endswith("58.5 (58.5 to 58.5, n = 2)")


def test_figures_for_every_machine_and_case():
    found = rows.comparison() + rows.curves() + rows.comparison("small model.capsule_types=8") + rows.seeds("paper x=1")
    found += rows.comparison(machine="AMD EPYC/2 cores") + rows.comparison("paper x=2")
    assert list(throughput.figures(found)) == [
        *("subjects-paper-here", "scaling-paper-here", "subjects-small-here"),
        *("subjects-paper-amd-epyc-2-cores", "subjects-paper-here-4"),
    ]
    assert throughput.figures(rows.seeds()) == {}
    assert throughput.figures([]) == {}
