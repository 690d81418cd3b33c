import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import config
from capsnet_jax.interpret import restore as trained
from capsnet_jax.sweeps import records
from capsnet_jax.sweeps.checkpoint import CheckpointError
from experiments import capsule_dimensions, routing_diagnostics
from tests import tiny


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """The study's records, where arrays may be kept."""
    folder = tmp_path_factory.mktemp("trained") / "work"
    shutil.copytree(tiny.study().folder, folder)
    return folder


@pytest.fixture(scope="module")
def record(workdir):
    [record] = [r for r in records.load_all(workdir) if r.seed == 1 and r.settings["routing.iterations"] == 2]
    return record


@pytest.fixture(scope="module")
def net(record):
    return trained.load(record)


def test_a_finished_runs_network_is_what_it_was(record, net):
    assert net.settings == config.unflatten(record.settings)
    for got, expected in zip(*map(jax.tree.leaves, (net.params, tiny.params(record.folder))), strict=True):
        np.testing.assert_array_equal(got, expected)
    held = net.data.validation
    lengths = net.model.apply({"params": net.params}, jnp.asarray(held.images) / 255)["lengths"]
    error = 100 * np.mean(np.argmax(lengths, axis=1) != held.labels)
    assert error == pytest.approx(record.result["validation_error"], abs=1e-4)


def test_what_is_seen_is_kept_once(record):
    calls = []

    def look(net):
        calls.append(net)
        return {"seed": np.array(record.seed), "names": np.array(["a", "bc"])}

    assert trained.observed(record, "look") is None
    for _ in range(2):
        trained.observe(record, "look", look)
    assert len(calls) == 1
    kept = trained.observed(record, "look")
    assert (kept["seed"].item(), kept["names"].tolist()) == (1, ["a", "bc"])


def test_without_parameters_there_is_nothing_to_look_at(record, tmp_path):
    bare = tmp_path / "cell"
    shutil.copytree(record.folder, bare, ignore=shutil.ignore_patterns("params"))
    bare = records.load_cell(bare)
    assert not trained.has_params(bare)
    trained.observe(bare, "look", lambda net: pytest.fail("looked"))
    with pytest.raises(CheckpointError, match="run the training again"):
        trained.load(bare)


def test_a_moved_dimension_is_what_the_decoder_makes_of_it(net):
    seen = capsule_dimensions.observe(net)
    kinds = {name: (array.dtype, array.shape) for name, array in seen.items() if name != "names"}
    assert kinds["images"] == kinds["reconstructions"] == (np.uint8, (20, 28, 28, 1))
    assert kinds["moved"] == (np.uint8, (10, 4, 11, 28, 28, 1))
    assert seen["labels"].tolist() == [*range(10)] * 2
    np.testing.assert_allclose(seen["offsets"], np.arange(-5, 6) * 0.05, atol=1e-7)

    out = net.model.apply({"params": net.params}, jnp.asarray(seen["images"]) / 255, jnp.asarray(seen["labels"]))
    # In the middle nothing is moved, and the decoder sees the true class.
    middle = np.asarray(out["reconstruction"][:10]) * 255
    for dimension in range(4):
        np.testing.assert_allclose(seen["moved"][:, dimension, 5], middle, atol=0.51)  # rounded to bytes

    # One move by hand: the decoder's three layers in NumPy, dimension 2 of class 7 moved by 0.25.
    hidden = np.zeros((10, 4), np.float32)
    hidden[7] = np.asarray(out["capsules"])[7, 7]
    hidden[7, 2] += 0.25
    layers = net.params["decoder"]
    x = hidden.ravel() @ np.asarray(layers["hidden1"]["kernel"]) + np.asarray(layers["hidden1"]["bias"])
    x = np.maximum(x, 0) @ np.asarray(layers["pixels"]["kernel"]) + np.asarray(layers["pixels"]["bias"])
    np.testing.assert_allclose(seen["moved"][7, 2, 10].ravel(), 255 / (1 + np.exp(-x)), atol=0.51)


def test_the_shares_of_the_votes_are_coupled_lengths(net):
    seen = routing_diagnostics.observe(net)
    assert seen["shares"].shape == (3, 3, 6, 6, 10)
    primary = net.model.apply({"params": net.params}, jnp.asarray(seen["images"]) / 255)["primary"]
    votes = np.einsum("bik,iokd->biod", primary, net.params["digit"]["W"])
    # With one iteration every parent gets a tenth; one type, so an input is a position.
    expected = np.linalg.norm(votes, axis=-1).reshape(3, 6, 6, 10) / 10
    np.testing.assert_allclose(seen["shares"][:, 0], expected, rtol=1e-4, atol=1e-7)
    assert np.abs(seen["shares"][:, 2] - seen["shares"][:, 0]).max() > 0
    assert seen["receptive"].tolist() == [2, 17]
