"""Runs that are stopped, killed or refused at the level of the command, compared with one that was not."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

from capsnet_jax import config
from capsnet_jax.sweeps import checkpoint, lock, records
from capsnet_jax.sweeps import run as sweep
from capsnet_jax.training import step as train
from tests import tiny


def unhurt(iterations: int | None = None) -> dict[str, tiny.CellFiles]:
    """The study's cells, all of them or those of one iteration count."""
    cells = tiny.cells(tiny.study().folder)
    return {n: c for n, c in cells.items() if iterations in (None, c.record["config"]["routing.iterations"])}


def assert_same(workdir: Path, wanted: dict[str, tiny.CellFiles]) -> None:
    """Parameters to the bit, and every number of every record but speeds."""
    found = tiny.cells(workdir)
    assert found.keys() == wanted.keys()
    for name, cell in wanted.items():
        assert cell.params
        assert found[name].params == cell.params
        assert found[name].result == cell.result
        assert found[name].rows == cell.rows
        assert found[name].events == cell.events


def test_the_study_itself_is_whole():
    cells = unhurt()
    assert len(cells) == 4
    assert len({tuple(cell.params.items()) for cell in cells.values()}) == 4
    for cell in cells.values():
        assert [row["epoch"] for row in cell.rows] == [1, 2, 3]
        names = [name for name in cell.rows[0] if name != "epoch"]
        assert sorted(cell.events) == sorted(
            (name.replace("_", "/", 1), row["epoch"], pytest.approx(row[name])) for row in cell.rows for name in names
        )
        assert {n: v for n, v in cell.result.items() if n in cell.rows[2]} == {
            n: v for n, v in cell.rows[2].items() if "_at_" not in n
        }
        assert {"test_error_at_1", "test_error_at_2"} <= set(cell.result)
        assert cell.result["diverged_step"] == -1
    assert tiny.visible(tiny.study().folder) == [
        "cells",
        "figures",
        "routing_iterations.csv",
        "routing_iterations.json",
    ]


def start(*arguments: object) -> subprocess.Popen[str]:
    line = tiny.command_line(*arguments)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(line, cwd=tiny.ROOT, env=tiny.environment(), text=True, **pipes)


def test_stopped_by_signals_and_continued(tmp_path):
    """SIGTERM from outside while the first program compiles; SIGINT in the last moments of its training."""
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
    assert not tiny.cells(tmp_path)
    [program] = (tmp_path / "programs").iterdir()
    [at] = tiny.visible(program)
    assert 0 < int(at) < tiny.STEPS

    # The sixth row of metrics is the second run's third epoch: all steps are done, no result is written.
    done = tiny.run(*tiny.STUDY, f"--workdir={tmp_path}", fault="capsnet_jax.sweeps.run.CellWriter.epoch:6:SIGINT")
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr.endswith("stopped by SIGINT; the same command continues\n")
    assert f"going on from step {at}" in done.stdout
    assert not tiny.cells(tmp_path)

    printed = tiny.succeed(*tiny.STUDY, f"--workdir={tmp_path}")
    assert f"going on from step {tiny.STEPS}" in printed
    assert_same(tmp_path, unhurt())
    assert not list((tmp_path / "programs").glob("*"))


def test_killed_at_many_moments_and_continued(tmp_path):
    """SIGKILL while a checkpoint is written, between two runs' metrics, after training, and between two results."""
    tiny.study()
    moments = [
        "capsnet_jax.sweeps.checkpoint._digests:2:SIGKILL",  # the second save is written, and not yet renamed
        "capsnet_jax.sweeps.run.CellWriter.epoch:4:SIGKILL",
        "capsnet_jax.sweeps.checkpoint.save_params:1:SIGKILL",
        "capsnet_jax.sweeps.records.write_result:2:SIGKILL",
    ]
    left = []
    for moment in moments:
        done = tiny.run(*tiny.FIRST, f"--workdir={tmp_path}", fault=moment)
        assert done.returncode == -signal.SIGKILL, done.stderr
        left.append([path.name for path in tmp_path.glob("programs/*/.*.partial*")])
    assert left[0], "the first kill came too early or too late to interrupt a save"
    assert len(tiny.cells(tmp_path)) == 1
    tiny.succeed(*tiny.FIRST, f"--workdir={tmp_path}")
    assert_same(tmp_path, unhurt(iterations=1))
    assert not list((tmp_path / "programs").glob("*")), "checkpoints that nothing will ever use again are left"
    assert (tmp_path / "routing_iterations.csv").exists()


def times(workdir: Path) -> dict[str, int]:
    return {str(p.relative_to(workdir)): p.stat().st_mtime_ns for p in workdir.glob("cells/*/*") if p.is_file()}


@pytest.mark.parametrize(
    ("arguments", "settings", "new"),
    [
        (["--seeds=4"], [(0.01, seed) for seed in range(4)], "2 runs"),
        (
            ["--seeds=2", "--sweep=train.learning_rate=0.002,0.01"],
            [(rate, s) for rate in (0.002, 0.01) for s in (0, 1)],
            "train.learning_rate=0.002 × 2 runs",
        ),
    ],
    ids=["seeds", "values"],
)
def test_only_what_is_new_is_run(arguments, settings, new, tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(tiny.study().folder, folder)
    before = times(folder)
    printed = tiny.succeed(*tiny.FIRST, *arguments, f"--workdir={folder}")
    after = times(folder)
    assert {path: after[path] for path in before} == before
    assert "2 of 4 runs are finished already" in printed
    assert f"[1/1] {new}: compiling\n" in printed
    assert "2 runs in 1 compiled training programs" in printed
    cells = [c.record for n, c in tiny.cells(folder).items() if c.record["config"]["routing.iterations"] == 1]
    assert sorted((c["config"]["train.learning_rate"], c["seed"]) for c in cells) == settings
    assert (folder / "routing_iterations.csv").read_text().count("\n") == 1 + 4 + 2  # all the workdir knows


def test_a_finished_command_trains_nothing(tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(tiny.study().folder, folder)
    before, table = times(folder), (folder / "routing_iterations.csv").read_bytes()
    printed = tiny.succeed(*tiny.STUDY, f"--workdir={folder}")
    assert printed.startswith("4 of 4 runs are finished already\n")
    assert "compil" not in printed
    assert times(folder) == before
    assert (folder / "routing_iterations.csv").read_bytes() == table
    assert re.search(r"mnist_5k +3 +2 .*\(n = 2\)", printed)


def test_a_second_process_is_refused(tmp_path):
    with lock.exclusive(tmp_path):
        done = tiny.run(*tiny.FIRST, f"--workdir={tmp_path}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{tmp_path} is in use by process {os.getpid()}: wait for it, or use another workdir\n"
    assert tiny.visible(tmp_path) == []


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
    """A sane learning rate and an absurd one in the program that the study's first runs had."""
    tiny.study()
    folder = tmp_path_factory.mktemp("diverged")
    return folder, tiny.run(*tiny.FIRST, "--sweep=train.learning_rate=0.01,1e30", "--seeds=1", f"--workdir={folder}")


def split(folder: Path) -> tuple[tuple[str, tiny.CellFiles], tuple[str, tiny.CellFiles]]:
    """The run that was fine and the one that was not."""
    fine, bad = sorted(tiny.cells(folder).items(), key=lambda item: item[1].record["config"]["train.learning_rate"])
    return fine, bad


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


def test_a_run_beside_it_is_as_ever(diverged):
    folder, _ = diverged
    (name, fine), _ = split(folder)
    assert fine.params
    assert fine == unhurt()[name]


def test_the_last_good_state_is_left(diverged):
    folder, done = diverged
    (fine, _), (bad, files) = split(folder)
    [program] = (folder / "programs").iterdir()
    assert str(program) in done.stderr
    cells = [records.load_cell(folder / "cells" / name) for name in (fine, bad)]
    configs, seeds = [config.unflatten(cell.settings) for cell in cells], [cell.seed for cell in cells]
    dataset = sweep.load_data(configs[0].data)
    restored = checkpoint.restore(program, train.abstract_states(configs, seeds, dataset))
    assert restored.state.diverged.tolist() == [-1, files.result["diverged_step"]]
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((restored.state.params, restored.state.opt_state)))
    kept = jax.tree.map(lambda leaf: leaf[0], restored.state.params)
    assert jax.tree.all(jax.tree.map(np.array_equal, kept, tiny.params(folder / "cells" / fine)))


def test_metrics_of_steps_that_were_not_made_are_no_numbers(diverged):
    """Not an error of 0 %: a reader of the table would take the run that failed for the best."""
    folder, _ = diverged
    _, (_, bad) = split(folder)
    assert [row["epoch"] for row in bad.rows] == [1, 2, 3]
    for row in (*bad.rows, bad.result):
        kept = ("epoch", "parameters", "diverged_step")
        assert {value for name, value in row.items() if name not in kept} == {None}
    assert bad.events == []


def test_the_same_command_says_again_that_it_diverged(diverged, tmp_path):
    folder, first = diverged
    copy = tmp_path / "work"
    shutil.copytree(folder, copy)
    before = times(copy)
    again = tiny.run(*tiny.FIRST, "--sweep=train.learning_rate=0.01,1e30", "--seeds=1", f"--workdir={copy}")
    assert times(copy) == before
    assert again.returncode == 1
    assert again.stderr.split(";")[0] == first.stderr.split(";")[0]
