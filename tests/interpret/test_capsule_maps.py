import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import models, overrides
from capsnet_jax.config import ConfigError
from capsnet_jax.data import Description
from capsnet_jax.interpret.capsule_maps import (
    coupling_maps,
    primary_grid,
    reconstruct_from_one,
)
from capsnet_jax.interpret.network import LazyDataset, Network
from capsnet_jax.interpret.receptive_fields import ReceptiveField, at_positions, over_image
from capsnet_jax.models.capsnet import decode, route_again

SIDES = (12, 10)  # 4 × 3 positions of 5 pixels, two apart
FIELD = ReceptiveField((5, 5), (2, 2), (0, 0))
DATA = LazyDataset("mnist", Description((*SIDES, 1), tuple("0123456789")), lambda: None)
SETTINGS = {"model.name": "capsnet_small", "model.channels": 4, "model.capsule_types": 2, "model.primary_dim": 4}
SETTINGS |= {"model.kernel": 3, "model.class_dim": 3, "model.decoder": (8,), "model.weight_scale": 5.0}
CNN = overrides.build({"model.name": "cnn_small"})
IMAGES = jax.random.uniform(jax.random.key(0), (3, *SIDES, 1))
CLASSES = np.array([7, 0, 3])


EFFICIENT = {"model.name": "efficient_capsnet", "model.decoder": (8,), "model.weight_scale": 1.0}


@functools.cache
def network(**settings):
    return made(SETTINGS | {path.replace("__", "."): value for path, value in settings.items()})


def made(settings, data=DATA):
    config = overrides.build(settings)
    model = models.build(config, 10)
    params, stats = jax.jit(lambda key: models.init(model, key, data.image_shape))(jax.random.key(1))
    return Network(config, model, params, stats, data, None)


def squash(s):
    norm = np.linalg.norm(s, axis=-1, keepdims=True)
    return norm * s / (1 + norm**2)


def routed_by_hand(net, image, iterations):
    """Each iteration's couplings and class capsules of one image."""
    primary = np.asarray(net.outputs(image[None])["primary"][0], np.float64)
    votes = np.einsum("ik,iokd->iod", primary, np.asarray(net.params["class_capsules"]["W"], np.float64))
    logits, found = np.zeros(votes.shape[:2]), []
    for _ in range(iterations):
        couplings = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        capsules = squash(np.einsum("io,iod->od", couplings, votes))
        found.append((couplings, capsules))
        logits = logits + np.einsum("iod,od->io", votes, capsules)
    return primary, votes, found


def interpolated(values):
    """Of [rows, columns] at the centres 2, 4, … of 5 pixels, by NumPy, one axis after the other."""
    centres = [2 + 2 * np.arange(count) for count in values.shape]
    rows = np.stack([np.interp(np.arange(SIDES[1]), centres[1], row) for row in values])
    return np.stack([np.interp(np.arange(SIDES[0]), centres[0], column) for column in rows.T], axis=1)


def test_the_grid_is_that_of_the_convolutions():
    net = network()
    assert primary_grid(net) == (4, 3, 2)
    # A pixel changes the capsules that see it, and no others.
    black = jnp.zeros((1, *SIDES, 1))
    images = jnp.concatenate([black, black.at[0, 4, 2].set(1), black.at[0, 4, 0].set(1)])
    primary = np.asarray(net.outputs(images)["primary"]).reshape(3, 4, 3, -1)
    centre, border = (primary[1:] != primary[:1]).any(axis=-1)
    assert centre.tolist() == [[True, True, False]] * 3 + [[False] * 3]
    assert border.tolist() == [[True, False, False]] * 3 + [[False] * 3]


@pytest.mark.parametrize("kind", ["couplings", "coupled_votes", "difference"])
def test_maps_are_the_formulas(kind):
    net = network()
    maps = coupling_maps(net, IMAGES, CLASSES, iterations=3, kind=kind)
    assert maps.shape == (3, 3, *SIDES)
    for image, k, found in zip(IMAGES, CLASSES, maps, strict=True):
        primary, votes, iterations = routed_by_hand(net, image, 3)
        for (couplings, capsules), each in zip(iterations, found, strict=True):
            expected = {
                "couplings": couplings[:, k] * np.linalg.norm(primary, axis=1),
                "difference": (couplings[:, k] - 0.1) * np.linalg.norm(primary, axis=1),
                "coupled_votes": couplings[:, k] * (votes[:, k] @ capsules[k]),
            }[kind]
            by_hand = interpolated(expected.reshape(4, 3, 2).sum(axis=-1))
            np.testing.assert_allclose(each, by_hand, rtol=1e-3, atol=1e-5 * np.abs(by_hand).max() + 1e-7)


def test_max_min_couplings_differ_from_their_mean():
    """It is near 1 for the first iteration and nothing in particular later."""
    net = network(routing__name="max_min")
    found = coupling_maps(net, IMAGES[:1], [7], kind="difference")[0]
    out = net.outputs(IMAGES[:1])
    trace = route_again(
        net.model, net.params, out["primary"], net.config.routing, activations=out["primary_activations"], trace=True
    ).trace
    lengths = np.linalg.norm(out["primary"][0], axis=1)
    means = []
    for couplings, each in zip(np.asarray(trace.couplings[0], np.float64), found, strict=True):
        means.append(couplings.mean())
        by_hand = interpolated(((couplings[:, 7] - means[-1]) * lengths).reshape(4, 3, 2).sum(axis=-1))
        np.testing.assert_allclose(each, by_hand, rtol=1e-3, atol=1e-5)
    assert means[0] == 1
    assert all(abs(1 / mean - round(1 / mean)) > 0.01 for mean in means[1:])


def test_chunks_make_no_difference():
    maps = coupling_maps(network(), IMAGES, CLASSES)
    np.testing.assert_allclose(coupling_maps(network(), IMAGES, CLASSES, chunk=2), maps, rtol=1e-4, atol=1e-6)


def test_coupled_votes_add_up_to_the_class_capsule():
    net = network()
    _, _, iterations = routed_by_hand(net, IMAGES[0], 3)
    # Σ_i c_ik û_ik·v_k = s_k·v_k = |s||v|, and |v| = |s|² / (1 + |s|²).
    maps = coupling_maps(net, IMAGES, [4, 0, 0], kind="coupled_votes")
    for t, (_, capsules) in enumerate(iterations):
        v = np.linalg.norm(capsules[4])
        at_centres = maps[0, t, 2:10:2, 2:8:2]
        np.testing.assert_allclose(at_centres.sum(), v * np.sqrt(v / (1 - v)), rtol=1e-3)


@pytest.mark.slow
def test_the_first_iteration_of_any_router_is_told():
    uniform = coupling_maps(network(routing__name="uniform"), IMAGES, 2)
    assert uniform.shape == (3, 1, *SIDES)
    np.testing.assert_allclose(uniform[:, 0], coupling_maps(network(), IMAGES, 2)[:, 0], rtol=1e-5)
    difference = coupling_maps(network(routing__name="uniform"), IMAGES, 2, kind="difference")
    assert not difference.any()
    learned = coupling_maps(network(routing__name="learned"), IMAGES, 2)
    np.testing.assert_allclose(learned, uniform, rtol=1e-5)  # it starts there


def test_the_class_is_the_longest_capsules_unless_it_is_said():
    net = network()
    longest = net.outputs(IMAGES)["lengths"].argmax(axis=1)
    np.testing.assert_array_equal(coupling_maps(net, IMAGES), coupling_maps(net, IMAGES, longest))


def test_a_position_is_spread_over_any_image():
    values = np.random.default_rng(0).normal(size=(6, 4))
    np.testing.assert_allclose(
        over_image(jnp.asarray(values), SIDES, FIELD), interpolated(values), rtol=1e-4, atol=1e-6
    )


@pytest.mark.slow
def test_one_capsule_alone_is_decoded():
    net = network()
    of_type, lengthened = reconstruct_from_one(net, IMAGES, CLASSES)
    of_position, short = reconstruct_from_one(net, IMAGES, CLASSES, each="position", lengthen=False)
    assert lengthened.shape == (3, 2, *SIDES, 1)
    assert short.shape == (3, 12, *SIDES, 1)
    primary, votes, iterations = routed_by_hand(net, IMAGES[1], 3)
    couplings, capsules = iterations[-1]
    strengths = (couplings[:, 0] * np.linalg.norm(primary, axis=1)).reshape(12, 2)
    assert of_type[1].tolist() == (strengths.argmax(axis=0) * 2 + [0, 1]).tolist()
    assert of_position[1].tolist() == (np.arange(12) * 2 + strengths.argmax(axis=1)).tolist()

    def decoded(capsule):
        alone = jnp.zeros((1, 10, 3)).at[0, 0].set(capsule)
        return decode(net.model, net.params, alone, jax.nn.one_hot(jnp.array([0]), 10)).reshape(*SIDES, 1)

    for i, pixels in zip(of_type[1], lengthened[1], strict=True):
        direction = votes[i, 0] / np.linalg.norm(votes[i, 0])
        np.testing.assert_allclose(pixels, decoded(direction * np.linalg.norm(capsules[0])), rtol=1e-3)
    for i, pixels in zip(of_position[1, :3], short[1], strict=False):
        logits = np.zeros(10)  # procedure 1 with the one vote
        for _ in range(3):
            v = squash((np.exp(logits) / np.exp(logits).sum())[:, None] * votes[i])
            logits = logits + np.einsum("od,od->o", votes[i], v)
        np.testing.assert_allclose(pixels, decoded(v[0]), rtol=1e-3)


@pytest.mark.slow
def test_capsules_that_see_the_whole_image_are_looked_at_one_by_one():
    data = LazyDataset("mnist", Description((20, 20, 1), tuple("0123456789")), lambda: None)
    net, images = made(EFFICIENT, data), jax.random.uniform(jax.random.key(2), (2, 20, 20, 1))
    assert primary_grid(net) == (1, 1, 16)
    alone = reconstruct_from_one(net, images, CLASSES[:2])
    np.testing.assert_array_equal(alone.inputs, [range(16)] * 2)
    out = net.outputs(images)
    for b, k in enumerate(CLASSES[:2]):
        votes = np.einsum("ik,ikd->id", out["primary"][b], net.params["class_capsules"]["W"][:, k])
        capsules = votes / np.linalg.norm(votes, axis=1, keepdims=True) * np.linalg.norm(out["capsules"][b, k])
        shown = np.zeros((16, 10, 16), np.float32)
        shown[:, k] = capsules
        pixels = decode(net.model, net.params, jnp.asarray(shown), jax.nn.one_hot(np.full(16, k), 10))
        np.testing.assert_allclose(alone.reconstructions[b].reshape(pixels.shape), pixels, rtol=1e-3)


def test_the_mean_at_a_position_is_weighted_as_it_is_spread():
    maps = np.random.default_rng(1).normal(size=SIDES)
    found = at_positions(jnp.asarray(maps), (4, 3), FIELD)
    for row, column in ((0, 0), (2, 1), (3, 2)):
        weights = interpolated(np.eye(12)[3 * row + column].reshape(4, 3))
        np.testing.assert_allclose(found[row, column], np.sum(weights * maps) / weights.sum(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda net: coupling_maps(net, IMAGES, 10), "10 classes.* no 10"),
        (lambda net: coupling_maps(net, IMAGES, kind="coupled_vote"), "did you mean 'coupled_votes'"),
        (lambda net: primary_grid(lambda x: x), "no primary capsules; take the network of a CapsNet"),
        (
            lambda net: primary_grid(dataclasses.replace(net, config=CNN, model=models.build(CNN, 10))),
            "cnn_small has no",
        ),
        (
            lambda net: coupling_maps(dataclasses.replace(net, config=overrides.build(EFFICIENT)), IMAGES),
            "efficient_capsnet has no single layer of capsules at positions; use --set model.name=capsnet_small",
        ),
    ],
)
def test_what_is_not_there_is_told(use, message):
    with pytest.raises(ConfigError, match=message):
        use(network())
