from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from capsnet_jax.config import ConfigError
from capsnet_jax.interpret import activations, capsule_activity, channel_activity, filters, strongest_channel
from capsnet_jax.models.forward import Forward
from capsnet_jax.ops.conv import conv2d
from capsnet_jax.ops.squash import squash

IMAGES = np.random.default_rng(0).random((13, 9, 7, 1)).astype(np.float32)
WEIGHTS = jax.random.normal(jax.random.key(0), (3, 3, 1, 5))
PLANTED = WEIGHTS.at[..., 1].set(0).at[..., 3].set(0).at[1, 1, 0, 3].set(1)
NEAR = np.sort(IMAGES[:, 1:-1, 1:-1].ravel())[
    -1
]  # only the greatest pixel of all is above it, when a little is taken off
BIAS = jnp.array([0.0, -1, 0, 1e-4 - NEAR, 0])


def net(images):
    before = conv2d(images, PLANTED) + BIAS[None, None, None]
    capsules = squash(before.reshape(len(images), -1, 5))
    return {"before": before, "after": jax.nn.relu(before), "capsules3": capsules, "scores": before.mean((1, 2))}


@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_activations_are_the_nets_own(chunk):
    after = activations(net, IMAGES, "after", chunk=chunk)
    np.testing.assert_allclose(after, net(jnp.asarray(IMAGES))["after"], rtol=1e-6, atol=1e-6)
    expected = [image.max(axis=(0, 1)).argmax() for image in np.asarray(after)]
    np.testing.assert_array_equal(strongest_channel(after), expected)


def test_bytes_are_pixels():
    as_bytes = np.round(255 * IMAGES[:2]).astype(np.uint8)
    np.testing.assert_allclose(
        activations(net, as_bytes, "after"), activations(net, as_bytes / np.float32(255), "after"), atol=1e-6
    )


@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_what_was_planted_is_dead(chunk):
    after = np.asarray(net(jnp.asarray(IMAGES))["after"])
    found = channel_activity(net, IMAGES, "after", chunk=chunk)
    np.testing.assert_allclose(found.least, after.min(axis=(0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(found.greatest, after.max(axis=(0, 1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.active, (after > 0).mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_array_equal(found.dead, [False, True, False, False, False])
    assert found.active[3] == pytest.approx(1 / (13 * 7 * 5))  # 0.2 %: not near dead
    np.testing.assert_array_equal(found.near_dead, [False] * 5)
    more = channel_activity(net, np.concatenate([IMAGES, *[0 * IMAGES] * 2]), "after", chunk=chunk)
    np.testing.assert_array_equal(more.near_dead, [False, False, False, True, False])  # 0.07 %


def test_before_a_relu_what_is_constant_is_dead():
    found = channel_activity(net, IMAGES, "before")
    np.testing.assert_array_equal(found.dead, [False, True, False, False, False])
    assert not found.near_dead.any()
    units = channel_activity(net, IMAGES, "capsules3")
    assert units.dead.shape == (7 * 5 * 5,)
    np.testing.assert_array_equal(channel_activity(net, IMAGES, "scores").dead, found.dead)


@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_capsules_that_starve(chunk):
    generator = np.random.default_rng(1)
    primary = generator.uniform(0.3, 0.6, (13, 6, 4)).astype(np.float32)
    primary[:, 1] *= 1e-3  # dead and starved
    primary[:, 2] = 0.04  # dead, and sends some
    couplings = generator.uniform(0.1, 1, (13, 6, 3)).astype(np.float32)
    couplings[..., 2] *= 1e-3
    couplings /= couplings.sum(axis=-1, keepdims=True)
    classes = generator.uniform(0.1, 0.5, (13, 3, 2)).astype(np.float32)
    classes[:, 1] = 0.05
    sizes = partial(np.linalg.norm, axis=-1)

    def routes(images):
        index = jnp.round(images[:, 0, 0, 0]).astype(int)
        outputs = {"primary": primary, "couplings": couplings}
        outputs |= {"primary_activations": sizes(primary), "lengths": sizes(classes)}
        return {name: jnp.asarray(array)[index] for name, array in outputs.items()}

    images = np.broadcast_to(np.arange(13, dtype=np.float32)[:, None, None, None], (13, 2, 2, 1))
    found = capsule_activity(routes, images, chunk=chunk)
    sent = couplings * sizes(primary)[..., None]
    shares = sent / sent.sum(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(found["primary"].share, 6 * shares.sum(axis=2).mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(found["capsules"].share, 3 * shares.sum(axis=1).mean(axis=0), rtol=1e-4)
    np.testing.assert_array_equal(found["primary"].dead, [False, True, True, False, False, False])
    np.testing.assert_array_equal(found["primary"].starved, [False, True, False, False, False, False])
    np.testing.assert_array_equal(found["capsules"].dead, [False, True, False])
    np.testing.assert_array_equal(found["capsules"].starved, [False, False, True])
    with pytest.raises(ConfigError, match="no primary"):
        capsule_activity(net, IMAGES)


def test_filters_are_images():
    params = {"fire": {"squeeze": {"kernel": jnp.arange(54.0).reshape(3, 3, 2, 3), "bias": jnp.zeros(3)}}}
    forward = Forward(nn.Dense(1), {"params": params | {"classes": {"kernel": jnp.zeros((3, 4))}}})
    np.testing.assert_array_equal(filters(forward, "fire.squeeze")[2, 1, 0], [20, 23])
    with pytest.raises(ConfigError, match=r"did you mean 'fire\.squeeze'"):
        filters(forward, "fire.sqeeze")
    with pytest.raises(ConfigError, match="no convolution"):
        filters(Forward(nn.Dense(1), {"params": {}}), "conv1")


def test_a_net_of_this_projects_own(net):
    images = net.data.test.images[:7]
    found = capsule_activity(net.forward, images, chunk=3)
    assert found["primary"].share.mean() == pytest.approx(1, rel=1e-4)
    assert len(found["capsules"].greatest) == net.data.classes
    assert filters(net, "primary").shape[1:3] == (net.model.kernel, net.model.kernel)


def test_no_images_are_told():
    with pytest.raises(ConfigError, match="give at least one"):
        channel_activity(net, IMAGES[:0], "after")


def test_a_layer_that_is_not_there_is_told():
    with pytest.raises(ConfigError, match="did you mean 'after'"):
        activations(net, IMAGES, "afte")
