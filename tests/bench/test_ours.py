import dataclasses

import jax
import numpy as np
import pytest

from capsnet_jax.bench import ours
from capsnet_jax.data.augment import to_float
from capsnet_jax.training import fit as train
from capsnet_jax.training import step
from capsnet_jax.training.parallel import resolve
from tests.bench import small


@pytest.fixture
def counted(monkeypatch):
    """Training steps that only count, so that compiling is quick; batches of 32 of 128 images: epochs of four."""

    def train_steps(config, seed, state, examples, order, start, stop, *, classes, total):
        spans = start // step.steps_per_epoch(config, examples) != (stop - 1) // 4
        sums = {
            "loss": state.sums["loss"] + stop - start,
            "error": state.sums["error"] + spans,
            "classification_loss": state.sums["classification_loss"] + 1,
            "reconstruction_mse": seed.astype(jax.numpy.float32) + classes,
        }
        return state._replace(sums=sums)

    def initial_states(given):
        sums = {name: jax.numpy.zeros(given.runs) for name in step.TRAIN_METRICS}
        return step.TrainState({}, {}, sums, jax.numpy.zeros(given.runs, int))

    monkeypatch.setattr(train, "train_steps", train_steps)
    monkeypatch.setattr(ours, "initial_states", initial_states)
    dataset = ours.dataset
    monkeypatch.setattr(ours, "dataset", lambda given: dataset(dataclasses.replace(given, num_images=128)))


def test_steps_are_those_of_the_training_loop_epoch_by_epoch(counted):
    subject = ours.build(small.workload(runs=2, parallel="map"), None)
    assert subject.compile() > 0
    for start, stop in ((0, 1), (1, 7), (7, 11)):
        subject.run(start, stop)
    sums = {name: np.asarray(value).tolist() for name, value in subject.states.sums.items()}
    assert sums["loss"] == [11, 11]
    assert sums["error"] == [0, 0]  # no call of the program spans two epochs
    assert sums["classification_loss"] == [5, 5]  # calls: 0-1, 1-4, 4-7, 7-8, 8-11
    assert sums["reconstruction_mse"] == [10, 11]  # seeds 0 and 1, ten classes
    assert subject.device_peak() == 0


def test_a_fit_is_train_fit_of_those_seeds(monkeypatch):
    calls = []

    def fit(configs, seeds, data, *, parallel):
        calls.append((configs, seeds, data, parallel))
        for _ in range(2):
            yield train.FitProgress(0, 0, (), [], 0.0, 0.0)

    monkeypatch.setattr(train, "fit", fit)
    assert ours.fit(small.workload(runs=3, parallel="vmap", num_images=5000), [4, 5, 6]) >= 0
    [(configs, seeds, data, parallel)] = calls
    assert (configs, seeds, parallel) == ([small.settings()] * 3, [4, 5, 6], "vmap")
    assert [split.labels.shape[0] for split in (data.train, data.validation)] == [4500, 500]


def test_inference_gives_lengths_and_reconstruction(monkeypatch):
    params = jax.tree.map(lambda leaf: leaf[None], small.random_weights(small.workload()))
    monkeypatch.setattr(ours, "initial_states", lambda given: step.TrainState(params, (), {}, 0))
    subject = ours.build(small.workload(phase="inference"), None)
    assert subject.compile() > 0
    subject.run(0, 3)
    out = subject.run(0, 2)
    second = jax.tree.map(lambda array: array[32:64], subject._examples)
    alone = jax.jit(subject.model.apply)({"params": subject.params}, to_float(second.images))
    for name, value in out.items():
        np.testing.assert_allclose(value, alone[name], rtol=1e-4, atol=1e-6)
    assert {name: value.shape for name, value in out.items()} == {
        "lengths": (32, 10),
        "reconstruction": (32, 28, 28, 1),
    }


def test_weights_are_the_first_runs(monkeypatch):
    params = {"a": {"kernel": np.arange(6.0).reshape(2, 3), "bias": np.ones((2, 1))}, "b": np.zeros((2, 2, 2))}
    monkeypatch.setattr(ours, "initial_states", lambda given: step.TrainState(params, (), {}, given.runs))
    found = ours.initial_weights(small.workload(runs=2))
    assert jax.tree.structure(found) == jax.tree.structure(params)
    jax.tree.map(lambda leaf, stacked: np.testing.assert_array_equal(leaf, stacked[0]), found, params)


def test_synthetic_images():
    given = small.workload(classes=3, side=20, num_images=100)
    data = ours.dataset(given, 40)
    assert data.image_shape == (20, 20, 1)
    assert (data.classes, set(data.train.labels.tolist())) == (3, {0, 1, 2})
    assert data.train.images.dtype == np.uint8
    assert data.validation.images.shape[0] == 40
    assert ours.dataset(given).train.labels.shape[0] == 100


def test_auto_is_what_a_sweep_takes_on_a_cpu():
    assert resolve(small.workload().parallel) == "map"
    assert resolve(small.workload(parallel="vmap").parallel) == "vmap"
