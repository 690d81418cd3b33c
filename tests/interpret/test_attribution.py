import itertools

import jax
import numpy as np
import pytest
from flax import linen as nn

from capsnet_jax import models, overrides
from capsnet_jax.config import ConfigError
from capsnet_jax.interpret import deconvnet, gradient, guided_backprop, integrated_gradients, smooth_grad
from capsnet_jax.models.forward import Forward, from_flax

RNG = np.random.default_rng(0)
IMAGES = RNG.random((3, 13, 11, 3), np.float32)
CLASSES = np.array([4, 0, 2])
WIDTHS = (13 * 11 * 3, 300, 200, 5)
# With a mean, so that scores follow brightness: what the quadrature misses at each ReLU is then small beside them.
KERNELS = [RNG.normal(0.03, (2 / i) ** 0.5, (i, o)).astype(np.float32) for i, o in itertools.pairwise(WIDTHS)]
BIASES = [RNG.normal(0, 0.1, (1, o)).astype(np.float32) for o in WIDTHS[1:]]
METHODS = {
    "gradient": gradient,
    "smooth_grad": lambda *given, **more: smooth_grad(*given, key=jax.random.key(9), samples=3, **more),
    "integrated_gradients": lambda *given, **more: integrated_gradients(*given, steps=5, **more),
    "guided_backprop": guided_backprop,
    "deconvnet": deconvnet,
}


def net(images):
    """Two layers with ReLUs, and classes behind them."""
    x = images.reshape(len(images), -1) - 0.5
    for kernel, bias in zip(KERNELS[:2], BIASES[:2], strict=True):
        x = jax.nn.relu(x @ kernel + bias)
    return {"logits": x @ KERNELS[2] + BIASES[2]}


def backward(rule):
    """The gradient by NumPy, `rule` deciding what every ReLU passes on: (what went in, gradient) → gradient."""
    (w1, w2, w3), (b1, b2, _) = ([x.astype(np.float64) for x in each] for each in (KERNELS, BIASES))
    first = (IMAGES.reshape(3, -1) - 0.5) @ w1 + b1
    second = np.maximum(first, 0) @ w2 + b2
    return (rule(first, rule(second, w3.T[CLASSES]) @ w2.T) @ w1.T).reshape(IMAGES.shape)


@pytest.mark.parametrize(
    ("method", "rule"),
    [
        (gradient, lambda x, g: (x > 0) * g),
        (guided_backprop, lambda x, g: (x > 0) * (g > 0) * g),
        (deconvnet, lambda x, g: (g > 0) * g),
    ],
)
def test_the_rules_of_relus_are_those_of_a_backward_pass_by_hand(method, rule):
    expected = backward(rule)
    np.testing.assert_allclose(method(net, IMAGES, CLASSES), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("baseline", [0.0, 0.9, 1 - IMAGES])
def test_integrated_gradients_sum_to_the_difference_of_scores(baseline):
    start = np.broadcast_to(np.float32(baseline), IMAGES.shape)
    differences = np.asarray(net(IMAGES)["logits"] - net(start)["logits"])
    classes = np.abs(differences).argmax(axis=1)
    difference = differences[np.arange(3), classes]
    for steps, error in ((50, 1e-2), (200, 5e-3)):
        maps = integrated_gradients(net, IMAGES, classes, baseline=baseline, steps=steps)
        np.testing.assert_allclose(maps.sum(axis=(1, 2, 3)), difference, rtol=error)


def test_integrated_gradients_of_a_cube_are_exact_with_two_nodes():
    # Gauss and Legendre's are exact up to degree 3: x³ − x₀³, pixel by pixel.
    maps = integrated_gradients(lambda x: (x**3).sum(axis=(1, 2, 3)), IMAGES, baseline=0.25, steps=2)
    np.testing.assert_allclose(maps, IMAGES**3 - 0.25**3, rtol=1e-5, atol=1e-6)


def test_without_noise_smooth_grad_is_the_gradient():
    expected = gradient(net, IMAGES, CLASSES)
    maps = smooth_grad(net, IMAGES, CLASSES, key=jax.random.key(0), samples=3, sigma=0.0)
    np.testing.assert_allclose(maps, expected, atol=1e-5 * np.abs(expected).max())


def test_the_noise_is_normal_of_the_images_own_range():
    # The mean gradient of ½ Σ x² is the mean noisy image.
    images = IMAGES * np.array([1.0, 0.1, 0.01], np.float32).reshape(3, 1, 1, 1)
    noise = smooth_grad(lambda x: (x**2).sum(axis=(1, 2, 3)) / 2, images, key=jax.random.key(0), samples=4) - images
    spread = np.ptp(images, axis=(1, 2, 3)).reshape(3, 1, 1, 1)
    standard = np.asarray(noise / (0.15 * spread / np.sqrt(4)))
    pixels = standard[0].size
    np.testing.assert_allclose(standard.std(axis=(1, 2, 3)), 1, atol=4 / np.sqrt(2 * pixels))
    assert np.abs(standard.mean(axis=(1, 2, 3))).max() < 4 / np.sqrt(pixels)
    correlations = np.corrcoef(standard.reshape(3, -1))[np.triu_indices(3, 1)]
    assert np.abs(correlations).max() < 4 / np.sqrt(pixels), "images share their noise"


@pytest.mark.parametrize("name", METHODS)
def test_chunks_make_no_difference(name):
    whole = METHODS[name](net, IMAGES, CLASSES)
    assert whole.shape == IMAGES.shape
    maps = METHODS[name](net, IMAGES, CLASSES, chunk=2)
    np.testing.assert_allclose(maps, whole, atol=1e-5 * np.abs(whole).max())


def test_bytes_are_taken():
    pixels = np.round(255 * IMAGES).astype(np.uint8)
    expected = gradient(net, pixels.astype(np.float32) / 255, CLASSES)
    np.testing.assert_allclose(gradient(net, pixels, CLASSES.tolist()), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["smooth_grad", "guided_backprop"])
def test_a_flax_net_of_one_channel_that_says_nothing_has_maps_of_zeros(name):
    class Silent(nn.Module):
        @nn.compact
        def __call__(self, images):
            return -nn.relu(-1 - images).sum(axis=(1, 2, 3))

    maps = METHODS[name](from_flax(Silent(), {}), IMAGES[..., :1])
    np.testing.assert_array_equal(maps, np.zeros((3, 13, 11, 1)))


def test_the_nets_own_class_is_that_of_the_image_itself():
    chosen = np.asarray(net(IMAGES)["logits"].argmax(axis=1))
    maps = METHODS["integrated_gradients"](net, IMAGES)
    np.testing.assert_array_equal(maps, METHODS["integrated_gradients"](net, IMAGES, chosen))


@pytest.mark.slow
def test_integrated_gradients_of_a_capsules_length_sum_to_its_difference():
    settings = {"model.name": "capsnet_small", "model.channels": 4, "model.capsule_types": 2, "model.primary_dim": 4}
    settings |= {"model.kernel": 3, "model.class_dim": 3, "model.decoder": (8,), "model.weight_scale": 5.0}
    model = models.build(overrides.build(settings), 10)
    params, _ = models.init(model, jax.random.key(1), (13, 11, 1))
    capsnet, images = Forward(model, {"params": params}), jax.numpy.asarray(IMAGES[..., :1])
    maps = integrated_gradients(capsnet, images, 7)
    difference = capsnet(images)["lengths"][:, 7] - capsnet(0 * images)["lengths"][:, 7]
    assert np.abs(difference).min() > 1e-3
    np.testing.assert_allclose(maps.sum(axis=(1, 2, 3)), difference, rtol=1e-2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: smooth_grad(net, IMAGES, key=jax.random.key(0), samples=0), "samples"),
        (lambda: integrated_gradients(net, IMAGES, steps=0), "steps"),
    ],
)
def test_none_of_something_is_told(call, message):
    with pytest.raises(ConfigError, match=f"{message} is 0; give 1 or more"):
        call()
