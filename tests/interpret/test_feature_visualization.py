import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.config import ConfigError
from capsnet_jax.data.augment import to_float
from capsnet_jax.interpret import image_parameters, targets, visualize
from capsnet_jax.interpret.feature_visualization import _likeness, _unit_norm
from capsnet_jax.interpret.image_parameters import STILL, Movements, move, spectrum_to_values, to_image

KEY = jax.random.key(0)
SHAPE = (12, 11, 1)
KERNEL = jax.random.normal(jax.random.key(1), (3, 3, 1, 4)) / 3
WEIGHTS = jax.random.normal(jax.random.key(2), (math.prod(SHAPE), 5))


def conv(images):
    return jax.lax.conv_general_dilated(images, KERNEL, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def small_net(images):
    """A convolution and its ReLU, linear units of the pixels, and a unit that no gradient reaches."""
    pixels = images.reshape(len(images), -1)
    return {"maps": jax.nn.relu(conv(images)), "logits": (pixels - 0.5) @ WEIGHTS, "none": 0 * pixels[:, :1]}


def images_alone(images):
    return {"images": images}


@pytest.mark.parametrize("shape", [(12, 11, 1), (9, 10, 3), (8, 8, 1)])
@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_a_spectrum_gives_the_values_that_numpy_makes_of_it(shape, decay):
    height, width, channels = shape
    spectrum = jax.random.normal(KEY, (2, height, width // 2 + 1, channels))
    values = spectrum_to_values(spectrum, shape, decay=decay)
    for c in range(channels):
        scaled = np.zeros((height, width // 2 + 1), complex)
        for row in range(height):
            for column in range(width // 2 + 1):
                frequency = math.hypot(min(row, height - row) / height, column / width)
                scale = math.sqrt(height * width) * max(frequency, 1 / max(height, width)) ** -decay / 4
                scaled[row, column] = scale * complex(spectrum[0, row, column, c], spectrum[1, row, column, c])
        np.testing.assert_allclose(values[:, :, c], np.fft.irfft2(scaled, s=(height, width)), rtol=1e-4, atol=1e-5)
        # Inner columns are free, so they come back; the first one, and an even width's last, are symmetric.
        inner = slice(1, (width + 1) // 2)
        np.testing.assert_allclose(np.fft.rfft2(values[:, :, c])[:, inner], scaled[:, inner], rtol=1e-3, atol=1e-3)


def test_what_no_gradient_holds_fades():
    found = visualize(small_net, targets.unit("none", 0), key=KEY, shape=SHAPE, steps=3, fade=0.1, background=0.5)
    start = image_parameters.draw_spectrum(jax.random.fold_in(jax.random.fold_in(KEY, 0), 0), SHAPE)
    expected = to_image(spectrum_to_values(0.9**3 * start, SHAPE), 0.5)
    np.testing.assert_allclose(found.images[0], expected, rtol=1e-5)
    assert float(jnp.abs(expected - to_image(spectrum_to_values(start, SHAPE), 0.5)).max()) > 1e-4


def test_colours_are_not_correlated_and_grey_is_the_background():
    assert np.linalg.norm(image_parameters.COLORS, axis=0).max() == pytest.approx(1)
    values = jax.random.normal(KEY, (4, 5, 3))
    expected = [[1 / (1 + np.exp(-image_parameters.COLORS @ v)) for v in row] for row in np.float64(values)]
    np.testing.assert_allclose(to_image(values), expected, rtol=1e-5)
    np.testing.assert_allclose(to_image(jnp.zeros((2, 2, 1)), 0.2), 0.2, rtol=1e-5)
    np.testing.assert_allclose(to_image(jnp.ones((2, 2, 1))), 1 / (1 + np.exp(-1)), rtol=1e-5)


def test_an_image_that_is_not_moved_stays():
    image = jax.random.uniform(KEY, (6, 9, 3))
    np.testing.assert_allclose(jax.jit(move, static_argnums=2)(KEY, image, STILL), image, atol=1e-6)


def test_movements_are_of_their_size():
    ramp = jnp.broadcast_to(jnp.arange(31.0)[:, None, None], (31, 31, 1)) / 100
    keys = jax.random.split(KEY, 200)
    move_all = jax.jit(jax.vmap(partial(move, background=0.7), in_axes=(0, None, None)))
    moved = lambda *movements: np.asarray(move_all(keys, ramp, Movements(*movements)))[..., 0]  # noqa: E731
    shifts = -100 * (moved((3.0, 2.0), 0.0, 0.0)[:, 15, 15] - ramp[15, 15])
    assert 3 < shifts.max() <= 5
    assert -5 <= shifts.min() < -3
    scaled = moved((0.0, 0.0), 0.1, 0.0)
    scales = 0.1 / (scaled[:, 20, 15] - scaled[:, 10, 15])
    np.testing.assert_allclose([scales.min(), scales.max()], [0.9, 1.1], atol=0.01)
    turned = moved((0.0, 0.0), 0.0, 10.0)
    down, right = 10 * (turned[:, 20, 15] - turned[:, 10, 15]), 10 * (turned[:, 15, 20] - turned[:, 15, 10])
    angles = np.degrees(np.arctan2(right, down))
    np.testing.assert_allclose(np.hypot(right, down), 1, rtol=1e-3)
    np.testing.assert_allclose([angles.min(), angles.max()], [-10, 10], atol=0.3)
    assert moved((9.0, 9.0), 0.0, 0.0)[:, 0].max() == pytest.approx(0.7)


def test_the_best_image_of_a_linear_unit_is_its_weights_signs():
    found = visualize(small_net, [0, 3], key=KEY, shape=SHAPE, steps=300, movements=STILL, fade=0.0, background=0.5)
    for image, score, weights in zip(found.images, found.scores, WEIGHTS.T[np.array([0, 3])], strict=True):
        centred = np.ravel(image) - 0.5
        signs = np.sign(weights)
        assert centred @ signs / np.linalg.norm(centred) / np.linalg.norm(signs) > 0.9
        assert score == pytest.approx(float(centred @ weights), rel=1e-4)
        assert score > 0.95 * np.abs(weights).sum() / 2  # the most that any image gets


@pytest.mark.slow
def test_many_targets_are_as_each_alone():
    of = lambda channels: visualize(small_net, targets.channel("maps", channels), key=KEY, shape=SHAPE, steps=4)  # noqa: E731
    together, swapped, alone = of([0, 3]), of([3, 0]), of(0)
    np.testing.assert_allclose(together.images[:1], alone.images, atol=1e-5)
    assert jnp.abs(together.images[0] - swapped.images[0]).max() > 0.01
    # The score is the net's own of the very image.
    np.testing.assert_allclose(swapped.scores[0], np.mean(small_net(swapped.images)["maps"][0, ..., 3]), rtol=1e-5)


@pytest.mark.slow
def test_chunks_change_nothing():
    options = {"key": KEY, "shape": SHAPE, "steps": 5, "variants": 2, "layer": "maps", "starts": 2}
    together, pieces = (visualize(small_net, [0, 1, 3], chunk=chunk, **options) for chunk in (3, 2))
    assert together.images.shape == (6, *SHAPE)
    np.testing.assert_allclose(together.images, pieces.images, atol=1e-5)
    np.testing.assert_allclose(together.scores, pieces.scores, rtol=1e-4)


@pytest.mark.slow
def test_the_best_start_goes_on():
    """The target has two maxima, 1 and 2, and most starts are on the side of the lower one."""

    def hills(outputs):
        x = 300 * (outputs["images"].mean(axis=(1, 2, 3)) - 0.5) + 0.25
        return jnp.exp(-((x - 2) ** 2)) + 2 * jnp.exp(-((x + 2) ** 2))

    def score_of(starts):
        options = {"shape": SHAPE, "steps": 60, "learning_rate": 0.005, "fade": 0.0, "background": 0.5}
        return float(visualize(images_alone, hills, key=KEY, movements=STILL, starts=starts, **options).scores[0])

    assert score_of(1) == pytest.approx(1, abs=0.05)
    assert score_of(16) == pytest.approx(2, abs=0.05)


def test_a_channel_that_is_off_wakes_up():
    """On a grey image no position is above the bias, and on any at most by 0.4 of what excites it."""
    bias = 0.6 * np.maximum(KERNEL, 0).sum((0, 1, 2), keepdims=True)

    def sleeping(images):
        return {"maps": jax.nn.relu(conv(images) - bias)}

    assert not sleeping(jnp.full((1, *SHAPE), 0.5))["maps"].any()
    found = visualize(sleeping, targets.channel("maps", [0, 1, 2, 3]), key=KEY, shape=SHAPE, steps=60, background=0.5)
    assert (found.scores > 0).all()


def test_a_target_without_gradient_gives_no_nan():
    found = visualize(small_net, targets.unit("none", 0), key=KEY, shape=SHAPE, steps=3)
    assert np.isfinite(found.images).all()
    zeros = jnp.zeros((2, 3, 3, 2))
    assert not _unit_norm(zeros).any()
    assert np.isfinite(jax.jit(jax.grad(_likeness), static_argnums=1)(zeros, 2)).all()


def test_norms_are_1_whatever_the_scale():
    arrays = jnp.array([3.0, 1e-30, 1e30, 0.0])[:, None] * jnp.array([[3.0, -4.0]])
    np.testing.assert_allclose(_unit_norm(arrays), [[0.6, -0.8]] * 3 + [[0, 0]], rtol=1e-5)


def test_likeness_is_the_cosines_between_gram_matrices():
    activations = jax.random.normal(KEY, (6, 4, 3, 5))  # two targets of three variants
    grams = [np.einsum("hwc,hwd->cd", x, x).ravel() for x in np.float64(activations)]
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j and i // 3 == j // 3]
    cosines = [grams[i] @ grams[j] / np.linalg.norm(grams[i]) / np.linalg.norm(grams[j]) for i, j in pairs]
    assert _likeness(activations, 3) == pytest.approx(sum(cosines), rel=1e-4)


@pytest.mark.slow
def test_variants_differ_more_with_diversity():
    options = {"key": KEY, "shape": SHAPE, "steps": 60, "variants": 2, "layer": "maps", "background": 0.5}
    likeness = [
        float(_likeness(small_net(visualize(small_net, 1, diversity=d, **options).images)["maps"], 2))
        for d in (0.0, 2.0)
    ]
    print(likeness)
    assert likeness[1] < likeness[0] - 0.02


@pytest.mark.parametrize(("layer", "message"), [("logits", "logits has none"), ("map", "did you mean 'maps'")])
def test_variants_need_a_layer_with_positions(layer, message):
    with pytest.raises(ConfigError, match=message):
        visualize(small_net, 1, key=KEY, shape=SHAPE, variants=2, layer=layer)


@pytest.mark.slow
def test_a_capsule_is_lengthened(net):
    capsules = [
        targets.capsule_length([1, 2]),
        targets.capsule_contrast([1, 2]),
        targets.capsule_dimension(1, [0, 1]),
    ]
    shape = net.data.image_shape
    black = jnp.zeros((2, *shape))
    for target in capsules:
        found = visualize(net.forward, target, key=KEY, shape=shape, steps=15)
        assert found.images.shape == (2, *shape)
        assert (found.scores > target(net.outputs(black))).all(), target.score.__name__


@pytest.mark.slow
def test_an_optimised_image_excites_its_target_more_than_any_of_a_data_set(net):
    """The images that scikit-learn ships; 600 random ones beside them."""
    images = jnp.concatenate(
        [to_float(jnp.asarray(net.data.test.images)), jax.random.uniform(KEY, (600, *net.data.image_shape))]
    )
    outputs = net.outputs(images)
    for target in (targets.class_score(list(range(10))), targets.channel("conv1", [0, 1, 2])):
        found = visualize(net.forward, target, key=KEY, shape=net.data.image_shape, steps=256)
        each = [targets.Target(target.score, target.of, index) for index in target.index]
        assert (found.scores > jnp.array([of(outputs).max() for of in each])).all()
