"""The command with subjects that only pretend: a dead one, finished, drawn again, and without torchvision."""

import importlib.metadata
import importlib.util

import pandas as pd
import pytest

from capsnet_jax import overrides
from capsnet_jax.bench import measure
from capsnet_jax.bench.workload import NETS
from capsnet_jax.config import Config, ConfigError
from capsnet_jax.models.torchvision_names import families
from experiments import throughput_nets
from tests import tiny
from tests.bench import rows
from tests.bench.fake import DEAD, LOG, FakeProcess, asked
from tests.bench.rows import frame

COMMAND = ("--experiment=throughput_nets", "--sweep=model.name=resnet18,alexnet_single")


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    LOG.clear()
    DEAD.clear()
    monkeypatch.setattr(measure, "Process", FakeProcess)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1")


def test_a_dead_subject_then_finished_and_drawn_again(tmp_path, capsys, monkeypatch):
    run_steps = FakeProcess.run_steps

    def fail(self, steps):
        opened = len(asked("open_subject"))
        if self.subject == "torchvision" and opened == 15 and not self.failed:  # second start of the second group
            self.failed = True
            self.failures.append("torchvision: no memory left")
            return None
        return run_steps(self, steps)

    monkeypatch.setattr(FakeProcess, "run_steps", fail)
    code, out, error = tiny.call(capsys, *COMMAND, f"--workdir={tmp_path}")
    assert (code, error) == (3, "torchvision: no memory left\n")
    assert "model.name=alexnet_single" in out

    monkeypatch.setattr(FakeProcess, "run_steps", run_steps)
    LOG.clear()
    code, out, _ = tiny.call(capsys, *COMMAND, f"--workdir={tmp_path}")
    assert code == 0
    assert out.count("measured already") == 3  # the other net's too
    assert len(asked("open_subject")) == 9
    found = pd.read_csv(tmp_path / "throughput_nets.csv")
    speeds = found[found["unit"] == "images/s"].groupby(["model", "quantity", "subject"])["value"].median()
    for phase in ("training", "inference"):
        for net in ("resnet18", "alexnet_single"):
            assert speeds[net, phase, "capsnet_jax"] == 8 / 0.5
            assert speeds[net, phase, "torchvision"] == 8 / 1.0
            assert speeds[net, phase, "torchvision_channels_last"] == pytest.approx(8 / 0.75, rel=1e-5)
    assert out.count("1.5 (1.5 to 1.5, n = 12)") == 4
    assert tiny.visible(tmp_path) == ["figures", "report.html", "throughput_nets.csv", "throughput_nets.jsonl"]
    assert tiny.visible(tmp_path / "figures") == ["throughput_nets-ratios-here.png"]

    LOG.clear()
    (tmp_path / "throughput_nets.csv").unlink()
    code, again, _ = tiny.call(capsys, "--experiment=throughput_nets", f"--workdir={tmp_path}", "--figures_only")
    assert (code, LOG) == (0, [])
    assert again.strip() in out
    assert pd.read_csv(tmp_path / "throughput_nets.csv").equals(found)


def test_without_torchvision_ours_is_measured_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    command = ["--experiment=throughput_nets", "--set=model.name=resnet18", "--set=train.batch_size=4"]
    code, out, error = tiny.call(capsys, *command, f"--workdir={tmp_path}")
    assert (code, error) == (0, "")
    assert {subject for subject, _ in asked("run_steps")} == {"capsnet_jax"}
    assert [line.split() for line in out.splitlines() if line.startswith("resnet18")] == [["resnet18", "8", "8"]]
    assert not (tmp_path / "figures").exists()


def test_mistakes_are_told_in_one_line(tmp_path, capsys):
    workdir = f"--workdir={tmp_path / 'new'}"
    for arguments, told in (
        (["--set=model.name=densenet12"], "did you mean 'densenet121'?"),
        (["--set=model.stem=small"], "model.stem=auto"),
        (["--figures_only"], "no finished run of throughput_nets"),
    ):
        code, _, error = tiny.call(capsys, "--experiment=throughput_nets", workdir, *arguments)
        assert (code, len(error.splitlines())) == (2, 1)
        assert told in error
    assert LOG == []


def setting(**changes) -> Config:
    base = overrides.from_preset("small", throughput_nets.CONFIG | {"model.name": "resnet50"})
    return overrides.override(base, {path.replace("__", "."): value for path, value in changes.items()})


def test_every_net_that_torchvision_has_too_is_compared():
    """The nets whose weights can be read from there."""
    assert set(NETS) == set(families()) - {"squeezenet"}
    assert [arm["model.name"] for arm in throughput_nets.SWEEP] == [*NETS, *throughput_nets.ALONE]
    for name in (*NETS, *throughput_nets.ALONE):
        given = overrides.from_preset("small", throughput_nets.CONFIG | {"model.name": name})
        throughput_nets.requires(given, None)
        of_paper = overrides.from_preset("paper", throughput_nets.CONFIG | {"model.name": name})
        throughput_nets.requires(of_paper, None)
        assert throughput_nets.case(given, throughput_nets.CONFIG) == f"small model.name={name}"


@pytest.mark.parametrize("change", ["data__max_shift=2", "train__optimizer=sgd", "loss__name=margin"])
def test_what_torchvision_does_not_know_is_refused(change):
    path, value = change.split("=")
    with pytest.raises(ConfigError, match=rf"^throughput_nets is measured with {path.replace('__', '.')}=.* no other"):
        throughput_nets.requires(setting(**{path: value}), None)


def test_both_phases_of_every_subject_at_imagenets_sizes():
    inference, training = throughput_nets.groups(setting())
    assert (training.name, inference.name) == ("training", "inference")
    assert (inference.seconds, training.seconds) == (2.0, 10.0)
    for group in (training, inference):
        assert (group.kind, group.rounds, group.starts) == ("blocks", 4, 3)
        assert [w.subject for w in group.workloads] == ["capsnet_jax", "torchvision", "torchvision_channels_last"]
        assert {w.phase for w in group.workloads} == {group.name}
        assert {(w.batch, w.side, w.channels, w.classes, w.num_images) for w in group.workloads} == {
            (8, 224, 3, 1000, 256)
        }


def test_a_net_without_a_peer_is_measured_alone_at_its_papers_images():
    for group in throughput_nets.groups(setting(model__name="efficient_capsnet")):
        [workload] = group.workloads
        assert (workload.subject, workload.side, workload.channels, workload.classes) == ("capsnet_jax", 28, 1, 10)
    alone = [row for row in rows.net("efficient_capsnet") if row["subject"] == "capsnet_jax"]
    lines = throughput_nets.summary(frame(rows.net("resnet18") + alone)).splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["resnet18", "efficient_capsnet"]
    assert list(throughput_nets.figures(alone)) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model__name": "capsnet"}, "model.name"),
        ({"model__name": "googlenet"}, "did you mean 'googlenet_bn'"),
        ({"model__stem": "small"}, r"model\.stem=auto"),
        ({"model__kernel": 3}, r"resnet50 has no model.kernel"),
        ({"train__frozen": "conv1"}, r"train\.frozen=none"),
        ({"finetune__source": "mnist"}, r"finetune\.source=none"),
        ({"data__dataset": "cifar10"}, "images are synthetic"),
        ({"train__batch_size": 257}, r"lower train\.batch_size"),
    ],
)
def test_settings_that_torchvision_does_not_share(changes, told):
    with pytest.raises(ConfigError, match=told):
        throughput_nets.requires(setting(**changes), None)


def test_the_summary_tells_medians_ratios_and_their_mean():
    text = throughput_nets.summary(frame(rows.net("resnet18") + rows.net("resnet34", scale=4.0)))
    first, second, *means = text.splitlines()[2:]
    assert first.split()[:3] == ["resnet18", "11", "6"]
    assert "2 (1.38 to 2, n = 3)" in first
    assert second.split()[:3] == ["resnet34", "44", "6"]
    assert means == [f"{phase}: 4, geometric mean of 2 ratios" for phase in ("training", "inference")]


def test_the_mean_of_reciprocals_is_the_reciprocal():
    for scales, mean in (((0.25, 2.0), 1.41), ((1.0, 0.125), 0.707)):  # of ratios of 2
        found = [
            row for name, s in zip(("resnet18", "resnet34"), scales, strict=True) for row in rows.net(name, scale=s)
        ]
        assert f"training: {mean}, geometric mean" in throughput_nets.summary(frame(found))


def test_figures_are_of_machines_where_both_were_measured():
    alone = [row for row in rows.net(machine="there") if row["subject"] == "capsnet_jax"]
    assert list(throughput_nets.figures(rows.net() + alone)) == ["ratios-here"]
    assert throughput_nets.figures(alone) == {}
