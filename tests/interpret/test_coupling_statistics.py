import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import models, overrides
from capsnet_jax.data import Examples
from capsnet_jax.interpret.coupling_statistics import count_couplings
from capsnet_jax.interpret.routing_diagnostics import entropy_of

SIZES = {
    "model.kernel": 3,
    "model.channels": 2,
    "model.capsule_types": 2,
    "model.primary_dim": 3,
    "model.class_dim": 3,
    "model.weight_scale": 3.0,
    "loss.reconstruction": False,
}
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 1), np.uint8)
EXAMPLES = Examples(jnp.asarray(IMAGES), jnp.zeros(7, jnp.int32))


def counted(**settings):
    config = overrides.build(SIZES | {name.replace("__", "."): value for name, value in settings.items()})
    model = models.build(config, 4)
    params, stats = models.init(model, jax.random.key(0), (8, 8, 1))
    found = jax.jit(lambda params: count_couplings(config, params, stats, EXAMPLES, 4))(params)
    return found, models.apply(model, params, stats, jnp.float32(IMAGES) / 255)


@pytest.mark.slow
def test_is_the_mean_entropy_and_the_deviation_between_images():
    found, out = counted(routing__iterations=3)
    couplings = np.float64(out["couplings"])
    entropies = [-sum(c * np.log(c) for c in row) / np.log(4) for image in couplings for row in image]
    assert found["coupling_entropy"] == pytest.approx(np.mean(entropies), rel=1e-5)
    deviations = [[np.std(couplings[:, i, o]) for o in range(4)] for i in range(couplings.shape[1])]
    assert found["coupling_variation"] == pytest.approx(np.mean(deviations) / np.mean(couplings), rel=1e-3)
    assert found["coupling_variation"] > 0.01


@pytest.mark.slow
def test_of_negative_couplings_the_sizes_count():
    """Self-attention adds a prior of either sign behind its softmax."""
    config = overrides.build(SIZES | {"routing.name": "self_attention"})
    model = models.build(config, 4)
    params, stats = models.init(model, jax.random.key(0), (8, 8, 1))
    prior = params["class_capsules"]["routing"]["bias"]
    params["class_capsules"]["routing"]["bias"] = jax.random.normal(jax.random.key(1), prior.shape)
    found = count_couplings(config, params, stats, EXAMPLES, 4)
    couplings = np.float64(models.apply(model, params, stats, jnp.float32(IMAGES) / 255)["couplings"])
    assert couplings.min() < 0
    sizes = np.abs(couplings)
    shares = sizes / sizes.sum(axis=-1, keepdims=True)
    assert found["coupling_entropy"] == pytest.approx(np.mean(-(shares * np.log(shares)).sum(-1)) / np.log(4), rel=1e-4)
    assert found["coupling_variation"] == pytest.approx(couplings.std(axis=0).mean() / sizes.mean(), rel=1e-3)


@pytest.mark.slow
def test_uniform_couplings_are_of_entropy_1_and_static_ones_never_vary():
    found, _ = counted(routing__name="uniform")
    assert found["coupling_entropy"] == pytest.approx(1, rel=1e-6)
    assert found["coupling_variation"] == 0
    found, _ = counted(routing__name="random")
    assert 0.3 < found["coupling_entropy"] < 0.99
    assert found["coupling_variation"] == 0


def test_couplings_that_do_not_sum_to_1_are_scaled():
    couplings = jnp.array([[0.5, 0.5, 0], [2, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(entropy_of(couplings), [np.log(2) / np.log(3), 0, 0], rtol=1e-6)


@pytest.mark.slow
def test_there_is_nothing_to_count_without_couplings_or_images():
    config = overrides.build({"model.name": "cnn_small"})
    params, stats = models.init(models.build(config, 4), jax.random.key(0), (28, 28, 1))
    large = Examples(jnp.zeros((1, 28, 28, 1), jnp.uint8), jnp.zeros(1, jnp.int32))
    assert count_couplings(config, params, stats, large, 4) == {}
    empty = Examples(large.images[:0], large.labels[:0])
    assert count_couplings(config, params, stats, empty, 4) == {}
