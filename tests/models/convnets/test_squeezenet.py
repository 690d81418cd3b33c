from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from matplotlib.cbook import get_sample_data
from PIL import Image
from safetensors.numpy import load_file

from capsnet_jax import models
from capsnet_jax.data.picture import read
from capsnet_jax.models import pretrained
from capsnet_jax.models.convnets.squeezenet import FIRES, Fire, SqueezeNet
from tests.models.random_params import random_params

# Checked when the released weights were converted from their authors' format: whole pictures, resized bilinearly.
CHECKED = {
    "grace_hopper.jpg": {"bow tie": 0.648, "suit": 0.273, "Windsor tie": 0.034, "military uniform": 0.031},
    "china.jpg": {"bell cote": 0.353, "stupa": 0.312, "dome": 0.084},
    "flower.jpg": {"coral fungus": 0.515},
}


def outputs(*image_shape, **form):
    """Shapes of parameters and outputs at 1000 classes."""
    model = SqueezeNet(**form)
    params = jax.eval_shape(lambda: models.init(model, jax.random.key(0), image_shape))[0]
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return params, jax.eval_shape(lambda p, x: models.apply(model, p, {}, x), params, images)


def test_the_releases_layers():
    """Channels and sides by hand from its table; a last window of a pooling is kept that is only partly inside."""
    params, out = outputs(227, 227, 3)
    assert {name: models.count_parameters(part) for name, part in params.items()} == {
        "conv1": 64 * (3 * 3 * 3 + 1),
        "fire2": 16 * (64 + 1) + 64 * (16 + 1) + 64 * (9 * 16 + 1),
        "fire3": 16 * (128 + 1) + 64 * (16 + 1) + 64 * (9 * 16 + 1),
        "fire4": 32 * (128 + 1) + 128 * (32 + 1) + 128 * (9 * 32 + 1),
        "fire5": 32 * (256 + 1) + 128 * (32 + 1) + 128 * (9 * 32 + 1),
        "fire6": 48 * (256 + 1) + 192 * (48 + 1) + 192 * (9 * 48 + 1),
        "fire7": 48 * (384 + 1) + 192 * (48 + 1) + 192 * (9 * 48 + 1),
        "fire8": 64 * (384 + 1) + 256 * (64 + 1) + 256 * (9 * 64 + 1),
        "fire9": 64 * (512 + 1) + 256 * (64 + 1) + 256 * (9 * 64 + 1),
        "conv10": 1000 * (512 + 1),
    }
    sides = {"conv1": 113, "pool1": 56, "fire3": 56, "pool3": 28, "fire5": 28, "pool5": 14, "fire9": 14, "conv10": 14}
    assert {name: out[name].shape[1:3] for name in sides} == {name: (side, side) for name, side in sides.items()}
    assert [out[name].shape[-1] for name in FIRES] == [128, 128, 256, 256, 384, 384, 512, 512]
    assert [out[f"{name}.squeeze"].shape[-1] for name in FIRES] == [16, 16, 32, 32, 48, 48, 64, 64]


def test_the_small_form():
    params, out = outputs(28, 28, 1)
    sides = {"conv1": 28, "pool1": 14, "pool3": 7, "pool5": 3, "conv10": 3}
    assert {name: out[name].shape[1] for name in sides} == sides
    assert params["conv1"]["kernel"].shape == (3, 3, 1, 64)
    assert outputs(64, 80, 3, fires=("fire2",))[1]["conv1"].shape[1:3] == (31, 39)


def test_a_fire_module_is_its_loops():
    module = Fire(2, 3)
    images = np.random.default_rng(0).standard_normal((2, 4, 5, 6)).astype(np.float32)
    params = {
        name: {
            "kernel": np.random.default_rng(seed).standard_normal(shape).astype(np.float32),
            "bias": np.random.default_rng(seed + 9).standard_normal(shape[-1]).astype(np.float32),
        }
        for seed, (name, shape) in enumerate(
            {"squeeze": (1, 1, 6, 2), "expand1x1": (1, 1, 2, 3), "expand3x3": (3, 3, 2, 3)}.items()
        )
    }
    fire, squeeze = jax.jit(module.apply)({"params": params}, images)

    def convolve(x, name):
        kernel, bias = params[name]["kernel"], params[name]["bias"]
        reach = kernel.shape[0] // 2
        out = np.zeros((*x.shape[:3], kernel.shape[-1])) + bias
        for row, column, i, j in np.ndindex(*x.shape[1:3], *kernel.shape[:2]):
            at = row + i - reach, column + j - reach
            if 0 <= at[0] < x.shape[1] and 0 <= at[1] < x.shape[2]:
                out[:, row, column] += x[:, *at] @ np.float64(kernel[i, j])
        return np.maximum(out, 0)

    expected = convolve(np.float64(images), "squeeze")
    np.testing.assert_allclose(squeeze, expected, atol=1e-5)
    sides = [convolve(expected, f"expand{size}") for size in ("1x1", "3x3")]
    np.testing.assert_allclose(fire, np.concatenate(sides, axis=-1), atol=1e-5)
    assert 0.2 < np.mean(np.asarray(fire) > 0) < 0.8


def test_units_are_dropped_before_the_classes_alone_and_no_logit_is_negative():
    model = SqueezeNet(5, fires=("fire2", "fire3"))
    images = jax.random.uniform(jax.random.key(0), (2, 12, 14, 1))
    params = random_params(model, images.shape[1:])
    out = jax.jit(lambda: models.apply(model, params, {}, images))()
    train, _ = jax.jit(
        lambda: models.apply_in_training(model, params, {}, images, jnp.eye(5)[:2], dropout=jax.random.key(1))
    )()
    np.testing.assert_allclose(train["pool3"], out["pool3"], atol=1e-6)
    kernel, bias = params["conv10"]["kernel"][0, 0], params["conv10"]["bias"]
    maps = np.maximum(0, np.asarray(out["pool3"]) @ np.asarray(kernel) + np.asarray(bias))
    np.testing.assert_allclose(out["conv10"], maps, atol=1e-5)
    np.testing.assert_allclose(out["logits"], maps.mean(axis=(1, 2)), atol=1e-5)
    assert float(jnp.abs(train["logits"] - out["logits"]).max()) > 1e-3


def test_what_is_returned_is_what_goes_on():
    """A tap in an activation's place changes what comes after it: the program's later steps read that very array."""
    model = SqueezeNet(5)
    params = jax.eval_shape(lambda: models.init(model, jax.random.key(0), (28, 28, 1)))[0]
    program, shape = jax.make_jaxpr(lambda p, x: models.apply(model, p, {}, x), return_shape=True)(
        params, jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
    )
    read_later = {id(variable) for equation in program.jaxpr.eqns for variable in equation.invars}
    unread = [name for name, out in zip(sorted(shape), program.jaxpr.outvars, strict=True) if id(out) not in read_later]
    assert unread == ["logits"]


@pytest.fixture(scope="module")
def photographs() -> dict[str, Path]:
    """By their names."""
    of_sklearn = Path(find_spec("sklearn").origin).parent / "datasets" / "images"
    folders = dict.fromkeys(("china.jpg", "flower.jpg"), of_sklearn)
    return {"grace_hopper.jpg": Path(get_sample_data("grace_hopper.jpg", asfileobj=False))} | {
        name: folder / name for name, folder in folders.items()
    }


@pytest.fixture(scope="module")
def weights() -> pretrained.Weights:
    return pretrained.load("squeezenet")


@pytest.fixture(scope="module")
def run():
    model = models.MODELS["squeezenet"]()
    return jax.jit(lambda params, images: models.apply(model, params, {}, images))


@pytest.mark.slow
def test_it_names_what_photographs_show(photographs, weights, run):
    """As checked, read as a user's picture is."""
    assert set(photographs) == set(CHECKED)
    pixels = [read(path, (227, 227, 3), as_is=True).pixels for path in photographs.values()]
    for path, image in zip(photographs.values(), pixels, strict=True):
        whole = Image.open(path).convert("RGB").resize((227, 227), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(image, np.asarray(whole))
    found = jax.nn.softmax(run(weights.params, jnp.asarray(np.stack(pixels), jnp.float32) / 255)["logits"])
    for name, scores in zip(photographs, np.asarray(found), strict=True):
        order = np.argsort(-scores)
        assert [weights.label_names[k] for k in order[: len(CHECKED[name])]] == list(CHECKED[name])
        np.testing.assert_allclose(scores[order[: len(CHECKED[name])]], list(CHECKED[name].values()), atol=2e-3)


def test_colours_are_folded_into_the_first_convolution(photographs, weights, run):
    """The net as released sees blue, green and red from 0 to 255 less their means."""
    released = {
        name: np.float32(leaf) for name, leaf in load_file(pretrained.SHIPPED / "squeezenet.safetensors").items()
    }
    image = np.asarray(Image.open(photographs["flower.jpg"]).resize((227, 227)), np.float32)[None]
    mean = np.float32([103.939, 116.779, 123.68])
    there = run(unflatten_dict(released, sep="."), image[..., ::-1] - mean)
    here = run(weights.params, image / 255)
    assert np.abs(there["conv1"]).max() > 100
    np.testing.assert_allclose(here["conv1"], there["conv1"], atol=1e-4 * float(there["conv1"].max()))
    np.testing.assert_allclose(here["logits"], there["logits"], atol=1e-4 * float(there["logits"].max()))
    np.testing.assert_allclose(*(jax.nn.softmax(out["logits"]) for out in (here, there)), atol=1e-4)
