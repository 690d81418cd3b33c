"""Running statistics on their way through training, checkpoints, finished runs and predictions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from capsnet_jax import checkpoint, config, models, records, sweep, train
from capsnet_jax.data import Dataset
from capsnet_jax.models.vgg import VGG
from capsnet_jax.predict import predict
from tests.test_train import CLASSES, DATA, make_examples

NET = config.override(
    config.Config(), {"model.name": "vgg_a_bn", "train.batch_size": 4, "train.epochs": 2, "data.shift": 0}
)


@pytest.fixture(autouse=True)
def tiny_net(monkeypatch):
    """Two convolutions of four channels, by the name of a net with batch norms."""
    net = partial(VGG, depths=(1, 1), widths=(4, 4), norm=True, hidden=8)
    monkeypatch.setitem(models.MODELS, "vgg_a_bn", net)


def fit(settings=NET, **more):
    """Every chunk's progress, one step each, the states copied before the next chunk takes their memory."""
    return [
        at._replace(states=jax.tree.map(np.array, at.states))
        for at in train.fit([settings], [3], DATA, across="map", chunk_seconds=1e-9, **more)
    ]


@pytest.fixture(scope="module")
def whole():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "vgg_a_bn", partial(VGG, depths=(1, 1), widths=(4, 4), norm=True, hidden=8))
        return fit()


def assert_equal(got, expected):
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_a_step_moves_them_as_the_model_says(whole):
    """The first step's, by the model in training mode on the first batch."""
    state = train.init_state(NET, jnp.int32(3), (8, 9, 1), CLASSES)
    assert {name: set(norm) for name, norm in state.stats["stage1"].items()} == {"norm1": {"mean", "var"}}
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf[:4]), DATA.train)
    after = jax.jit(partial(train.train_step, classes=CLASSES, total=16))(NET, jnp.int32(3), state, batch, jnp.int32(0))
    model = models.build(NET, CLASSES)
    images = batch.images.astype(jnp.float32) / 255
    _, expected = models.apply_in_training(
        model, state.params, state.stats, images, batch.labels, dropout=jax.random.key(0)
    )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), after.stats, expected)
    assert all(
        np.abs(leaf - start).max() > 1e-3
        for leaf, start in zip(*map(jax.tree.leaves, (after.stats, state.stats)), strict=True)
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(whole[-1].states))


def test_a_checkpoint_in_the_middle_leads_to_the_same_bits(whole, tmp_path):
    middle = whole[4]
    checkpoint.save(tmp_path, middle.step, middle.states, middle.history)
    found = checkpoint.restore(tmp_path, train.abstract_states([NET], [3], DATA))
    assert_equal(found.state.stats, middle.states.stats)
    assert_equal(fit(start=found)[-1].states, whole[-1].states)


def test_evaluation_goes_by_them(whole):
    states = whole[-1].states
    params, stats = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), (states.params, states.stats))
    judge = jax.jit(lambda stats: train.evaluate(NET, params, jax.device_put(DATA.test), classes=CLASSES, stats=stats))
    got = train.test([NET], states, DATA, across="map")
    assert got["test_loss"][0] == pytest.approx(float(judge(stats)["loss"]), rel=1e-5)
    fresh = jax.tree.map(lambda leaf: leaf[0], train.initial_states([NET], [3], DATA, across="map")).stats
    assert abs(float(judge(fresh)["loss"]) - got["test_loss"][0]) > 1e-4


def test_they_stand_still_in_a_frozen_layer(whole):
    frozen = fit(config.override(NET, {"train.frozen": "stage1"}))[-1].states
    start = train.initial_states([NET], [3], DATA, across="map")
    assert_equal(frozen.stats["stage1"], start.stats["stage1"])
    assert_equal(frozen.params["stage1"], start.params["stage1"])
    assert np.abs(frozen.stats["stage2"]["norm1"]["mean"]).max() > 0


def test_a_step_that_is_not_finite_does_not_move_them():
    wild = config.override(NET, {"train.learning_rate": 1e30})
    states = [at.states for at in fit(wild)]
    assert states[-1].diverged[0] >= 0
    assert_equal(states[-1].stats, states[int(states[-1].diverged[0])].stats)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((states[-1].params, states[-1].stats)))


def test_a_finished_run_keeps_them_and_predicts_with_them(monkeypatch, tmp_path):
    splits = [make_examples(count, seed) for seed, count in enumerate((32, 9, 9))]
    bars = Dataset("bars", ("top", "middle", "bottom"), *splits)
    monkeypatch.setattr(sweep, "load_data", lambda _: bars)
    cell = records.Cell(NET, 3)
    sweep.run([cell], sweep.Plan(tmp_path, "map", lambda _: "", lambda: None))
    folder = tmp_path / "cells" / cell.name
    model = models.build(NET, CLASSES)
    like, like_stats = jax.eval_shape(lambda: models.init_all(model, jax.random.key(0), (8, 9, 1)))
    params = checkpoint.load_params(folder / "params", like)
    stats = checkpoint.load_params(folder / "stats", like_stats)
    assert np.abs(stats["stage1"]["norm1"]["mean"]).min() > 0
    # What is printed is the softmax of the model's logits.
    picture = bars.test.images[0]
    Image.fromarray(picture[:, :, 0]).save(tmp_path / "bar.png")
    text, _ = predict(tmp_path / "bar.png", tmp_path)
    logits = models.apply(model, params, stats, jnp.asarray(picture[None], jnp.float32) / 255)["logits"]
    told = {line.split()[0]: float(line.split()[1]) for line in text.splitlines()[2:]}
    wanted = np.asarray(jax.nn.softmax(logits))[0]
    assert [told[name] for name in bars.label_names] == pytest.approx(wanted, abs=6e-4)
