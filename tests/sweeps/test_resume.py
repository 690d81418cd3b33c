"""Runs that are stopped, killed or refused at the level of the command, compared with one that was not."""

import dataclasses
import math
import re
import shutil
import signal
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

from capsnet_jax import overrides
from capsnet_jax.sweeps import checkpoint, plan, records, train
from capsnet_jax.training.fit import abstract_states
from tests import tiny


def uninterrupted(iterations: int | None = None) -> dict[str, tiny.RunFiles]:
    """The study's runs, all of them or those of one iteration count."""
    runs = tiny.runs(tiny.study().folder)
    return {n: r for n, r in runs.items() if iterations in (None, r.settings["routing.iterations"])}


def assert_same(workdir: Path, wanted: dict[str, tiny.RunFiles]) -> None:
    """Parameters to the bit, and every number of every record but speeds."""
    runs = tiny.runs(workdir)
    assert runs.keys() == wanted.keys()
    for name, run in wanted.items():
        assert run.params
        assert runs[name].params == run.params
        assert runs[name].result == run.result
        assert runs[name].rows == run.rows
        assert runs[name].events == run.events


def checkpoints(workdir: Path) -> list[Path]:
    return sorted(path for path in workdir.glob("programs/*/*/*") if path.suffix == ".safetensors")


def scalars(run: tiny.RunFiles) -> list[tuple[str, int, float]]:
    return [event for event in run.events if event[0].startswith(("train/", "validation/", "test/"))]


def rate(settings: dict, step: int) -> float:
    """The study's learning rate at a step: a linear warm-up, and half a cosine."""
    assert settings["train.schedule"] == "cosine"
    warmup = settings["train.warmup"] * tiny.STEPS
    decay = 0.5 * (1 + math.cos(math.pi * max(step - warmup, 0) / (tiny.STEPS - warmup)))
    highest, least = settings["train.learning_rate"], settings["train.min_learning_rate"]
    return max(highest * decay, least) * min(1, (step + 1) / max(warmup, 1))


def test_the_study_itself_is_whole():
    runs = uninterrupted()
    assert len(runs) == 4
    assert len({tuple(run.params.items()) for run in runs.values()}) == 4
    for run in runs.values():
        assert [row["epoch"] for row in run.rows] == [1, 2, 3]
        names = [name for name in run.rows[0] if name != "epoch"]
        tested = {n: v for n, v in run.result.items() if n.startswith("test_") and "_at_" not in n}
        told = [(name, row["epoch"], row[name]) for row in run.rows for name in names]
        told += [(name, 3, value) for name, value in tested.items()]
        told += [("train_learning_rate", row["epoch"], rate(run.settings, 8 * row["epoch"] - 1)) for row in run.rows]
        assert sorted(scalars(run)) == sorted((n.replace("_", "/", 1), at, pytest.approx(v)) for n, at, v in told)
        others = [("_hparams_/session_start_info", 0, 0.0), ("reconstructions", 3, 0.0)]
        assert sorted(set(run.events) - set(scalars(run))) == others
        assert {n: v for n, v in run.result.items() if n in run.rows[2]} == {
            n: v for n, v in run.rows[2].items() if "_at_" not in n
        }
        assert {"test_error_at_1", "test_error_at_2"} <= set(run.result)
        assert run.result["diverged_step"] == -1
    assert tiny.visible(tiny.study().folder) == [
        "experiments.jsonl",
        "figures",
        "programs",
        "programs.jsonl",
        "report.html",
        "routing_iterations.csv",
        "runs",
        "runs.jsonl",
    ]
    assert not checkpoints(tiny.study().folder)


def start(*arguments: object) -> subprocess.Popen[str]:
    line = tiny.command_line(*arguments)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(line, cwd=tiny.ROOT, env=tiny.environment(), text=True, **pipes)


@pytest.mark.slow
def test_stopped_by_signals_and_continued(tmp_path):
    """SIGTERM from outside while the first program compiles; SIGHUP in the last moments of its training."""
    tiny.study()  # has compiled the programs
    with start(*tiny.STUDY, f"--workdir={tmp_path}") as process:
        assert "[1/2] routing.iterations=1 × 2 runs: compiling" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert error == (
        "stopping after the current steps and saving; again to leave at once\n"
        "stopped by SIGTERM; the same command continues\n"
    )
    assert not tiny.runs(tmp_path)
    [saved] = checkpoints(tmp_path)
    at = saved.stem
    assert 0 < int(at) < tiny.STEPS

    # The sixth row of metrics is the second run's third epoch: all steps are done, no result is written.
    done = tiny.run(*tiny.STUDY, f"--workdir={tmp_path}", fault="capsnet_jax.sweeps.events.EventWriter.epoch:6:SIGHUP")
    assert done.returncode == 128 + signal.SIGHUP
    assert done.stderr.endswith("stopped by SIGHUP; the same command continues\n")
    assert f"going on from step {at}" in done.stdout
    assert not tiny.runs(tmp_path)

    printed = tiny.succeed(*tiny.STUDY, f"--workdir={tmp_path}")
    assert f"going on from step {tiny.STEPS}" in printed
    assert_same(tmp_path, uninterrupted())
    assert not checkpoints(tmp_path)


@pytest.mark.slow
def test_killed_at_many_moments_and_continued(tmp_path):
    """SIGKILL while a checkpoint is written, between two runs' metrics, after training, and before the records."""
    tiny.study()
    moments = [
        "os.replace:3:SIGKILL",  # the third file is written, and not yet renamed
        "capsnet_jax.sweeps.events.EventWriter.epoch:4:SIGKILL",
        "capsnet_jax.sweeps.checkpoint.save_params:2:SIGKILL",
        "capsnet_jax.sweeps.records.append:1:SIGKILL",
    ]
    left = []
    for moment in moments:
        done = tiny.run(*tiny.FIRST, f"--workdir={tmp_path}", fault=moment)
        assert done.returncode == -signal.SIGKILL, done.stderr
        left.append([path.name for path in tmp_path.glob("programs/*/*/.*.partial")])
    assert left[0], "the first kill came too early or too late to interrupt a save"
    assert not tiny.runs(tmp_path)
    tiny.succeed(*tiny.FIRST, f"--workdir={tmp_path}")
    assert_same(tmp_path, uninterrupted(iterations=1))
    assert not checkpoints(tmp_path), "checkpoints that nothing will ever use again are left"
    assert (tmp_path / "routing_iterations.csv").exists()


@pytest.mark.slow
def test_what_began_with_fewer_seeds_goes_on_when_more_are_asked_for(tmp_path):
    """The cut group continues from its checkpoint as it was, and the new seeds make another."""
    tiny.study()
    done = tiny.run(*tiny.FIRST, f"--workdir={tmp_path}", fault="capsnet_jax.sweeps.events.EventWriter.epoch:4:SIGKILL")
    assert done.returncode == -signal.SIGKILL, done.stderr
    printed = tiny.succeed(*tiny.FIRST, "--seeds=3", f"--workdir={tmp_path}")
    assert "going on from step" in printed
    names = uninterrupted(iterations=1)
    runs = tiny.runs(tmp_path)
    assert len(runs) == 3
    for name, run in names.items():
        assert runs[name].params == run.params
    assert not checkpoints(tmp_path)


def without_rate(words: list[str]) -> list[str]:
    """The command without its learning rate, which is to be swept."""
    return [word for word in words if "learning_rate" not in word]


def times(workdir: Path) -> dict[str, int]:
    return {str(p.relative_to(workdir)): p.stat().st_mtime_ns for p in workdir.glob("runs/*/*") if p.is_file()}


@pytest.mark.parametrize(
    ("arguments", "settings", "new"),
    [
        pytest.param(["--seeds=4"], [(0.01, s) for s in range(4)], "2 runs", marks=pytest.mark.slow),
        pytest.param(
            ["--seeds=2", "--sweep=train.learning_rate=0.002,0.01"],
            [(rate, s) for rate in (0.002, 0.01) for s in (0, 1)],
            "train.learning_rate=0.002 × 2 runs",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["seeds", "values"],
)
def test_only_what_is_new_is_run(arguments, settings, new, tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(tiny.study().folder, folder)
    before = times(folder)
    first = without_rate(tiny.FIRST) if "learning_rate" in arguments[-1] else tiny.FIRST
    printed = tiny.succeed(*first, *arguments, f"--workdir={folder}")
    after = times(folder)
    assert {path: after[path] for path in before} == before
    assert "2 of 4 runs are finished already" in printed
    assert f"[1/1] {new}: compiling\n" in printed
    assert "2 runs in 1 compiled training program (" in printed
    runs = [run for run in tiny.runs(folder).values() if run.settings["routing.iterations"] == 1]
    assert sorted((run.settings["train.learning_rate"], run.seed) for run in runs) == settings
    assert (folder / "routing_iterations.csv").read_text().count("\n") == 1 + 4 + 2  # all the workdir knows


@pytest.mark.slow
def test_a_finished_command_trains_nothing(tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(tiny.study().folder, folder)
    before, table = times(folder), (folder / "routing_iterations.csv").read_bytes()
    printed = tiny.succeed(*tiny.STUDY, f"--workdir={folder}")
    assert printed.startswith("4 of 4 runs are finished already (code of revision ")
    assert "compil" not in printed
    assert times(folder) == before
    assert (folder / "routing_iterations.csv").read_bytes() == table
    assert re.search(r"mnist_5k +3 +2 .*\(n = 2\)", printed)


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
    """A sane learning rate and an absurd one in the program that the study's first runs had."""
    tiny.study()
    folder = tmp_path_factory.mktemp("diverged")
    return folder, tiny.run(
        *without_rate(tiny.FIRST), "--sweep=train.learning_rate=0.01,1e30", "--seeds=1", f"--workdir={folder}"
    )


def split(folder: Path) -> tuple[tuple[str, tiny.RunFiles], tuple[str, tiny.RunFiles]]:
    """The run that was fine and the one that was not."""
    fine, bad = sorted(tiny.runs(folder).items(), key=lambda item: item[1].settings["train.learning_rate"])
    return fine, bad


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_told(diverged):
    folder, done = diverged
    _, (name, bad) = split(folder)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    step = bad.result["diverged_step"]
    assert line.startswith(f"{name}: loss not finite at step {step}; lower train.learning_rate")
    assert 0 <= step < 8  # the first step moves the parameters out of bounds
    assert re.search(r"mnist_5k +3 +1e\+30 +no finite value \(n = 0\)", done.stdout)
    [row] = [row for row in (folder / "routing_iterations.csv").read_text().splitlines() if ",1e+30," in row]
    assert ",nan," in row
    assert bad.result["test_error"] is None
    assert not bad.params


@pytest.mark.slow
def test_a_run_beside_it_is_as_ever(diverged):
    folder, _ = diverged
    (name, fine), _ = split(folder)
    assert fine.params
    assert dataclasses.replace(fine, command="") == dataclasses.replace(uninterrupted()[name], command="")


@pytest.mark.slow
def test_the_last_good_state_is_left(diverged):
    folder, done = diverged
    (fine, _), (bad, files) = split(folder)
    saved = {path.parent for path in checkpoints(folder)}
    [group] = saved
    assert str(group) in done.stderr
    loaded = records.load_all(folder)
    configs = [overrides.build(loaded[name].settings) for name in (fine, bad)]
    dataset = plan.load_data(configs[0].data)
    states = abstract_states(configs, [loaded[n].seed for n in (fine, bad)], dataset)
    restored = checkpoint.restore(group, states, code=train.marks_of(loaded[fine].code, configs))
    assert restored.state.diverged.tolist() == [-1, files.result["diverged_step"]]
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((restored.state.params, restored.state.opt_state)))
    params = jax.tree.map(lambda leaf: leaf[0], restored.state.params)
    assert jax.tree.all(jax.tree.map(np.array_equal, params, tiny.params(folder, fine)))


@pytest.mark.slow
def test_metrics_of_steps_that_were_not_made_are_no_numbers(diverged):
    """Not an error of 0 %: a reader of the table would take the run that failed for the best."""
    folder, _ = diverged
    _, (_, bad) = split(folder)
    assert [row["epoch"] for row in bad.rows] == [1, 2, 3]
    for row in (*bad.rows, bad.result):
        others = ("epoch", "parameters", "memory_mb", "diverged_step")
        assert {value for name, value in row.items() if name not in others} == {None}
    assert scalars(bad) == []


@pytest.mark.slow
def test_the_same_command_says_again_that_it_diverged(diverged, tmp_path):
    folder, first = diverged
    copy = tmp_path / "work"
    shutil.copytree(folder, copy)
    before = times(copy)
    again = tiny.run(
        *without_rate(tiny.FIRST), "--sweep=train.learning_rate=0.01,1e30", "--seeds=1", f"--workdir={copy}"
    )
    assert times(copy) == before
    assert again.returncode == 1
    assert again.stderr.split(";")[0] == first.stderr.split(";")[0]
