"""The experiment as it is called, at sizes that take a moment: interrupted, finished, and drawn again."""

import dataclasses
import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from capsnet_jax.bench.ledger import from_csv
from experiments import throughput
from tests import tiny
from tests.bench import rows, small

# Inference alone: its two workers compile quickly.
EFFORT = dataclasses.replace(small.EFFORT, rounds=2, slow_rounds=2, compile_rounds=0, iterations=())
GROUPS = ("inference",)


def start(workdir, **more) -> subprocess.Popen[str]:
    line = small.command_line(f"--workdir={workdir}", effort=EFFORT, groups=GROUPS, **more)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(line, cwd=tiny.ROOT, env=tiny.environment(), text=True, **pipes)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_interrupted_finished_and_drawn_again(tmp_path, capsys):
    stopped = start(tmp_path)
    while not (workers := children(stopped.pid)):
        assert stopped.poll() is None, stopped.stderr.read()
        time.sleep(0.05)
    stopped.send_signal(signal.SIGTERM)
    _, told = stopped.communicate(timeout=60)
    assert (stopped.returncode, told.splitlines()[-1]) == (143, "stopped by SIGTERM; the same command continues")
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    assert tiny.visible(tmp_path) == []

    out, told = start(tmp_path).communicate(timeout=120)
    assert told == ""
    assert "inference speed / plain JAX" in out
    assert tiny.visible(tmp_path) == ["environment.json", "figures", "throughput.csv", "throughput.jsonl"]
    assert tiny.visible(tmp_path / "figures") == ["throughput-subjects-small.png"]
    found = from_csv((tmp_path / "throughput.csv").read_text())
    speeds = [(r.subject, r.round) for r in found if r.quantity == "inference"]
    assert speeds == [(subject, number) for number in range(2) for subject in ("capsnet_jax", "plain_jax")]
    assert all(row.value > 0 for row in found)
    assert {(row.preset, row.batch, row.iterations) for row in found} == {("small", 32, 3)}
    assert json.loads((tmp_path / "environment.json").read_text())["backend"] == "cpu"

    (tmp_path / "throughput.csv").unlink()
    code, out, _ = tiny.call(capsys, "--experiment=throughput", f"--workdir={tmp_path}", "--figures_only")
    assert code == 0
    assert "inference speed / plain JAX" in out
    assert from_csv((tmp_path / "throughput.csv").read_text()) == found


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


def test_a_worker_that_fails_is_one_line(tmp_path, capsys):
    """Images too small for the kernels are found by the worker that sets up the model."""
    size = ["--set=model.kernel=40", *tiny.SIZES]
    code, _, error = tiny.call(capsys, "--experiment=throughput", f"--workdir={tmp_path}", *size)
    assert code == 1
    assert len(error.splitlines()) == 1


def test_figures_for_every_case():
    both = rows.comparison() + rows.curves() + rows.comparison("small model.types=8") + rows.seeds("paper x=1")
    assert list(throughput.figures(both)) == ["subjects-paper", "scaling-paper", "subjects-small-1"]
    assert throughput.figures(rows.seeds()) == {}
