import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import models, overrides
from capsnet_jax.models import MODELS
from capsnet_jax.models.efficient_capsnet import WholeMap
from tests.models.random_params import random_variables

IMAGE = (21, 19, 1)
SMALL = {"model.name": "efficient_capsnet", "model.capsule_types": 3, "model.primary_dim": 4, "model.decoder": (6,)}


# As published, without the decoder: of MNIST, MultiMNIST and smallNORB.
@pytest.mark.parametrize(
    ("count", "image", "classes", "changes"),
    [
        (161_824, (28, 28, 1), 10, {}),
        (154_656, (36, 36, 1), 10, {"strides": 2}),
        (151_664, (48, 48, 2), 5, {"strides": 2, "kernel": 7}),
    ],
)
def test_has_the_published_parameters(count, image, classes, changes):
    model = MODELS["efficient_capsnet"](classes=classes, reconstruction=False, **changes)
    params = jax.eval_shape(lambda: models.init(model, jax.random.key(0), image))[0]
    assert models.count_parameters(params) == count
    assert params["class_capsules"]["W"].shape == (16, classes, 8, 16)


def test_routes_by_self_attention_unless_told_otherwise():
    assert overrides.build({"model.name": "efficient_capsnet"}).routing.name == "self_attention"
    assert overrides.build({"model.name": "efficient_capsnet", "routing.name": "dynamic"}).routing.name == "dynamic"
    assert overrides.build({"model.name": "capsnet"}).routing.name == "dynamic"


def test_each_part_is_the_papers():
    """In float64: ReLU and then the norm, a weighted sum of the whole map, the squash 1 − e^{−n}."""
    model = models.build(overrides.build(SMALL), 3)
    params, stats = random_variables(model, IMAGE)
    images = np.random.default_rng(0).uniform(0, 1, (2, *IMAGE)).astype(np.float32)
    out = jax.jit(lambda images: models.apply(model, params, stats, images))(images)
    assert [out[f"conv{i}"].shape[1:] for i in (1, 2, 3, 4)] == [(17, 15, 32), (15, 13, 64), (13, 11, 64), (6, 5, 12)]

    p, s = (jax.tree.map(np.float64, tree) for tree in (params, stats))
    windows = np.lib.stride_tricks.sliding_window_view(np.float64(images[..., 0]), (5, 5), axis=(1, 2))
    first = np.maximum(0, np.einsum("bhwij,ijf->bhwf", windows, p["conv1"]["kernel"][:, :, 0]) + p["conv1"]["bias"])
    scale = p["norm1"]["scale"] / np.sqrt(s["norm1"]["var"] + 1e-5)
    normed = (first - s["norm1"]["mean"]) * scale + p["norm1"]["bias"]
    np.testing.assert_allclose(out["conv1"], normed, rtol=1e-3, atol=1e-4)

    kernel, bias = p["primary"]["kernel"], p["primary"]["bias"]
    sums = (np.float64(out["conv4"]) * kernel[None, :, :, 0]).sum(axis=(1, 2)) + bias
    capsules = sums.reshape(2, 3, 4)
    norms = np.linalg.norm(capsules, axis=-1, keepdims=True)
    np.testing.assert_allclose(out["primary"], (1 - np.exp(-norms)) * capsules / norms, rtol=1e-3, atol=1e-4)


def test_the_whole_map_starts_as_he_normal():
    shape = (1, 9, 9, 128)
    kernel = jax.jit(WholeMap().init)(jax.random.key(0), jnp.zeros(shape))["params"]["kernel"]
    assert kernel.shape == (9, 9, 1, 128)
    np.testing.assert_allclose(jnp.std(kernel), np.sqrt(2 / 81), rtol=0.03)
