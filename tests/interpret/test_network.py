import dataclasses
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import overrides
from capsnet_jax.config import ConfigError
from capsnet_jax.interpret import network as module
from capsnet_jax.interpret.network import has_params, load_observation, restore, restore_record, save_observation
from capsnet_jax.models.summary import outline
from capsnet_jax.sweeps import records
from capsnet_jax.sweeps.checkpoint import CheckpointError
from tests import tiny


@pytest.mark.slow
def test_a_finished_runs_network_is_what_it_was(workdir, record, net):
    assert net.config == overrides.build(record.settings)
    expected = tiny.params(workdir, record.name)
    for got, leaf in zip(*map(jax.tree.leaves, (net.params, expected)), strict=True):
        np.testing.assert_array_equal(got, leaf)
    validation = net.data.validation
    lengths = net.model.apply({"params": net.params}, jnp.asarray(validation.images) / 255)["lengths"]
    error = 100 * np.mean(np.argmax(lengths, axis=1) != validation.labels)
    assert error == pytest.approx(record.result["validation_error"], abs=1e-4)


def test_the_run_of_least_validation_error_is_restored(workdir):
    finished = records.load_all(workdir)
    errors = {name: record.result["validation_error"] for name, record in finished.items()}
    assert errors[restore(workdir).record.name] == min(errors.values())
    assert [restore(workdir, name).record.name for name in finished] == list(finished)
    assert restore(str(workdir)).record.name == restore(workdir).record.name


def test_nothing_to_restore(workdir, tmp_path):
    with pytest.raises(ConfigError, match=r"no finished run in .*; train one first, or name its --workdir"):
        restore(tmp_path)
    with pytest.raises(
        ConfigError, match=r"no run nobody with its parameters in .*; there are: mnist_5k-capsnet_small"
    ):
        restore(workdir, "nobody")


def test_a_run_whose_model_is_gone_is_left_out(workdir, tmp_path, caplog):
    folder = tmp_path / "work"
    shutil.copytree(workdir, folder)
    first, second, *_ = sorted(records.load_all(folder).values(), key=lambda record: record.result["validation_error"])
    gone = dataclasses.replace(first, settings=first.settings | {"model.name": "my_net"}, workdir=folder)
    records.append([gone], folder)
    assert restore(folder).record.name == second.name
    [warning] = caplog.messages
    assert warning.startswith(f"left out: {gone.name} cannot be built: model.name has no 'my_net'")
    with pytest.raises(ConfigError, match=r"cannot be built: model\.name has no 'my_net'"):
        restore(folder, gone.name)


def test_only_runs_that_cannot_be_built(workdir, tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(workdir, folder)
    finished = records.load_all(folder).values()
    records.append([dataclasses.replace(r, settings=r.settings | {"routing.name": "mine"}) for r in finished], folder)
    with pytest.raises(ConfigError, match=r"cannot be built: routing\.name has no 'mine'"):
        restore(folder)


def test_the_data_set_is_loaded_when_images_are_asked_for(record, monkeypatch):
    calls = []
    load = module.load_data
    monkeypatch.setattr(module, "load_data", lambda settings: calls.append(settings) or load(settings))
    data = restore_record(record).data
    assert (data.name, data.image_shape, data.classes) == ("mnist_5k", (28, 28, 1), 10)
    assert data.label_names == tuple("0123456789")
    assert not calls
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(data, split).images, getattr(load(calls[0]), split).images)
    assert len(calls) == 1


def test_bytes_and_pixels_of_one_image_are_the_same(net):
    images = net.data.test.images[:3]
    out, expected = net.outputs(images), net.outputs(jnp.asarray(images, jnp.float32) / 255)
    for name, array in expected.items():
        np.testing.assert_array_equal(out[name], array)
    np.testing.assert_array_equal(net.couplings(images), expected["couplings"])
    assert out["couplings"].shape == (3, 36, 10)


def test_a_network_that_does_not_route_has_no_couplings(net):
    other = dataclasses.replace(net, config=overrides.build({"model.name": "cnn_small"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_apply", lambda *_: {"logits": jnp.zeros((1, 10))})
        with pytest.raises(ConfigError, match="cnn_small does not route, so it has no couplings"):
            other.couplings(net.data.test.images[:1])


def test_its_outline_is_of_its_own_settings_and_images(net):
    found = net.outline()
    assert found == outline(net.config, (28, 28, 1), 10)
    assert found.parameters == net.record.result["parameters"]


def test_what_is_observed_is_saved_once(record):
    calls = []

    def observe(net):
        calls.append(net)
        return {"seed": np.array(record.seed), "names": np.array(["a", "bc"])}

    assert load_observation(record, "look") is None
    for _ in range(2):
        save_observation(record, "look", observe)
    assert len(calls) == 1
    saved = load_observation(record, "look")
    assert (saved["seed"].item(), saved["names"].tolist()) == (1, ["a", "bc"])


def test_a_run_that_was_trained_anew_is_observed_anew(record):
    save_observation(record, "anew", lambda net: {"value": np.array(1)})
    path = record.folder / "anew.npz"
    params = record.folder / "params.safetensors"
    before = params.stat().st_mtime_ns
    os.utime(path, ns=(before - 1, before - 1))
    save_observation(record, "anew", lambda net: {"value": np.array(2)})
    assert load_observation(record, "anew")["value"] == 2


def test_a_damaged_observation_is_left_out_and_made_again(record, caplog):
    path, value = record.folder / "damaged.npz", np.arange(1000)
    save_observation(record, "damaged", lambda net: {"value": value})
    whole = path.read_bytes()
    for damaged in (b"", whole[:-30], whole[:200] + bytes([whole[200] ^ 1]) + whole[201:], b"\x80\x04K\x01."):
        path.write_bytes(damaged)
        assert load_observation(record, "damaged") is None
        assert f"{path} is damaged and left out" in caplog.messages[-1]
        save_observation(record, "damaged", lambda net: {"value": value})
        np.testing.assert_array_equal(load_observation(record, "damaged")["value"], value)


def test_without_parameters_there_is_nothing_to_look_at(record, tmp_path):
    shutil.copytree(record.folder, tmp_path / "runs" / record.name, ignore=shutil.ignore_patterns("params*"))
    bare = dataclasses.replace(record, workdir=tmp_path)
    assert not has_params(bare)
    save_observation(bare, "look", lambda net: pytest.fail("looked"))
    with pytest.raises(CheckpointError, match="add --rerun"):
        restore_record(bare)


def test_the_best_run_of_one_experiment_is_restored(workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / "w")
    finished = records.load_all(workdir)
    worst = max(finished.values(), key=lambda record: record.result["validation_error"])
    records.note_experiment(tmp_path / "w", "hops", [records.Run(overrides.build(worst.settings), worst.seed)], [])
    assert restore(tmp_path / "w", experiment="hops").record.name == worst.name
    with pytest.raises(ConfigError, match="no finished run of loss_scale"):
        restore(tmp_path / "w", experiment="loss_scale")
