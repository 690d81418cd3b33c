"""Training and evaluation on overlapping pairs, from a batch's indices to its losses."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import models
from capsnet_jax.data import Examples
from capsnet_jax.data.pairs import by_class, draw_pairs, fixed_pairs
from capsnet_jax.models.capsnet import decode
from capsnet_jax.overrides import build, override
from capsnet_jax.training.evaluation import evaluate
from capsnet_jax.training.step import init_state, run_key, train_steps
from tests.training.test_step import TINY

PAIRS = override(TINY, {"data.dataset": "multi_mnist", "data.max_shift": 1})
CNN = build({"model.name": "cnn_small", "data.dataset": "multi_mnist", "train.batch_size": 4})
SHAPE, CLASSES, SEED = (12, 11, 1), 3, jnp.int32(5)
LABELS = np.arange(12, dtype=np.int32) % CLASSES
EXAMPLES = Examples(np.random.default_rng(0).integers(0, 200, (12, *SHAPE), np.uint8), LABELS)
ORDER = jnp.array([7, 2, 9, 4, 0, 1, 3, 5, 6, 8, 10, 11])


@cache
def start(config):
    return jax.jit(partial(init_state, image_shape=SHAPE, classes=CLASSES))(config, SEED)


def after_a_step(config):
    state = start(config)
    steps = jax.jit(partial(train_steps, classes=CLASSES, total=3))
    examples = jax.tree.map(jnp.asarray, EXAMPLES)
    return state, steps(config, SEED, state, examples, ORDER, jnp.int32(0), jnp.int32(1))


def alone(model, params, capsules, class_number):
    """What the decoder makes of one class, as an image."""
    targets = jnp.eye(CLASSES)[jnp.full(len(capsules), class_number)]
    return np.asarray(decode(model, params, capsules, targets)).reshape(-1, *SHAPE)


@pytest.mark.slow
def test_each_of_the_two_is_decoded_by_its_own_capsule_against_its_own_image():
    before, after = after_a_step(PAIRS)
    base_key, key = jax.random.split(run_key(SEED, "pairs"))
    where = by_class(jnp.asarray(LABELS), CLASSES)
    examples = jax.tree.map(jnp.asarray, EXAMPLES)
    draw = jax.jit(partial(draw_pairs, max_shift=1))
    pairs = draw(jax.random.fold_in(key, 0), base_key, examples, where, ORDER[:4])
    model = models.build(PAIRS, CLASSES)
    out = jax.jit(partial(models.apply, model))(before.params, {}, pairs.images / jnp.float32(255))
    by_number = [alone(model, before.params, out["capsules"], k) for k in range(CLASSES)]
    squared = margins = wrong = 0.0
    for example, present in enumerate(np.asarray(pairs.labels)):
        lengths = np.asarray(out["lengths"][example], np.float64)
        for original, number in zip(pairs.originals[example], np.flatnonzero(present), strict=True):
            squared += np.sum((np.float64(original) / 255 - by_number[number][example]) ** 2)
        there, absent = lengths[present == 1], lengths[present == 0]
        margins += np.sum(np.maximum(0, 0.9 - there) ** 2) + 0.5 * np.sum(np.maximum(0, absent - 0.1) ** 2)
        wrong += there.min() < absent.max()
    assert float(after.sums["reconstruction_mse"]) == pytest.approx(squared / (2 * 12 * 11), rel=1e-4)
    assert float(after.sums["classification_loss"]) == pytest.approx(margins, rel=1e-4)
    assert float(after.sums["loss"]) == pytest.approx(margins + 0.0005 * squared, rel=1e-4)
    assert float(after.sums["error"]) == wrong
    assert int(after.diverged) == -1


@pytest.mark.slow
def test_in_evaluation_the_sum_of_the_two_longest_is_compared_with_the_image():
    test = fixed_pairs(EXAMPLES, classes=CLASSES, max_shift=1, name="test")
    model = models.build(PAIRS, CLASSES)
    params = start(PAIRS).params
    got = jax.jit(partial(evaluate, classes=CLASSES))(PAIRS, params, jax.tree.map(jnp.asarray, test))
    images = test.images / np.float32(255)
    out = jax.jit(partial(models.apply, model))(params, {}, jnp.asarray(images))
    by_number = [alone(model, params, out["capsules"], k) for k in range(CLASSES)]
    squared, wrong = [], []
    for example, image in enumerate(images):
        longest = np.argsort(-out["lengths"][example])[:2]
        cut = np.minimum(sum(by_number[k][example] for k in longest), 1)
        np.testing.assert_allclose(out["reconstruction"][example], cut, atol=1e-5)
        squared.append(np.mean((image - cut) ** 2))
        wrong.append({*longest.tolist()} != {*np.flatnonzero(test.labels[example]).tolist()})
    assert float(got["reconstruction_mse"]) == pytest.approx(np.mean(squared), rel=1e-4)
    assert float(got["error"]) == pytest.approx(100 * np.mean(wrong), rel=1e-5)


@pytest.mark.slow
def test_a_cnn_learns_pairs_by_cross_entropy():
    _, after = after_a_step(CNN)
    assert 4 * 0.5 < float(after.sums["classification_loss"]) < 4 * 3  # ln 3 = 1.1 of ignorance
    assert float(after.sums["reconstruction_mse"]) == 0
