import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.config import ConfigError
from capsnet_jax.interpret import deep_dream, dream_from_noise, targets
from capsnet_jax.interpret.dreams import _octaves
from capsnet_jax.interpret.laplacian_pyramid import merge_bands, normalize_bands, split_bands
from capsnet_jax.interpret.targets import layer_energy

KEY = jax.random.key(0)
KERNEL = jax.random.normal(jax.random.key(1), (3, 3, 3, 4)) / 3
IMAGES = jax.random.uniform(jax.random.key(2), (3, 21, 17, 3))


def small_net(images):
    """A convolution and its ReLU, and the mean of each map: images of any size."""
    maps = jax.lax.conv_general_dilated(images, KERNEL, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return {"maps": jax.nn.relu(maps), "logits": maps.mean((1, 2)), "none": 0 * maps}


def rises(images):
    return images.mean(axis=(1, 2, 3))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["maps", targets.channel("maps", 1), [0, 3, 2]])
def test_a_dream_raises_its_target(target):
    dreams = deep_dream(small_net, IMAGES, target, key=KEY, octaves=2, steps=5, jitter=3)
    assert dreams.shape == IMAGES.shape
    assert float(dreams.min()) >= 0
    assert float(dreams.max()) <= 1
    of = layer_energy("maps") if target == "maps" else target if callable(target) else targets.class_score(target)
    assert (of(small_net(dreams)) > of(small_net(IMAGES))).all()


def test_the_energy_is_the_mean_square():
    energy = layer_energy("maps")(small_net(IMAGES))
    np.testing.assert_allclose(energy, [np.mean(np.square(x)) for x in small_net(IMAGES)["maps"]], rtol=1e-5)


def test_a_step_changes_pixels_by_its_size_on_average():
    """In levels of a byte; of one octave, away from 0 and 1, along the gradient."""
    weights = jax.random.normal(KEY, IMAGES.shape[1:])
    images = 0.3 + 0.4 * IMAGES
    options = {"key": KEY, "octaves": 1, "steps": 4, "jitter": 0}
    dreams = deep_dream(lambda x: jnp.einsum("bhwc,hwc->b", x, weights), images, **options)
    np.testing.assert_allclose(255 * jnp.abs(dreams - images).mean(axis=(1, 2, 3)), 4 * 1.5, rtol=1e-3)
    expected = weights / jnp.abs(weights).mean() * 6 / 255
    np.testing.assert_allclose(dreams[1] - images[1], expected, atol=1e-5)


@pytest.mark.slow
def test_jitter_moves_what_is_seen_and_not_the_image():
    """A target that is the same at all positions does not notice; one that is not, does."""
    images = 0.3 + 0.4 * IMAGES
    of = lambda jitter: deep_dream(lambda x: x[:, 5, 5, 0], images, key=KEY, octaves=1, steps=20, jitter=jitter)  # noqa: E731
    changed = [np.abs(of(jitter) - images).max(axis=(0, 3)) > 1e-6 for jitter in (0, 2)]
    assert np.argwhere(changed[0]).tolist() == [[5, 5]]
    rows, columns = np.nonzero(changed[1])
    assert len(rows) > 5
    assert (np.abs(rows - 5) <= 2).all()
    assert (np.abs(columns - 5) <= 2).all()
    everywhere = [deep_dream(rises, images, key=KEY, octaves=1, steps=3, jitter=jitter) for jitter in (0, 9)]
    np.testing.assert_allclose(*everywhere, atol=1e-6)


@pytest.mark.slow
def test_without_gradient_a_photograph_stays():
    dreams = deep_dream(small_net, IMAGES, "none", key=KEY, octaves=3, steps=2)
    np.testing.assert_allclose(dreams, IMAGES, atol=1e-6)
    noise = dream_from_noise(small_net, "none", key=KEY, shape=(9, 8, 3), octaves=1, steps=1)
    assert np.isfinite(noise).all()


@pytest.mark.slow
def test_images_are_dreamt_one_by_one():
    options = {"key": KEY, "octaves": 1, "steps": 3}
    together = deep_dream(small_net, IMAGES, [0, 3, 2], **options)
    for chunk in (1, 2):
        np.testing.assert_allclose(
            deep_dream(small_net, IMAGES, [0, 3, 2], chunk=chunk, **options), together, atol=1e-5
        )


def test_octaves_grow_by_their_scale_to_the_images_size():
    sizes = _octaves(small_net, jnp.zeros((1, 213, 320, 3)), 4, 1.4)
    assert sizes == [(78, 117), (109, 164), (153, 229), (213, 320)]


def test_a_net_that_does_not_take_the_small_octaves_is_told():
    def dense(images):
        return {"logits": images.reshape(len(images), -1) @ jnp.ones((21 * 17 * 3, 2))}

    with pytest.raises(ConfigError, match="no images of 11×9, the smallest of 3 octaves"):
        deep_dream(dense, IMAGES, 1, key=KEY, octaves=3)
    assert deep_dream(dense, IMAGES, 1, key=KEY, octaves=1, steps=1).shape == IMAGES.shape
    with pytest.raises(ConfigError, match="did you mean 'maps'"):
        deep_dream(small_net, IMAGES, "map", key=KEY)


def test_a_laplacian_pyramid_is_put_together_again():
    shape = (21, 2, 3)
    image = jax.random.uniform(KEY, shape)
    split = jax.jit(split_bands, static_argnums=1)
    bands = split(image, 3)
    assert len(bands) == 4
    np.testing.assert_allclose(jax.jit(merge_bands)(bands), image, atol=1e-6)
    flat = split(jnp.full(shape, 0.7), 3)
    np.testing.assert_allclose(flat[0], 0.7, rtol=1e-5)
    assert max(float(jnp.abs(band).max()) for band in flat[1:]) < 1e-6  # what does not change has no details


@pytest.mark.slow
def test_weak_bands_become_stronger():
    rows = jnp.arange(64.0)
    slow, fast = jnp.sin(2 * jnp.pi * rows / 32), jnp.sin(2 * jnp.pi * rows / 2.5)
    mixed = jnp.broadcast_to((slow + 0.01 * fast)[:, None, None], (64, 64, 1))
    normalize = jax.jit(normalize_bands)
    power = lambda x: np.abs(np.fft.rfft(x[:, 0, 0]))[[2, 26]]  # noqa: E731
    before, after = power(mixed), power(normalize(mixed))
    assert after[1] / after[0] > 5 * before[1] / before[0]
    np.testing.assert_allclose(normalize(100 * mixed), normalize(mixed), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_dream_from_noise():
    target = targets.channel("maps", 1)
    dream = dream_from_noise(small_net, target, key=KEY, shape=(33, 28, 3), octaves=2, steps=5)
    assert dream.shape == (1, 33, 28, 3)
    assert float(dream.mean()) == pytest.approx(0.5, abs=0.02)
    noise = dream_from_noise(small_net, target, key=KEY, shape=(33, 28, 3), octaves=2, steps=0)
    assert target(small_net(dream)) > 1.5 * target(small_net(noise))
