import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy import stats

from capsnet_jax.config import ConfigError
from capsnet_jax.interpret import gradient, targets
from capsnet_jax.interpret.faithfulness import (
    blurred,
    deletion_curve,
    insertion_curve,
    randomization_cascade,
    rank_correlation,
)
from capsnet_jax.models import init
from capsnet_jax.models.forward import Forward
from tests.interpret.test_capsule_maps import network

KEY = jax.random.key(5)
IMAGES = jax.random.uniform(jax.random.key(0), (3, 5, 3, 2))
WEIGHTS = jax.random.normal(jax.random.key(1), (30, 4))
MAPS = jax.random.normal(jax.random.key(2), (3, 5, 3))
CLASSES = np.array([2, 0, 3])


def two_layers(images):
    return {"logits": jnp.maximum(images.reshape(len(images), -1) @ WEIGHTS, 0) @ WEIGHTS[:4]}


def linear(images):
    return images.reshape(len(images), -1) @ WEIGHTS[: images[0].size, 0]


def by_hand(order, start, end, image_class, steps):
    """Pixel after pixel of `end` for those of `start`, in plain NumPy."""
    scores, pixels, done = [], start.copy().reshape(15, 2), 0
    for step in range(steps + 1):
        count = round(15 * step / steps)
        for position in order[done:count]:
            pixels[position] = end.reshape(15, 2)[position]
        done = count
        logits = np.maximum(pixels.ravel() @ np.asarray(WEIGHTS), 0) @ np.asarray(WEIGHTS[:4])
        scores.append(np.exp(logits[image_class]) / np.exp(logits).sum())
    return scores


@pytest.mark.parametrize("curve", [deletion_curve, insertion_curve])
def test_curves_are_those_of_single_pixels(curve):
    images, fill = np.asarray(IMAGES, np.float64), np.random.default_rng(0).uniform(size=(3, 5, 3, 2))
    found = curve(two_layers, IMAGES, MAPS, CLASSES, key=KEY, steps=6, fill=jnp.asarray(fill, jnp.float32))
    assert np.diff(15 * found.fractions).round().tolist() == [2, 3, 3, 2, 2, 3]
    for image in range(3):
        order = np.argsort(-MAPS[image].ravel())
        start, end = (images, fill) if curve is deletion_curve else (fill, images)
        expected = by_hand(order, start[image], end[image], CLASSES[image], 6)
        np.testing.assert_allclose(found.scores[image], expected, rtol=1e-4)
        np.testing.assert_allclose(found.areas[image], np.trapezoid(expected, found.fractions), rtol=1e-4)
    again = curve(two_layers, IMAGES, MAPS, CLASSES, key=KEY, steps=6, fill=jnp.asarray(fill, jnp.float32), chunk=4)
    np.testing.assert_allclose(again.scores, found.scores, rtol=1e-5)


def test_gradient_times_what_is_taken_away_is_the_best_order_of_a_linear_net():
    images = jax.random.uniform(jax.random.key(3), (1, 2, 3, 1))
    best = gradient(linear, images) * (images - images.mean())
    orders = itertools.permutations(range(6))
    every = jnp.asarray([np.argsort(order).reshape(2, 3) for order in orders], jnp.float32)
    many = jnp.broadcast_to(images, (len(every), 2, 3, 1))
    for curve, sign in ((deletion_curve, 1), (functools.partial(insertion_curve, fill="mean"), -1)):
        areas = sign * curve(linear, many, every, key=KEY, steps=6).areas
        found = sign * curve(linear, images, best, key=KEY, steps=6).areas[0]
        assert areas.min() - 1e-6 <= found <= areas.min() + 1e-6
        assert found < areas.mean() - 0.01


def test_equal_pixels_come_at_random_and_random_maps_give_the_baseline():
    many = jnp.broadcast_to(IMAGES[:1], (4000, 5, 3, 2))
    equal = deletion_curve(two_layers, many, jnp.zeros((4000, 5, 3)), 2, key=KEY, steps=5).areas
    random = jax.random.normal(jax.random.key(9), (4000, 5, 3))
    baseline = deletion_curve(two_layers, many, random, 2, key=KEY, steps=5).areas
    assert np.std(equal) > 0
    assert stats.ks_2samp(equal, baseline).pvalue > 0.01
    assert deletion_curve(two_layers, many, random, 2, key=jax.random.key(1), steps=5).areas == pytest.approx(baseline)


def test_maps_and_images_in_another_order_give_the_same_curves_in_that_order():
    of = functools.partial(deletion_curve, two_layers, key=KEY, steps=4)
    swapped = of(IMAGES[::-1], MAPS[::-1], CLASSES[::-1])
    np.testing.assert_allclose(swapped.scores[::-1], of(IMAGES, MAPS, CLASSES).scores, rtol=1e-5)


def test_channels_are_added_up_and_the_class_is_the_nets_own():
    own = two_layers(IMAGES)["logits"].argmax(axis=1)
    channels = jnp.stack([MAPS + 3, -3 + 0 * MAPS], axis=-1)
    found = deletion_curve(two_layers, IMAGES, channels, key=KEY)
    np.testing.assert_allclose(found.scores, deletion_curve(two_layers, IMAGES, MAPS, own, key=KEY).scores, rtol=1e-5)
    target = deletion_curve(two_layers, IMAGES, MAPS, targets.class_score(own), key=KEY)
    np.testing.assert_allclose(target.scores[:, 0], two_layers(IMAGES)["logits"].max(axis=1), rtol=1e-5)


@pytest.mark.slow
def test_the_score_of_a_capsule_is_its_share():
    net = network()
    images = jax.random.uniform(KEY, (2, 12, 10, 1))
    curve = deletion_curve(net.forward, images, images, 3, key=KEY, steps=2, fill=0.0)
    lengths = net.outputs(images)["lengths"]
    np.testing.assert_allclose(curve.scores[:, 0], lengths[:, 3] / lengths.sum(axis=1), rtol=1e-4)
    black = net.outputs(0 * images)["lengths"]
    np.testing.assert_allclose(curve.scores[:, -1], black[:, 3] / jnp.maximum(black.sum(axis=1), 1e-12), atol=1e-6)


def test_a_blurred_image_is_a_mean_with_gaussian_weights():
    found = blurred(IMAGES, 1.5)
    at = np.stack(np.mgrid[:5, :3], axis=-1)
    for y, x in ((0, 0), (2, 1), (4, 2)):
        weights = np.exp(-np.sum((at - [y, x]) ** 2, axis=-1) / (2 * 1.5**2))
        expected = np.einsum("nyxc,yx->nc", IMAGES, weights / weights.sum())
        np.testing.assert_allclose(found[:, y, x], expected, rtol=1e-5)
    np.testing.assert_allclose(blurred(IMAGES), blurred(IMAGES, 3 / 8), rtol=1e-6)


def test_rank_correlation_is_scipys():
    rounded = np.round(2 * np.asarray(MAPS)) / 2  # with ties
    found = rank_correlation(rounded, MAPS[::-1])
    expected = [stats.spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(rounded, MAPS[::-1], strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert rank_correlation(MAPS, 0 * MAPS).tolist() == [0, 0, 0]


class Net(nn.Module):
    """Layers that run in another order than their names', a normalisation, and one that the scores do not need."""

    @nn.compact
    def __call__(self, images):
        x = nn.relu(nn.Dense(6, name="second")(images.reshape(len(images), -1)))
        x = nn.BatchNorm(use_running_average=True, name="norm")(x)
        logits = nn.Dense(4, name="first")(x)
        return {"logits": logits, "other": nn.Dense(2, name="unused")(logits)}


@pytest.mark.slow
def test_layers_are_made_random_from_the_last_to_the_first():
    params, batch_stats = init(Net(), jax.random.key(1), (5, 3, 2))
    batch_stats = jax.tree.map(lambda x: x + 0.5, batch_stats)
    net = Forward(Net(), {"params": params, "batch_stats": batch_stats})
    fresh = Net().init(KEY, IMAGES[:1])
    seen = []

    def method(changed, images):
        seen.append(changed.variables)
        return gradient(changed, images, CLASSES)

    cascade = randomization_cascade(net, method, IMAGES, key=KEY)
    assert cascade.layers == ["first", "norm", "second"]
    assert cascade.absolute.shape == cascade.signed.shape == (3, 3)
    for step, redrawn in enumerate([set(), {"first"}, {"first", "norm"}, {"first", "norm", "second"}]):
        for collection, layers in seen[step].items():
            for layer in set(layers) - {"unused"}:
                expected = (fresh if layer in redrawn else net.variables)[collection][layer]
                assert jax.tree.all(jax.tree.map(jnp.array_equal, layers[layer], expected))
    maps, trained = gradient(Forward(Net(), seen[2]), IMAGES, CLASSES), gradient(net, IMAGES, CLASSES)
    np.testing.assert_allclose(cascade.signed[1], rank_correlation(trained.sum(-1), maps.sum(-1)), rtol=1e-4)
    sizes = rank_correlation(abs(trained).sum(-1), abs(maps).sum(-1))  # of each channel, as deletion ranks them
    np.testing.assert_allclose(cascade.absolute[1], sizes, rtol=1e-4)
    assert cascade.absolute[-1].mean() < 0.9


def test_a_map_of_the_image_alone_stays_as_it_is():
    variables = Net().init(jax.random.key(1), IMAGES[:1])
    cascade = randomization_cascade(Forward(Net(), variables), lambda net, images: images, IMAGES, key=KEY)
    np.testing.assert_allclose(cascade.absolute, 1)
    np.testing.assert_allclose(cascade.signed, 1)


@pytest.mark.slow
def test_the_layers_of_a_capsnet():
    net = network()
    images = jax.random.uniform(KEY, (2, 12, 10, 1))
    cascade = randomization_cascade(net, lambda net, images: net.outputs(images)["reconstruction"], images, key=KEY)
    assert cascade.layers == ["class_capsules", "primary", "conv1"]
    assert (cascade.signed < 0.999).any(axis=1).all()


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: deletion_curve(two_layers, IMAGES, MAPS[:, :4], key=KEY), "need a value for each pixel"),
        (lambda: insertion_curve(two_layers, IMAGES, MAPS, key=KEY, fill="blurr"), "did you mean 'blur'"),
        (lambda: randomization_cascade(two_layers, gradient, IMAGES, key=KEY), "only a Network or a Forward"),
    ],
)
def test_mistakes_are_told(use, message):
    with pytest.raises(ConfigError, match=message):
        use()
