"""One suite for every model of the registry; what is particular to one is in the file of its name."""

import dataclasses
from functools import cache, partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import config, models, overrides
from capsnet_jax.config import ConfigError
from capsnet_jax.losses import total_loss
from capsnet_jax.models import MODELS
from tests.models.random_params import random_variables

COUNTS = {
    "capsnet": 6_804_224 + 1_411_344,
    "efficient_capsnet": 161_824 + 1_411_344,
    # By hand: 4 tables of 36 words and 4 of 50 ages, of 20 numbers each.
    "memory_network": 4 * 36 * 20 + 4 * 50 * 20,
    "sabour_cnn": 35_445_522,
    # By hand: 9·32+32, 9·32·64+64, 9·64·128+128, 6,272·128+128, 128·10+10.
    "cnn_small": 320 + 18_496 + 73_856 + 802_944 + 1_290,
    "cnn_small_strided": 320 + 18_496 + 73_856 + 802_944 + 1_290,
    # With 1000 classes and 224×224 images (the papers, and torchvision's documentation).
    "alexnet": 60_965_224,
    "alexnet_single": 61_100_840,
    "vgg_a": 132_863_336,
    "vgg_a_lrn": 132_863_336,
    "vgg_b": 133_047_848,
    "vgg_c": 133_638_952,
    "vgg_d": 138_357_544,
    "vgg_e": 143_667_240,
    "vgg_a_bn": 132_868_840,
    "vgg_b_bn": 133_053_736,
    "vgg_d_bn": 138_365_992,
    "vgg_e_bn": 143_678_248,
    "googlenet": 6_998_552 + 3_188_840 + 3_190_888,
    "googlenet_bn": 13_004_888,
    "squeezenet": 1_235_496,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "densenet121": 7_978_856,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "densenet264": 33_337_704,
}

# Sizes at which the arithmetic of a large model is still tested in a second.
REDUCED = {
    "capsnet": {"model.channels": 8, "model.capsule_types": 2, "model.kernel": 3, "model.decoder": (16,)},
    "capsnet_small": {"model.channels": 8, "model.kernel": 5, "model.decoder": (16,)},
    "efficient_capsnet": {"model.capsule_types": 2, "model.primary_dim": 4, "model.decoder": (16,)},
    "matrix_capsnet": {"model.channels": 8, "model.kernel": 3, "model.capsule_types": (2, 3, 3)},
}

# The same of nets that have no settings for it, as attributes; they stand for the others of their files.
CUT = {
    "alexnet": {"channels": (8, 12, 8, 8, 8), "hidden": 16},
    "vgg_c_bn": {"depths": (1, 3), "widths": (8, 8), "hidden": 16},
    "googlenet_bn": {"modules": ("3a", "4a")},
    "squeezenet": {"fires": ("fire2", "fire3")},
    "resnet50": {"depths": (1, 1)},
    "densenet121": {"depths": (2, 2), "growth": 8},
}
CONV_NETS = [name for name, entry in MODELS.items() if hasattr(entry.settings, "stem")]
LARGER = ("matrix_capsnet_full",)  # the same as another entry, of other sizes
TESTED = [name for name in MODELS if name not in (*CONV_NETS, *LARGER) or name in CUT]

IMAGE = (18, 21, 3)
CLASSES = 7
TARGETS = jnp.eye(CLASSES)[jnp.array([0, CLASSES - 1])]


def settings(name: str, **changes) -> config.Config:
    return overrides.build({"model.name": name, **changes})


def shapes(name: str, image_shape, classes: int):
    """Shapes of a model's parameters and of its outputs for two images; nothing is computed."""
    model = models.build(settings(name), classes).clone(**CUT.get(name, {}))
    params, stats = jax.eval_shape(lambda: models.init(model, jax.random.key(0), image_shape))
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    return params, jax.eval_shape(partial(models.apply, model), params, stats, images)


@cache
def small(name: str) -> SimpleNamespace:
    """A model at a reduced size: (params, images, targets) → outputs, and the loss's gradient."""
    chosen = settings(name, **REDUCED.get(name, {}))
    model = models.build(chosen, CLASSES).clone(**CUT.get(name, {}))
    params, stats = random_variables(model, IMAGE)

    def loss(params, images, targets):
        out, _ = models.apply_in_training(model, params, stats, images, targets, dropout=jax.random.key(1))
        return total_loss(out, images, targets, chosen)[0]

    return SimpleNamespace(
        model=model,
        params=params,
        apply=jax.jit(lambda params, images: models.apply(model, params, stats, images)),
        gradient=jax.jit(jax.value_and_grad(loss, (0, 1))),
    )


def scores(out):
    return out["lengths"] if "lengths" in out else out["logits"]


@pytest.fixture(scope="module")
def images() -> jax.Array:
    return jax.random.uniform(jax.random.key(2), (5, *IMAGE))


# Tests of these take seconds each.
DEAR = ("efficient_capsnet", "matrix_capsnet", "sabour_cnn", "vgg_c_bn", "googlenet_bn", "squeezenet", "resnet50")
DEAR += ("densenet121", "alexnet")
EACH = [pytest.param(name, marks=pytest.mark.slow) if name in DEAR else name for name in TESTED]
LARGEST = ("resnet101", "resnet152", "densenet169", "densenet201", "densenet264")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LARGEST else name for name in COUNTS]
)
def test_parameters_are_counted_as_published(name):
    model = models.build(settings(name), MODELS[name].classes)
    params = jax.eval_shape(lambda: models.init(model, jax.random.key(0), MODELS[name].image_shape))[0]
    assert models.count_parameters(params) == COUNTS[name]


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize(("image", "classes"), [((28, 28, 1), 10), ((32, 32, 3), 100), ((28, 40, 2), 3)])
def test_shapes_follow_images_and_classes(name, image, classes):
    params, out = shapes(name, image, classes)
    assert scores(out).shape == (2, classes)
    if "reconstruction" in out:
        assert out["reconstruction"].shape == (2, *image)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((params, out)))


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_an_images_scores_do_not_depend_on_its_batch(name, images):
    net = small(name)
    together = scores(net.apply(net.params, images))
    alone = jnp.concatenate([scores(net.apply(net.params, image[None])) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-5, rtol=1e-5)
    assert float(jnp.ptp(together, axis=0).max()) > 1e-4  # and they do depend on the image


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_black_images_have_finite_outputs_and_gradients(name):
    net = small(name)
    black = jnp.zeros((2, *IMAGE))
    for leaf in jax.tree.leaves(net.apply(net.params, black)):
        assert jnp.isfinite(leaf).all()
    loss, gradients = net.gradient(net.params, black, TARGETS)
    for leaf in jax.tree.leaves((loss, gradients)):
        assert jnp.isfinite(leaf).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_the_loss_reaches_every_parameter(name, images):
    net = small(name)
    _, (gradients, _) = net.gradient(net.params, images[:2], TARGETS)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert jnp.abs(leaf).max() > 0, jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("capsnet")])
@pytest.mark.parametrize("image", [(8, 28, 1), (28, 16, 1)])
def test_too_small_an_image_is_an_error_that_names_the_sizes(name, image):
    model = models.build(settings(name), 10)
    # The first kernel is 9×9; the second sees 8 pixels fewer.
    sizes = "8.28" if image[0] == 8 else "20.8"
    with pytest.raises(ValueError, match=rf"images of {sizes} are too small for a 9.9 kernel"):
        jax.eval_shape(lambda: models.init(model, jax.random.key(0), image))


def test_the_smallest_image():
    model = models.build(settings("capsnet"), 10)
    params = jax.eval_shape(lambda: models.init(model, jax.random.key(0), (17, 17, 1)))[0]
    assert params["class_capsules"]["W"].shape == (32, 10, 8, 16)  # one position
    with pytest.raises(ValueError, match="too small"):
        jax.eval_shape(lambda: models.init(model, jax.random.key(0), (16, 17, 1)))


def test_build_passes_every_setting_on():
    sizes = {"channels": 4, "kernel": 3, "capsule_types": 2, "primary_dim": 5, "class_dim": 6, "decoder": (7, 8)}
    changes = {f"model.{name}": value for name, value in sizes.items()}
    chosen = settings("capsnet", **changes, **{"loss.reconstruction": False, "routing.name": "random"})
    model = models.build(chosen, 3)
    assert {name: getattr(model, name) for name in sizes} == sizes
    assert (model.classes, model.reconstruction, model.routing) == (3, False, chosen.routing)


@pytest.mark.parametrize("name", MODELS)
def test_every_entry_is_built_with_its_own_settings(name):
    entry = MODELS[name]
    model = models.build(settings(name), 3)
    assert model.classes == 3
    assert {key: getattr(model, key) for key in vars(entry.settings)} == vars(entry.settings)
    if "precision" in vars(entry.settings):
        coarse = models.build(settings(name, **{"model.precision": "bfloat16"}), 3)
        assert coarse == model.clone(precision="bfloat16")
    assert entry(classes=3) == model
    capsules = "capsnet" in name
    assert (entry.routes, entry.decodes) == (capsules, capsules and "matrix" not in name)


@pytest.mark.parametrize("name", EACH)
def test_an_entry_names_the_layers_that_know_how_many_classes_there_are(name):
    few, many = (shapes(name, (32, 32, 3), classes)[0] for classes in (3, 5))
    models.check_head(name, few)
    heads = {layer for layer in few if jax.tree.map(jnp.shape, few[layer]) != jax.tree.map(jnp.shape, many[layer])}
    assert heads - {"decoder"} == set(MODELS[name].head_layers) & set(few)  # a decoder sees every class's capsule


def test_every_conv_net_is_built_with_its_form():
    for name in CONV_NETS:
        model = models.build(settings(name, **{"model.stem": "small", "model.precision": "bfloat16"}), 3)
        assert (model.classes, model.stem, model.precision) == (3, "small", "bfloat16")


@pytest.mark.parametrize(("name", "path"), [("capsnet", "model.stem"), ("sabour_cnn", "model.kernel")])
def test_a_size_that_the_model_does_not_have(name, path):
    with pytest.raises(config.ConfigError, match=rf"^{name} has no {path}; it has model\.name, "):
        settings(name, **{path: 5})


def test_a_model_without_the_head_that_it_names_is_a_mistake(monkeypatch):
    monkeypatch.setitem(MODELS, "mine", dataclasses.replace(MODELS["cnn_small"], head_layers=("readout", "aux")))
    with pytest.raises(config.ConfigError) as error:
        models.check_head("mine", ["conv1", "classes"])
    assert str(error.value) == (
        "mine says that readout+aux tells the classes, but has no such layer;"
        " name its head_layers in MODELS from conv1, classes"
    )


@pytest.mark.parametrize(
    ("changes", "side", "remedy"),
    [
        (
            {},
            16,
            "images of 8×8 are too small for a 9×9 kernel with padding VALID, made from 16×16×1; set model.kernel=8",
        ),
        ({}, 8, "images of 8×8 are too small for a 9×9 kernel with padding VALID, made from 8×8×1; set model.kernel=4"),
        ({"model.name": "vgg_a", "model.stem": "imagenet"}, 31, "set model.stem=small"),
        ({"model.name": "cnn_small"}, 3, "take larger images, or a net for small ones, as model.name=resnet8"),
    ],
)
def test_images_too_small_name_the_setting_that_helps(changes, side, remedy):
    settings = overrides.build(changes)
    with pytest.raises(ConfigError) as raised:
        models.shapes(settings, (side, side, 1), 10, data="mine")
    assert str(raised.value).startswith(f"{settings.model.name} ")
    assert " on mine: images of " in str(raised.value)
    assert str(raised.value).endswith(remedy)
    if " set " in str(raised.value):
        path, value = remedy.rsplit(" ")[-1].split("=")
        models.shapes(overrides.build(changes | {path: value}), (side, side, 1), 10)
