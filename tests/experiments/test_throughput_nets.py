"""The command with workers that only pretend: cut, finished, drawn again, and without torchvision."""

import pytest

from capsnet_jax.bench import measure, nets
from capsnet_jax.bench.ledger import from_csv
from capsnet_jax.bench.process import WorkerError
from experiments import throughput_nets
from tests import tiny
from tests.bench import rows
from tests.bench.fake_process import LOG, FakeProcess

COMMAND = ("--experiment=throughput_nets", "--sweep=model.name=resnet18,alexnet_single")


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    LOG.clear()
    monkeypatch.setattr(measure, "Process", FakeProcess)
    monkeypatch.setattr(measure, "_look_around", lambda *_: ({"backend": "cpu"}, list(nets.PEERS)))


def test_cut_finished_and_drawn_again(tmp_path, capsys, monkeypatch):
    ask = FakeProcess.ask

    def fail(self, do, **arguments):
        opened = len([entry for entry in LOG if entry[0] == "open"])
        if do == "run" and opened == 15:  # by the second start of the second of four groups
            raise WorkerError("torchvision: no memory left")
        return ask(self, do, **arguments)

    monkeypatch.setattr(FakeProcess, "ask", fail)
    code, out, error = tiny.call(capsys, *COMMAND, f"--workdir={tmp_path}")
    assert (code, error) == (1, "torchvision: no memory left\n")
    assert out.splitlines()[3] == "failed"
    assert "model.name=alexnet_single" in out.splitlines()[4]

    monkeypatch.setattr(FakeProcess, "ask", ask)
    LOG.clear()
    code, out, _ = tiny.call(capsys, *COMMAND, f"--workdir={tmp_path}")
    assert code == 0
    assert out.count("measured already") == 3  # the other network's too
    assert len([entry for entry in LOG if entry[0] == "open"]) == 9
    found = from_csv((tmp_path / "throughput_nets.csv").read_text())
    speeds = {(r.model, r.quantity, r.subject): r.value for r in found if r.unit == "images/s"}
    for phase in ("training", "inference"):
        for net in ("resnet18", "alexnet_single"):
            assert speeds[net, phase, "capsnet_jax"] == 8 / 0.5
            assert speeds[net, phase, "torchvision"] == 8 / 1.0
            assert speeds[net, phase, "torchvision_channels_last"] == pytest.approx(8 / 0.75, rel=1e-5)
    assert out.count("1.5 (1.5 to 1.5, n = 12)") == 4
    table, kept = "throughput_nets.csv", "throughput_nets.jsonl"
    assert tiny.visible(tmp_path) == ["environment.json", "figures", table, kept]
    assert tiny.visible(tmp_path / "figures") == ["throughput_nets-ratios.png"]

    LOG.clear()
    (tmp_path / "throughput_nets.csv").unlink()
    code, again, _ = tiny.call(capsys, "--experiment=throughput_nets", f"--workdir={tmp_path}", "--figures_only")
    assert (code, LOG) == (0, [])
    assert again.strip() in out
    assert from_csv((tmp_path / "throughput_nets.csv").read_text()) == found


def test_without_torchvision_ours_is_measured_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measure, "_look_around", lambda *_: ({"backend": "cpu"}, []))
    command = ["--experiment=throughput_nets", "--set=model.name=resnet18", "--set=train.batch_size=4"]
    code, out, error = tiny.call(capsys, *command, f"--workdir={tmp_path}")
    assert (code, error) == (0, "")
    assert {entry[1] for entry in LOG if entry[0] == "run"} == {"capsnet_jax"}
    assert [line.split() for line in out.splitlines() if line.startswith("resnet18")] == [["resnet18", "8", "8"]]
    assert not (tmp_path / "figures").exists()


def test_mistakes_are_told_in_one_line(tmp_path, capsys):
    workdir = f"--workdir={tmp_path / 'new'}"
    for arguments, told in (
        (["--set=model.name=densenet12"], "did you mean 'densenet121'?"),
        (["--set=model.stem=small"], "model.stem=none"),
        (["--figures_only"], "no finished run of throughput_nets"),
    ):
        code, _, error = tiny.call(capsys, "--experiment=throughput_nets", workdir, *arguments)
        assert (code, len(error.splitlines())) == (2, 1)
        assert told in error
    assert LOG == []


def test_the_figure_is_of_what_was_compared():
    assert list(throughput_nets.figures(rows.net())) == ["ratios"]
    assert throughput_nets.figures([row for row in rows.net() if row.subject == "capsnet_jax"]) == {}
