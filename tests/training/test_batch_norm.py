"""Running statistics on their way through training, checkpoints, finished runs and predictions."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import models
from capsnet_jax.data import Dataset, Description
from capsnet_jax.data.augment import to_targets
from capsnet_jax.interpret import network
from capsnet_jax.models.convnets.vgg import VGG
from capsnet_jax.overrides import build, override
from capsnet_jax.sweeps import checkpoint, plan, records
from capsnet_jax.sweeps import run as sweep
from capsnet_jax.training import evaluation, finetune, optimizer
from capsnet_jax.training import fit as training
from capsnet_jax.training.step import TrainState, train_step
from tests.training.test_step import CLASSES, DATA, make_examples

NET = build({"model.name": "vgg_a_bn", "train.batch_size": 4, "train.epochs": 2, "data.max_shift": 0})
WILD = override(NET, {"train.learning_rate": 1e30})
SEEDS = [3, 4]
HEADS = models.MODELS["vgg_a_bn"].head_layers


@pytest.fixture(autouse=True, scope="module")
def tiny_net():
    """Two convolutions of four channels, by the name of a net with batch norms, compiled quickly."""
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        small = partial(VGG, depths=(1, 1), widths=(4, 4), norm=True, hidden=8)
        patch.setitem(models.MODELS, "vgg_a_bn", dataclasses.replace(models.MODELS["vgg_a_bn"], module=small))
        yield
    jax.config.update("jax_disable_most_optimizations", False)


def fit(**more):
    """Every chunk's progress of a sane and an absurd run, a step each, copied before the next takes their memory."""
    return [
        at._replace(states=jax.tree.map(np.array, at.states))
        for at in training.fit([NET, WILD], SEEDS, DATA, parallel="map", chunk_seconds=1e-9, **more)
    ]


@pytest.fixture(scope="module")
def whole(tiny_net):
    return fit()


def run_of(at, index: int = 0) -> TrainState:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[index]), at.states)


def step(state, settings=NET):
    """One step on the first four images."""
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf[:4]), DATA.train)
    program = jax.jit(partial(train_step, classes=CLASSES, total=16))
    return batch, program(settings, jnp.int32(3), state, batch, jnp.int32(1))


def assert_equal(got, expected):
    jax.tree.map(np.testing.assert_array_equal, got, expected)


@pytest.mark.slow
def test_a_step_moves_them_as_the_model_says(whole):
    state = run_of(whole[0])
    assert {name: set(norm) for name, norm in state.stats["stage1"].items()} == {"norm1": {"mean", "var"}}
    batch, after = step(state)
    model, images = models.build(NET, CLASSES), batch.images.astype(jnp.float32) / 255
    expected = jax.jit(
        lambda: models.apply_in_training(
            model, state.params, state.stats, images, to_targets(batch.labels, CLASSES), dropout=jax.random.key(0)
        )
    )()[1]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), after.stats, expected)
    moves = jax.tree.map(lambda new, old: float(jnp.abs(new - old).max()), after.stats, state.stats)
    assert min(jax.tree.leaves(moves)) > 1e-4


def test_a_checkpoint_in_the_middle_leads_to_the_same_bits(whole, tmp_path):
    middle = whole[4]
    checkpoint.save(tmp_path, middle.step, middle.states, middle.history)
    found = checkpoint.restore(tmp_path, training.abstract_states([NET, WILD], SEEDS, DATA))
    assert_equal(found.state.stats, middle.states.stats)
    assert_equal(fit(start=found)[-1].states, whole[-1].states)


def test_evaluation_goes_by_them(whole):
    state, test = run_of(whole[-1]), jax.device_put(DATA.test)
    loss = jax.jit(lambda stats: evaluation.evaluate(NET, state.params, test, classes=CLASSES, stats=stats)["loss"])
    states = whole[-1].states
    metrics, _ = evaluation.read_test_set([NET, WILD], states.params, states.stats, DATA, parallel="map")
    got = metrics["test_loss"][0]
    assert got == pytest.approx(float(loss(state.stats)), rel=1e-5)
    assert abs(float(loss(run_of(whole[0]).stats)) - got) > 1e-4


def test_they_stand_still_in_a_frozen_layer(whole):
    state = run_of(whole[0])
    trained, _ = finetune.split_frozen(state.params, "stage1")
    state = state._replace(opt_state=optimizer.gradient_transform(NET.train, HEADS).init(trained))
    _, after = step(state, override(NET, {"train.frozen": "stage1"}))
    assert_equal(after.stats["stage1"], state.stats["stage1"])
    assert_equal(after.params["stage1"], state.params["stage1"])
    assert float(jnp.abs(after.stats["stage2"]["norm1"]["mean"] - state.stats["stage2"]["norm1"]["mean"]).max()) > 0


def test_a_step_that_is_not_finite_does_not_move_them(whole):
    last = run_of(whole[-1], 1)
    assert 0 < last.diverged < 16
    assert_equal(last.stats, run_of(whole[int(last.diverged) - 1], 1).stats)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((last.params, last.stats)))


@pytest.mark.slow
def test_a_finished_run_keeps_them_and_is_restored_with_them(monkeypatch, tmp_path):
    splits = [make_examples(count, seed) for seed, count in enumerate((32, 9, 9))]
    bars = Dataset("bars", ("top", "middle", "bottom"), *splits)
    for module in (sweep, network):
        monkeypatch.setattr(module, "load_data", lambda _: bars)
    described = Description(bars.image_shape, bars.label_names)
    monkeypatch.setattr(network.data, "describe", lambda *_arguments, **_keywords: described)
    run = records.Run(NET, 3)
    sweep.train_all([run], plan.Plan(tmp_path, "map", lambda _: "", lambda: None), sweep.load_and_check([run]))
    model = models.build(NET, CLASSES)
    like = jax.eval_shape(lambda: models.init(model, jax.random.key(0), (8, 9, 1)))
    params, stats = checkpoint.load_params(records.run_folder(tmp_path, run.name) / "params.safetensors", *like)
    assert np.abs(stats["stage1"]["norm1"]["mean"]).min() > 0
    images = jnp.asarray(bars.test.images, jnp.float32) / 255
    logits = models.apply(model, params, stats, images)["logits"]
    restored = network.restore(tmp_path, run.name)
    np.testing.assert_allclose(restored.outputs(images)["logits"], logits, rtol=1e-5, atol=1e-6)
    fresh = jax.tree.map(jnp.ones_like, stats)
    assert np.abs(models.apply(model, params, fresh, images)["logits"] - logits).max() > 1e-3
