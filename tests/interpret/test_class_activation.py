import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from capsnet_jax import models, overrides
from capsnet_jax.config import ConfigError
from capsnet_jax.data import Description
from capsnet_jax.interpret import grad_cam, grad_cam_plus_plus, layer_cam, targets
from capsnet_jax.interpret.network import LazyDataset, Network
from capsnet_jax.models.forward import from_flax

RNG = np.random.default_rng(0)
IMAGES = RNG.random((3, 13, 11, 3), np.float32)
CLASSES = np.array([4, 0, 2])
KERNEL = RNG.normal(size=(3, 3, 3, 6)).astype(np.float32)
POOLED = RNG.normal(size=(6, 5)).astype(np.float32)
PLACED = RNG.normal(size=(6, 5, 6, 5)).astype(np.float32)
METHODS = [grad_cam, grad_cam_plus_plus, layer_cam]
NHWC = ("NHWC", "HWIO", "NHWC")


def net(images):
    """A convolution; average pooling and classes, and others by what is where."""
    before = jax.lax.conv_general_dilated(
        images, KERNEL[:, :, : images.shape[-1]], (2, 2), "VALID", dimension_numbers=NHWC
    )
    relu = nn.relu(before)
    placed = jnp.einsum("bhwc,hwck->bk", jnp.tanh(relu), PLACED)
    return {"before": before, "relu": relu, "logits": relu.mean(axis=(1, 2)) @ POOLED, "placed": placed}


def enlarged(maps, shape=(13, 11), placed=False):
    """Bilinear between the centres of pixels, constant outside of them; by NumPy, one axis after the other."""
    for axis, size in zip((1, 2), shape, strict=True):
        numbers = np.arange(maps.shape[axis])
        # Placed: 3 × 3 without padding, every second position.
        centres = 2 * numbers + 1 if placed else (numbers + 0.5) * size / maps.shape[axis] - 0.5
        maps = np.apply_along_axis(lambda line, c=centres, n=size: np.interp(np.arange(n), c, line), axis, maps)
    return maps[..., None]


def test_with_average_pooling_and_a_linear_layer_it_is_the_class_activation_map():
    cam = np.einsum("bhwc,cb->bhw", net(IMAGES)["relu"], POOLED[:, CLASSES]) / 30  # positions: 6 × 5
    assert cam.max() > 0 > cam.min()
    np.testing.assert_allclose(
        grad_cam(net, IMAGES, "relu", CLASSES), enlarged(np.maximum(cam, 0)), atol=1e-5 * cam.max()
    )


@pytest.mark.parametrize("method", METHODS)
def test_formulas(method):
    a = np.asarray(net(IMAGES)["relu"], np.float64)
    g = (1 - np.tanh(a) ** 2) * np.moveaxis(PLACED[..., CLASSES], -1, 0)
    positive = np.maximum(g, 0)
    alpha = g**2 / (2 * g**2 + a.sum(axis=(1, 2), keepdims=True) * g**3)
    heat = {
        grad_cam: (g.mean(axis=(1, 2), keepdims=True) * a).sum(axis=-1),
        grad_cam_plus_plus: ((alpha * positive).sum(axis=(1, 2), keepdims=True) * a).sum(axis=-1),
        layer_cam: (positive * a).sum(axis=-1),
    }[method]
    expected = enlarged(np.maximum(heat, 0))
    assert expected.max() > 0
    maps = method(net, IMAGES, "relu", targets.unit("placed", CLASSES))
    np.testing.assert_allclose(maps, expected, atol=1e-4 * expected.max())


@pytest.mark.parametrize("method", METHODS)
def test_placed_maps_stand_where_the_receptive_fields_do(method):
    stretched, placed = (method(net, IMAGES, "relu", CLASSES, placed=p) for p in (False, True))
    at_centres = np.asarray(placed)[:, 1:12:2, 1:10:2, 0]
    assert at_centres.max() > 0
    np.testing.assert_allclose(placed, enlarged(at_centres, placed=True), atol=1e-6 * at_centres.max())
    np.testing.assert_allclose(stretched, enlarged(at_centres), rtol=1e-4, atol=1e-6 * at_centres.max())


def test_a_layer_that_sees_everything_is_stretched():
    def mixed(images):
        out = net(images)
        everywhere = jnp.einsum("bhwc,hwck->bk", out["relu"], PLACED)[:, None, None] * jnp.ones((1, 3, 4, 1))
        return {"mixed": everywhere, "logits": out["logits"] + everywhere.sum((1, 2))}

    for_class = [grad_cam(mixed, IMAGES, "mixed", CLASSES, placed=p) for p in (False, True)]
    np.testing.assert_array_equal(*for_class)


def test_chunks_bytes_and_one_channel_make_no_difference():
    pixels = np.round(255 * IMAGES[..., :1]).astype(np.uint8)
    whole = grad_cam(net, pixels.astype(np.float32) / 255, "relu", 3)
    assert whole.shape == (3, 13, 11, 1)
    assert whole.max() > 0
    np.testing.assert_allclose(grad_cam(net, pixels, "relu", 3, chunk=2), whole, atol=1e-5 * whole.max())


def test_layers_of_any_flax_module_are_found():
    class Module(nn.Module):
        @nn.compact
        def __call__(self, images):
            x = nn.relu(nn.Conv(6, (3, 3), (2, 2), "VALID", use_bias=False, name="conv")(images))
            return nn.Dense(5, use_bias=False, name="classes")(x.mean(axis=(1, 2)))

    module = from_flax(Module(), {"params": {"conv": {"kernel": KERNEL}, "classes": {"kernel": POOLED}}})
    expected = layer_cam(net, IMAGES, "before", CLASSES)
    np.testing.assert_allclose(layer_cam(module, IMAGES, "conv", CLASSES), expected, atol=1e-5 * expected.max())


@pytest.mark.parametrize(("method", "layer"), [*((m, "live") for m in METHODS), (grad_cam_plus_plus, "off")])
def test_maps_of_zeros_stay_zeros(method, layer):
    def silent(images):
        off = nn.relu(-1 - images)  # whatever the image
        live = images - 0.5
        return {"off": off, "live": live, "output": (off + 0 * live).sum(axis=(1, 2))}

    np.testing.assert_array_equal(method(silent, IMAGES, layer, 1), 0)


def test_capsules_are_placed_on_their_grid():
    """As primary capsules are: the same numbers, as rows × columns × types of capsules."""
    weights = RNG.normal(size=(1, 24, 4)).astype(np.float32)

    def placed(images):
        maps = images[:, 1:13, 1:10].reshape(-1, 4, 3, 27)[..., :8]
        primary = maps.reshape(-1, 4 * 3 * 2, 4)
        return {"maps": maps, "primary": primary, "score": (jnp.tanh(primary) * weights).sum((1, 2))}

    target = lambda outputs: outputs["score"]  # noqa: E731
    expected = layer_cam(placed, IMAGES, "maps", target)
    assert expected.max() > 0
    np.testing.assert_allclose(
        layer_cam(placed, IMAGES, "primary", target, grid=(4, 3)), expected, rtol=1e-5, atol=1e-7
    )


def capsnet():
    settings = {"model.name": "capsnet_small", "model.channels": 4, "model.capsule_types": 2, "model.primary_dim": 4}
    settings |= {"model.kernel": 3, "model.class_dim": 3, "model.decoder": (8,), "model.weight_scale": 5.0}
    config = overrides.build(settings)
    model = models.build(config, 10)
    dataset = LazyDataset("mnist", Description((13, 11, 1), tuple("0123456789")), lambda: None)
    return Network(config, model, *models.init(model, jax.random.key(1), (13, 11, 1)), dataset, None)


@pytest.mark.slow
def test_a_capsnets_grid_is_known():
    net, images = capsnet(), IMAGES[..., :1]
    maps = grad_cam(net, images, "primary", 7)
    assert maps.max() > 0
    np.testing.assert_array_equal(maps, grad_cam(net, images, "primary", 7, grid=(5, 4)))
    # Positions of 5 pixels, two apart: placed, the first and the last stand at 2 and at 10, or 8.
    placed = np.asarray(grad_cam(net, images, "primary", 7, placed=True))
    np.testing.assert_array_equal(placed[:, :2], np.repeat(placed[:, 2:3], 2, axis=1))
    np.testing.assert_array_equal(placed[:, :, 9:], np.repeat(placed[:, :, 8:9], 2, axis=2))
    assert (placed[:, 2] != placed[:, 3]).any()
    with pytest.raises(ConfigError, match=r"primary has no positions.*40×4; give a grid that divides its 40 inputs"):
        grad_cam(net.forward, images, "primary", 7)  # which is any function


@pytest.mark.parametrize(
    ("layer", "grid", "message"),
    [
        ("rely", None, "did you mean 'relu'"),
        ("logits", None, "logits has no positions for a heat map: each image's is 5; name another"),
        ("capsules", (4, 3), "each image's is 30×6; give a grid that divides its 30 inputs"),
    ],
)
def test_a_layer_without_positions_is_told(layer, grid, message):
    given = lambda images: (out := net(images)) | {"capsules": out["relu"].reshape(-1, 30, 6)}  # noqa: E731
    with pytest.raises(ConfigError, match=message):
        grad_cam(given, IMAGES, layer, 0, grid=grid)
