"""Runs that start from a finished run: which one, which layers, and what that makes of the run's identity."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from capsnet_jax import data, models
from capsnet_jax.config import ConfigError
from capsnet_jax.data import Description
from capsnet_jax.interpret.network import restore
from capsnet_jax.overrides import build, override
from capsnet_jax.report import export
from capsnet_jax.sweeps import start_from
from capsnet_jax.sweeps.best import best_run
from capsnet_jax.sweeps.checkpoint import CheckpointError
from capsnet_jax.sweeps.plan import check, load_data
from capsnet_jax.sweeps.pretrain import initialize, pretraining_runs
from capsnet_jax.sweeps.records import Run, load_all
from capsnet_jax.training.fit import initial_states
from tests import tiny


@pytest.fixture
def workdir(tmp_path):
    return shutil.copytree(tiny.study().folder, tmp_path / "work")


def config_of(source, **changes):
    """The config of a run that starts from it, with other settings of training."""
    own = {"finetune.source": source.setting, "train.learning_rate": 0.25}
    settings = best_run(tiny.study().folder).settings
    return build(settings | own | {name.replace("__", "."): value for name, value in changes.items()})


def described(monkeypatch, classes=10, shape=(28, 28, 1)):
    names = tuple(map(str, range(classes)))
    monkeypatch.setattr(data, "describe", lambda *_, **__: Description(shape, names))


def test_a_workdir_stands_for_its_best_run_and_an_export_for_the_same_parameters(workdir, tmp_path, monkeypatch):
    best = best_run(workdir)
    source = start_from.find(str(workdir))
    assert source.folder == best.folder
    assert start_from.find(str(best.folder)).setting == source.setting == f"run:{best.folder}@{source.checksum}"
    jax.tree.map(np.testing.assert_array_equal, source.params, tiny.params(workdir, best.name))
    monkeypatch.setattr(export, "to_stablehlo", lambda *_: b"")
    exported = start_from.find(str(export.export(restore(workdir), tmp_path / "out")))
    assert exported.folder == tmp_path / "out"
    assert (exported.checksum, exported.settings) == (source.checksum, source.settings)
    jax.tree.map(np.testing.assert_array_equal, exported.params, source.params)
    other = next(record for record in load_all(workdir).values() if record.name != best.name)
    assert start_from.find(str(other.folder)).checksum != source.checksum


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", r"^--start_from=.*nowhere: there is no such folder"),
        ("work/runs", r"runs holds no trained network; name a folder that --export wrote, a workdir"),
        ("a,b", r"a comma separates values of a setting; rename the folder$"),
    ],
)
def test_what_is_no_network_is_named(path, message, workdir, tmp_path):
    with pytest.raises(ConfigError, match=message):
        start_from.find(str(tmp_path / path))


def test_damaged_parameters_are_named(workdir):
    path = best_run(workdir).folder / "params.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match=r"params\.safetensors is damaged"):
        start_from.find(str(workdir))


@pytest.mark.slow
def test_all_layers_are_copied_where_classes_are_as_many(workdir, monkeypatch):
    described(monkeypatch)
    source = start_from.find(str(workdir))
    config = start_from.adapt(config_of(source), source)
    assert config.finetune.reinitialize == "none"
    assert "all layers are copied" in start_from.describe(config, source)
    runs = [Run(config, 0), Run(override(config, {"train.learning_rate": 0.5}), 1)]
    assert pretraining_runs(runs) == []
    dataset = load_data(config.data)
    check(runs, {config.data: dataset})
    fresh = initial_states([run.config for run in runs], [0, 1], dataset, parallel="map")
    states = initialize(fresh, runs, workdir, {config.data: dataset})
    for i in (0, 1):
        jax.tree.map(
            lambda mine, theirs, i=i: np.testing.assert_array_equal(mine[i], theirs), states.params, source.params
        )


@pytest.mark.slow
def test_layers_that_tell_other_classes_start_anew(workdir, monkeypatch):
    described(monkeypatch, classes=3)
    source = start_from.find(str(workdir))
    config = start_from.adapt(config_of(source), source)
    assert config.finetune.reinitialize == "class_capsules+decoder"
    assert "class_capsules+decoder start anew" in start_from.describe(config, source)
    without = start_from.adapt(override(config_of(source), {"loss.reconstruction": False}), source)
    assert without.finetune.reinitialize == "class_capsules"
    digits = load_data(config.data)
    few = jax.tree.map(lambda leaf: leaf[digits.train.labels < 3], digits.train)
    dataset = type(digits)("few", ("a", "b", "c"), few, few, few)
    check([Run(config, 0)], {config.data: dataset})
    fresh = initial_states([config], [0], dataset, parallel="map")
    states = initialize(fresh, [Run(config, 0)], workdir, {config.data: dataset})
    for layer, leaves in states.params.items():
        theirs = fresh.params[layer] if layer in ("class_capsules", "decoder") else source.params[layer]
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.ravel(), np.ravel(b)), leaves, theirs)


def test_other_parameters_are_another_run(workdir, monkeypatch):
    described(monkeypatch)
    source = start_from.find(str(workdir))
    config = config_of(source)
    path = source.folder / "params.safetensors"
    arrays = {name: array + 1 for name, array in load_file(path).items()}
    save_file(arrays, path)  # without a digest: as no run of ours writes it
    with pytest.raises(CheckpointError, match="damaged"):
        start_from.read_setting(config.finetune.source)
    other = next(record for record in load_all(workdir).values() if record.folder != source.folder)
    shutil.copy(other.folder / "params.safetensors", path)
    with pytest.raises(
        ConfigError, match=r"the parameters there are others now \(.*; start from them by --start_from="
    ):
        start_from.read_setting(config.finetune.source)
    now = start_from.find(str(source.folder))
    assert len({Run(each, 0).name for each in (config, config_of(now), build(other.settings))}) == 3
    with pytest.raises(ConfigError, match="lacks the checksum of parameters; ask by --start_from=FOLDER"):
        start_from.read_setting(f"run:{source.folder}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model.name": "cnn_small"},
            r"has model\.name=capsnet_small, not cnn_small; add --set model\.name=capsnet_small$",
        ),
        (
            {"model.channels": 8, "model.decoder": (8, 16)},
            r"has model\.channels=4, not 8, model\.decoder=8, not 8x16; add --set model\.channels=4 --set model\.dec",
        ),
    ],
)
def test_another_model_is_one_error(changes, message, workdir, monkeypatch):
    described(monkeypatch)
    source = start_from.find(str(workdir))
    base = {"model.name": "capsnet_small"} | {path: value for path, value in tiny.SETTINGS.items() if "model" in path}
    if "model.name" in changes:
        base = {}
    with pytest.raises(ConfigError, match=message):
        start_from.adapt(build(base | {"finetune.source": source.setting} | changes), source)


def test_a_layer_that_the_source_lacks_is_named(workdir):
    """A decoder, and images of another size."""
    source = start_from.find(str(workdir))
    config = config_of(source, finetune__reinitialize="none")
    dataset = load_data(config.data)
    without = {name: leaves for name, leaves in source.params.items() if name != "decoder"}
    fresh = models.shapes(config, (28, 28, 1), 10)[0]
    with pytest.raises(
        ConfigError, match=r"has no decoder; these can start anew by --set finetune\.reinitialize=decoder$"
    ):
        start_from.check_layers(config, fresh, without)
    large = jax.tree.map(
        lambda leaf: np.pad(leaf, [(0, 0), (4, 4), (4, 4), (0, 0)]) if leaf.ndim == 4 else leaf, dataset.train
    )
    wide = dataclasses.replace(dataset, train=large, validation=large, test=large)
    with pytest.raises(ConfigError, match=r"layer \w+ has another shape there, as images or classes differ"):
        check([Run(config, 0)], {config.data: wide})


@pytest.mark.slow
def test_the_flag_works_with_a_sweep_and_its_command_repeats_a_run(workdir, tmp_path):
    """With a rate of 0 all parameters stay those of the source; the command of a record finds the same run."""
    own = [f"--start_from={workdir}", "--set=finetune.lr_multiplier=0", "--set=train.epochs=1", "--seeds=2"]
    flags = [*(flag for flag in tiny.SIZES if "epochs" not in flag), *own, "--sweep=routing.iterations=1,2"]
    out = tiny.succeed(*flags, f"--workdir={tmp_path / 'new'}")
    assert out.startswith(f"starting from {best_run(workdir).folder}: all layers are copied\n")
    finished = load_all(tmp_path / "new")
    assert len(finished) == 4
    for record in finished.values():
        assert record.settings["finetune.source"] == start_from.find(str(workdir)).setting
        mine, theirs = tiny.params(tmp_path / "new", record.name), start_from.find(str(workdir)).params
        jax.tree.map(np.testing.assert_array_equal, mine, theirs)
    words = record.command.replace("WORKDIR", str(tmp_path / "new")).split()[2:]
    assert "1 of 1 runs are finished already" in tiny.succeed(*words)
    assert len((tmp_path / "new" / "runs.jsonl").read_text().splitlines()) == 4


def test_the_flag_is_refused_where_it_cannot_be_meant(workdir, capsys):
    code, _, error = tiny.call(capsys, f"--start_from={workdir}", f"--workdir={workdir}", *tiny.SIZES)
    assert (code, error.count("\n")) == (2, 1)
    assert "is the --workdir itself, whose best run changes" in error
    code, _, error = tiny.call(
        capsys, f"--start_from={workdir}", "--set=finetune.source=mnist_5k", "--workdir=elsewhere", *tiny.SIZES
    )
    assert (code, error) == (2, "--start_from says what runs start from; leave out finetune.source\n")
    code, out, _ = tiny.call(capsys, f"--start_from={workdir}", "--settings", *tiny.SIZES)
    assert code == 0
    assert f"finetune.source=run:{best_run(workdir).folder}@" in out
