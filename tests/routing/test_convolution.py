"""A convolutional layer is a fully connected one in which children and parents that are far apart do not couple."""

import itertools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.config import Choice
from capsnet_jax.ops.squash import length
from capsnet_jax.routing import ROUTERS, layer
from capsnet_jax.routing.convolution import POSITIONS, Windows, route_convolution
from capsnet_jax.routing.layer import route_batch

BATCH, GRID, TYPES, OUTPUTS, KERNEL = 3, (5, 4), 2, 3, (3, 2)
DIM = {"matrix": 4, "vector": 4}  # of matrices 2×2
SIDE = {"matrix": 2, "vector": 4}
INPUTS = KERNEL[0] * KERNEL[1] * TYPES


def choose(name, **settings) -> Choice:
    return Choice(name, type(ROUTERS[name].settings)(**settings))


@cache
def problem(pose="vector"):
    keys = jax.random.split(jax.random.key(0), 3)
    poses = jax.random.normal(keys[0], (BATCH, *GRID, TYPES, DIM[pose]))
    activations = jax.random.uniform(keys[1], (BATCH, *GRID, TYPES), minval=0.1)
    return poses, activations, jax.random.normal(keys[2], (INPUTS, OUTPUTS, SIDE[pose], SIDE[pose]))


def parameters_of(choice, inputs=INPUTS, seed=1):
    start = ROUTERS[choice.name].initial_parameters(
        jax.random.key(seed), inputs, OUTPUTS, 4, primary_dim=4, settings=choice.settings
    )
    return jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(2), leaf.shape), start) or None


def windows(grid, kernel, stride):
    """Position → its inputs, as (row, column, type) of children, in the order of W."""
    steps = [range(0, size - k + 1, stride) for size, k in zip(grid, kernel, strict=True)]
    return [
        [(r + i, c + j, t) for i in range(kernel[0]) for j in range(kernel[1]) for t in range(TYPES)]
        for r, c in itertools.product(*steps)
    ]


def masked_softmax(logits, mask, orphan=0.0):
    """Of each child over its parents at all positions, [children, parents]; `orphan` is added to the sum."""
    shares = np.zeros(logits.shape)
    for child, parents in enumerate(mask):
        powers = np.exp(logits[child][parents])
        shares[child][parents] = powers / (powers.sum() + orphan)
    return shares


def fully_connected(poses, activations, weights, stride):
    """All votes of one image [children, positions · types, dim], a mask of those that there are, and activations."""
    children = list(itertools.product(*map(range, (*GRID, TYPES))))
    seen = windows(GRID, KERNEL, stride)
    rows, side = poses.shape[-1] // weights.shape[2], weights.shape[2]
    votes = np.zeros((len(children), len(seen) * OUTPUTS, rows * weights.shape[3]))
    mask = np.zeros(votes.shape[:2], bool)
    for position, inputs in enumerate(seen):
        for index, child in enumerate(inputs):
            for o in range(OUTPUTS):
                parent = position * OUTPUTS + o
                vote = np.float64(poses[child]).reshape(rows, side) @ np.float64(weights[index, o])
                votes[children.index(child), parent] = vote.reshape(-1)
                mask[children.index(child), parent] = True
    return votes, mask, np.float64(activations).reshape(-1)


def loop_dynamic(votes, mask, active, iterations, orphan, **_):
    logits = np.zeros(mask.shape)
    for t in range(iterations):
        shares = masked_softmax(logits, mask, orphan)
        total = np.einsum("io,iod->od", shares, votes)
        squared = np.sum(total**2, axis=1, keepdims=True)
        capsules = total * np.sqrt(squared) / (1 + squared)
        if t < iterations - 1:
            logits = logits + np.einsum("iod,od->io", votes, capsules)
    return capsules, np.linalg.norm(capsules, axis=1), shares


def loop_em(votes, mask, active, iterations, betas, **_):
    logits = np.zeros(mask.shape)
    even = masked_softmax(logits, mask).sum(axis=0)
    positions = mask.shape[1] // OUTPUTS
    beta_u, beta_a = (np.tile(np.float64(betas[name]), positions) for name in ("beta_u", "beta_a"))
    for t in range(iterations):
        shares = masked_softmax(logits, mask)
        weights = shares * active[:, None]
        count = weights.sum(axis=0)
        means = np.einsum("io,iod->od", weights, votes) / count[:, None]
        squares = (votes - means) ** 2
        variance = np.einsum("io,iod->od", weights, squares) / count[:, None] + 1e-3
        costs = np.sum(beta_u[:, None] + 0.5 * np.log(variance), axis=1) * count / even
        presence = 1 / (1 + np.exp(-100 * 0.01 * (1 - 0.95 ** (t + 1)) * (beta_a - costs)))
        logits = np.log(presence) - 0.5 * np.sum(np.log(2 * np.pi * variance) + squares / variance, axis=2)
    return means, presence, shares


LOOPS = {
    "dynamic": (choose("dynamic"), loop_dynamic),
    "leaky": (choose("dynamic", leaky=True, iterations=2), loop_dynamic),
    "uniform": (choose("dynamic", iterations=1), loop_dynamic),
    "em": (choose("em", deviation=1.0), loop_em),
}


@pytest.mark.parametrize(
    ("name", "stride", "pose", "images"),
    [
        ("dynamic", 1, "vector", 9),
        ("dynamic", 2, "matrix", 2),
        ("leaky", 1, "matrix", 9),
        ("uniform", 2, "vector", 1),
        ("em", 1, "matrix", 2),
        ("em", 2, "vector", 9),
    ],
)
def test_is_the_masked_fully_connected_layer(name, stride, pose, images, monkeypatch):
    choice, loop = LOOPS[name]
    seen = windows(GRID, KERNEL, stride)
    monkeypatch.setattr(layer, "CACHED_VOTES", images * len(seen) * INPUTS * OUTPUTS * DIM[pose] * 4)
    betas = parameters_of(choice)
    arguments = problem(pose)
    got = jax.jit(lambda *a: route_convolution(*a, choice, betas, kernel=KERNEL, stride=stride))(*arguments)
    places = ((GRID[0] - KERNEL[0]) // stride + 1, (GRID[1] - KERNEL[1]) // stride + 1)
    assert got.capsules.shape == (BATCH, *places, OUTPUTS, DIM[pose])
    assert got.activations.shape == (BATCH, *places, OUTPUTS)
    children = list(itertools.product(*map(range, (*GRID, TYPES))))
    for image in range(BATCH):
        votes, mask, active = fully_connected(*(np.asarray(a)[image] for a in arguments[:2]), arguments[2], stride)
        settings = {"iterations": choice.settings.iterations, "orphan": float(name == "leaky"), "betas": betas}
        capsules, presence, shares = loop(votes, mask, active, **settings)
        np.testing.assert_allclose(got.capsules[image].reshape(capsules.shape), capsules, rtol=2e-3, atol=2e-4)
        np.testing.assert_allclose(got.activations[image].reshape(-1), presence, rtol=1e-3, atol=1e-5)
        for position, inputs in enumerate(seen):
            expected = shares[[children.index(child) for child in inputs]]
            own = expected[:, position * OUTPUTS : (position + 1) * OUTPUTS]
            np.testing.assert_allclose(got.couplings[image, position], own, rtol=2e-3, atol=2e-4)


def both(name):
    """A convolutional layer whose window is the image, and the fully connected one, of the same capsules."""
    choice = choose(name)
    poses, activations = (array[:, : KERNEL[0], : KERNEL[1]] for array in problem()[:2])
    count = KERNEL[0] * KERNEL[1] * TYPES
    weights = jax.random.normal(jax.random.key(5), (count, OUTPUTS, 4, 6))
    parameters = parameters_of(choice, count)

    def convolutional(poses, weights):
        routing = route_convolution(poses, activations, weights, choice, parameters, kernel=KERNEL)
        return routing._replace(capsules=routing.capsules[:, 0, 0], activations=routing.activations[:, 0, 0])

    def connected(poses, weights):
        flat = poses.reshape(BATCH, count, 4), weights, choice, parameters
        return route_batch(*flat, activations=activations.reshape(BATCH, count))

    return convolutional, connected, (poses, weights)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dynamic", "em", "learned"])
def test_a_window_as_large_as_the_image_is_the_fully_connected_layer(name):
    convolutional, connected, arguments = both(name)
    got, expected = jax.jit(convolutional)(*arguments), jax.jit(connected)(*arguments)
    for field in ("capsules", "activations"):
        np.testing.assert_allclose(getattr(got, field), getattr(expected, field), rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(got.couplings[:, 0], expected.couplings, rtol=2e-3, atol=1e-6)


@pytest.mark.slow
def test_so_is_its_gradient():
    convolutional, connected, arguments = both("em")

    def value(route, *arguments):
        return jnp.sum(jnp.sin(route(*arguments).capsules))

    slopes = [jax.jit(jax.grad(lambda *a, r=r: value(r, *a), (0, 1)))(*arguments) for r in (convolutional, connected)]
    for got, expected in zip(*slopes, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("orphan", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_every_childs_shares_sum_to_1_over_all_its_parents(orphan, scale):
    seen, grid = windows(GRID, KERNEL, 1), Windows(GRID, KERNEL, 1)
    logits = scale * jax.random.normal(jax.random.key(4), (len(seen), INPUTS, OUTPUTS)) - scale
    shares = jax.jit(jax.vmap(lambda one: grid.softmax(one, orphan=orphan), axis_name=POSITIONS))(logits)
    children = list(itertools.product(*map(range, (*GRID, TYPES))))
    flat, mask = np.full((len(children), len(seen) * OUTPUTS), -np.inf), {}
    for position, inputs in enumerate(seen):
        for index, child in enumerate(inputs):
            flat[children.index(child), position * OUTPUTS : (position + 1) * OUTPUTS] = logits[position, index]
            mask[position, index] = children.index(child)
    flat = np.concatenate([flat, np.full((len(flat), 1), 0.0 if orphan else -np.inf)], axis=1)
    powers = np.exp(flat - flat.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    for (position, index), child in mask.items():
        own = powers[child, position * OUTPUTS : (position + 1) * OUTPUTS]
        np.testing.assert_allclose(shares[position, index], own, rtol=1e-4, atol=1e-7)


def test_the_softmax_has_the_gradient_that_finite_differences_say():
    grid = Windows(GRID, KERNEL, 1)
    logits = jax.random.normal(jax.random.key(6), (6 * 1 * 3 // 2, INPUTS, OUTPUTS))
    direction, weights = (jax.random.normal(jax.random.key(k), logits.shape) for k in (7, 8))

    @jax.jit
    def value(logits):
        return jnp.vdot(weights, jax.vmap(grid.softmax, axis_name=POSITIONS)(logits))

    slope = jnp.vdot(jax.grad(value)(logits), direction)
    step = 1e-2 * direction
    assert float(slope) == pytest.approx(float(value(logits + step) - value(logits - step)) / 2e-2, rel=5e-3)


def test_offsets_are_added_to_votes():
    """One iteration of EM has mean votes as capsules."""
    poses, activations, weights = problem("matrix")
    choice = choose("em", iterations=1)
    offsets = jax.random.normal(jax.random.key(9), (INPUTS, 4))

    @jax.jit
    def capsules(offsets):
        betas = parameters_of(choice)
        return route_convolution(poses, activations, weights, choice, betas, kernel=KERNEL, offsets=offsets).capsules

    constant = jnp.broadcast_to(jnp.arange(4.0), (INPUTS, 4))
    plain = capsules(jnp.zeros((INPUTS, 4)))
    np.testing.assert_allclose(capsules(constant) - plain, jnp.broadcast_to(jnp.arange(4.0), plain.shape), atol=1e-5)
    assert float(jnp.abs(capsules(offsets) - plain).min()) > 0


@pytest.mark.parametrize("name", ["learned", "max_min"])
def test_routers_without_a_softmax_and_fixed_couplings_route_too(name):
    poses, activations, weights = problem()
    choice = choose(name)
    got = jax.jit(lambda *a: route_convolution(*a, choice, parameters_of(choice), kernel=KERNEL))(
        poses, activations, weights
    )
    np.testing.assert_allclose(got.activations, length(got.capsules), rtol=1e-5)
    assert bool(jnp.isfinite(got.capsules).all())


@pytest.mark.parametrize("name", [name for name in ROUTERS if name != "max_min"])
def test_each_child_is_shared_once_among_all_its_parents(name):
    choice, (poses, activations, weights) = choose(name), problem()
    own = parameters_of(choice)
    if name == "self_attention":  # whose couplings are shares and a learned part
        own = {"bias": jnp.zeros((INPUTS, OUTPUTS))}
    got = jax.jit(lambda *a: route_convolution(*a, choice, own, kernel=KERNEL))(poses, activations, weights)
    total = np.zeros((BATCH, *GRID, TYPES))
    for position, inputs in enumerate(windows(GRID, KERNEL, 1)):
        for index, child in enumerate(inputs):
            total[(slice(None), *child)] += np.asarray(got.couplings)[:, position, index].sum(axis=-1)
    np.testing.assert_allclose(total, 1, rtol=1e-4)


def test_a_trace_has_every_iteration_of_every_position():
    poses, activations, weights = problem()
    choice = choose("dynamic")
    got = jax.jit(lambda *a: route_convolution(*a, choice, kernel=KERNEL, trace=True))(poses, activations, weights)
    assert got.trace.couplings.shape == (BATCH, 9, 3, INPUTS, OUTPUTS)
    np.testing.assert_array_equal(got.trace.couplings[:, :, -1], got.couplings)


def test_a_grid_smaller_than_the_window_is_an_error_that_names_the_sizes():
    with pytest.raises(ValueError, match="images are too small: 2×5 capsules are fewer than a 3×3 kernel"):
        Windows((2, 5), (3, 3))
