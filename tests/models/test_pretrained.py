"""State dictionaries made of random numbers, name by name as torchvision has them."""

import argparse
import hashlib
import json
import re
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from capsnet_jax import models
from capsnet_jax.config import ConfigError
from capsnet_jax.models import pretrained, state_dict, torchvision_names
from capsnet_jax.models.convnets.googlenet import INCEPTIONS
from capsnet_jax.models.convnets.squeezenet import FIRES
from capsnet_jax.models.pretrained import PretrainedError, imagenet_normalized, load_torchvision

RNG = np.random.default_rng(0)


def array(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def norm(name, width):
    kinds = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{kind}": array(width) for kind in kinds} | {f"{name}.num_batches_tracked": np.array(7)}


def resnet18(classes=3):
    state = {"conv1.weight": array(64, 3, 7, 7), **norm("bn1", 64)}
    width = 64
    for layer, wide in enumerate((64, 128, 256, 512), 1):
        for block in (0, 1):
            at = f"layer{layer}.{block}"
            state |= {f"{at}.conv1.weight": array(wide, width, 3, 3), **norm(f"{at}.bn1", wide)}
            state |= {f"{at}.conv2.weight": array(wide, wide, 3, 3), **norm(f"{at}.bn2", wide)}
            if width != wide:
                state |= {f"{at}.downsample.0.weight": array(wide, width, 1, 1), **norm(f"{at}.downsample.1", wide)}
            width = wide
    return state | {"fc.weight": array(classes, 512), "fc.bias": array(classes)}


def googlenet(classes=3, heads=True):
    def unit(name, wide, width, size):
        return {f"{name}.conv.weight": array(wide, width, size, size), **norm(f"{name}.bn", wide)}

    state = unit("conv1", 64, 3, 7) | unit("conv2", 64, 64, 1) | unit("conv3", 192, 64, 3)
    width = 192
    for module, (one, reduce3, three, reduce5, five, pool) in INCEPTIONS.items():
        if heads and module in ("4b", "4e"):
            aux = "aux1" if module == "4b" else "aux2"
            state |= unit(f"{aux}.conv", 128, width, 1)
            state |= {f"{aux}.fc1.weight": array(1024, 2048), f"{aux}.fc1.bias": array(1024)}
            state |= {f"{aux}.fc2.weight": array(classes, 1024), f"{aux}.fc2.bias": array(classes)}
        at = f"inception{module}"
        state |= unit(f"{at}.branch1", one, width, 1)
        state |= unit(f"{at}.branch2.0", reduce3, width, 1) | unit(f"{at}.branch2.1", three, reduce3, 3)
        state |= unit(f"{at}.branch3.0", reduce5, width, 1) | unit(f"{at}.branch3.1", five, reduce5, 3)
        state |= unit(f"{at}.branch4.1", pool, width, 1)
        width = one + three + five + pool
    return state | {"fc.weight": array(classes, 1024), "fc.bias": array(classes)}


def squeezenet(classes=3):
    """By hand from torchvision's definition: poolings are 2, 5 and 8."""
    state = {"features.0.weight": array(64, 3, 3, 3), "features.0.bias": array(64)}
    width = 64
    for position, (few, many) in zip((3, 4, 6, 7, 9, 10, 11, 12), FIRES.values(), strict=True):
        at = f"features.{position}"
        for name, shape in {
            "squeeze": (few, width, 1, 1),
            "expand1x1": (many, few, 1, 1),
            "expand3x3": (many, few, 3, 3),
        }.items():
            state |= {f"{at}.{name}.weight": array(*shape), f"{at}.{name}.bias": array(shape[0])}
        width = 2 * many
    return state | {"classifier.1.weight": array(classes, 512, 1, 1), "classifier.1.bias": array(classes)}


@pytest.fixture(scope="module")
def residual(tmp_path_factory):
    state, path = resnet18(), tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(state, path)
    return state, path


def test_every_array_lands_where_it_belongs(residual):
    state, path = residual
    weights = load_torchvision(path)
    assert (weights.model, weights.classes) == ("resnet18", 3)
    kernel, theirs = weights.params["stage2"]["block1"]["conv1"]["kernel"], state["layer2.0.conv1.weight"]
    for o, i, row, column in [(0, 0, 0, 0), (5, 3, 0, 2), (127, 63, 2, 1), (70, 9, 1, 0)]:
        assert kernel[row, column, i, o] == theirs[o, i, row, column]
    shortcut = weights.params["stage3"]["block1"]["shortcut"]
    np.testing.assert_array_equal(shortcut["conv"]["kernel"][0, 0], state["layer3.0.downsample.0.weight"][:, :, 0, 0].T)
    np.testing.assert_array_equal(shortcut["norm"]["scale"], state["layer3.0.downsample.1.weight"])
    np.testing.assert_array_equal(weights.params["norm1"]["bias"], state["bn1.bias"])
    moments = weights.stats["stage4"]["block2"]["norm2"]
    np.testing.assert_array_equal(moments["mean"], state["layer4.1.bn2.running_mean"])
    np.testing.assert_array_equal(moments["var"], state["layer4.1.bn2.running_var"])
    assert weights.params["classes"]["kernel"][500, 2] == state["fc.weight"][2, 500]
    sums = sum(float(np.abs(leaf).sum(dtype=np.float64)) for leaf in jax.tree.leaves((weights.params, weights.stats)))
    wanted = sum(float(np.abs(leaf).sum(dtype=np.float64)) for key, leaf in state.items() if leaf.ndim)
    assert sums == pytest.approx(wanted, rel=1e-9)  # each once
    like = jax.eval_shape(partial(models.init, models.MODELS["resnet18"](classes=3), jax.random.key(0), (224, 224, 3)))
    assert jax.tree.structure(like) == jax.tree.structure((weights.params, weights.stats))


@pytest.mark.slow
@pytest.mark.parametrize("heads", [True, False])
def test_a_layer_that_flattens_sees_pixels_before_channels(heads, tmp_path):
    state, path = googlenet(heads=heads), tmp_path / "googlenet.safetensors"
    save_file(state, path)
    weights = load_torchvision(path)
    assert (weights.model, weights.normalize) == ("googlenet_bn", pretrained.centered)
    assert {"aux1", "aux2"} & set(weights.params) == ({"aux1", "aux2"} if heads else set())
    if heads:
        ours, theirs = weights.params["aux2"]["fc"]["kernel"], state["aux2.fc1.weight"]
        for unit, channel, row, column in [(0, 0, 0, 0), (1, 127, 3, 3), (1023, 5, 0, 2), (60, 70, 2, 1)]:
            assert ours[(row * 4 + column) * 128 + channel, unit] == theirs[unit, channel * 16 + row * 4 + column]
    project = weights.params["inception4c"]["project"]["conv"]["kernel"]
    np.testing.assert_array_equal(project[0, 0], state["inception4c.branch4.1.conv.weight"][:, :, 0, 0].T)


def test_squeezenets_classes_are_a_convolutions(tmp_path):
    state, path = squeezenet(), tmp_path / "squeezenet.safetensors"
    save_file(state, path)
    weights = load_torchvision(path)
    assert (weights.model, weights.classes, weights.stats) == ("squeezenet", 3, {})
    assert weights.params["conv10"]["kernel"][0, 0, 500, 2] == state["classifier.1.weight"][2, 500, 0, 0]
    assert weights.params["conv1"]["kernel"][2, 0, 1, 63] == state["features.0.weight"][63, 1, 2, 0]
    np.testing.assert_array_equal(weights.params["fire4"]["squeeze"]["bias"], state["features.6.squeeze.bias"])
    kernel, theirs = weights.params["fire9"]["expand3x3"]["kernel"], state["features.12.expand3x3.weight"]
    assert kernel[0, 2, 7, 255] == theirs[255, 7, 0, 2]
    assert sum(leaf.size for leaf in jax.tree.leaves(weights.params)) == sum(leaf.size for leaf in state.values())
    save_file(state | {"classifier.1.weight": array(3, 512)}, path)
    with pytest.raises(
        PretrainedError, match=r"its classifier\.1\.weight is \[3, 512\], which does not make our \[1, 1"
    ):
        load_torchvision(path)
    # The release 1.0 pools elsewhere.
    old = {f"features.{position}.squeeze.weight": array(1, 1, 1, 1) for position in (3, 4, 5, 7, 8, 9, 10, 12)}
    old |= {"features.0.weight": array(96, 3, 7, 7), "classifier.1.weight": array(3, 512, 1, 1)}
    assert torchvision_names.recognize(old) is None


def test_a_net_is_loaded_by_its_name_or_from_a_file(residual, tmp_path):
    own = pretrained.load("squeezenet")
    assert (own.model, own.classes, own.normalize, len(own.label_names)) == ("squeezenet", 1000, None, 1000)
    assert [own.label_names[k] for k in (0, 207, 999)] == ["tench", "golden retriever", "toilet tissue"]
    weights = pretrained.load(residual[1])
    assert (weights.model, weights.normalize) == ("resnet18", imagenet_normalized)
    assert weights.label_names == ("class 0", "class 1", "class 2")
    for missing in ("vgg_d", "squeezenet.zip", tmp_path):
        with pytest.raises(
            ConfigError, match=r"^there are no weights called .*: give squeezenet, .* of torchvision's alexnet_single, "
        ) as raised:
            pretrained.load(missing)
        assert "\n" not in str(raised.value)
    with pytest.raises(PretrainedError, match=r"^there is no file .*x\.pth"):
        pretrained.load(str(tmp_path / "x.pth"))


def test_shipped_weights_are_as_they_were_shipped(tmp_path, monkeypatch):
    shipped = (pretrained.SHIPPED / "squeezenet.safetensors").read_bytes()
    assert f"`{hashlib.sha256(shipped).hexdigest()}`" in (pretrained.SHIPPED / "README.md").read_text()
    monkeypatch.setattr(pretrained, "SHIPPED", tmp_path)
    with pytest.raises(PretrainedError, match=r"^.*squeezenet\.safetensors is missing; install capsnet_jax again$"):
        pretrained.load("squeezenet")
    turned = bytearray(shipped)
    turned[-1] ^= 1
    for damaged in (shipped[:-1], bytes(turned)):
        (tmp_path / "squeezenet.safetensors").write_bytes(damaged)
        with pytest.raises(PretrainedError, match=r"^.*squeezenet\.safetensors is damaged; install capsnet_jax again$"):
            pretrained.load("squeezenet")


# By hand from the papers' tables: positions of convolutions among torchvision's features; between them are poolings
# and ReLUs.
VGG = {
    ("vgg_a", False): ((0,), (3,), (6, 8), (11, 13), (16, 18)),
    ("vgg_a_bn", True): ((0,), (4,), (8, 11), (15, 18), (22, 25)),
    ("vgg_d", False): ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)),
    ("vgg_e_bn", True): ((0, 3), (7, 10), (14, 17, 20, 23), (27, 30, 33, 36), (40, 43, 46, 49)),
}


@pytest.mark.parametrize(("name", "normed"), VGG)
def test_vgg_is_told_by_the_gaps_between_its_convolutions(name, normed):
    """Names and shapes only: broadcast arrays take no memory."""
    blank = partial(np.broadcast_to, np.float32(0))
    state = {f"classifier.{n}.weight": blank((1, 1)) for n in (0, 3, 6)}
    for position in (position for stage in VGG[name, normed] for position in stage):
        state[f"features.{position}.weight"] = blank((1, 1, 3, 3))
        if normed:
            state |= {key.replace("x", f"features.{position + 1}"): blank((1,)) for key in norm("x", 1)}
    assert torchvision_names.recognize(state) == name
    rules = torchvision_names.rules(name, state)
    for stage, positions in enumerate(VGG[name, normed], 1):
        for index, position in enumerate(positions, 1):
            leaf = (f"stage{stage}", f"conv{index}", "kernel")
            assert torchvision_names.torch_name(leaf, rules) == f"features.{position}.weight"
            if normed:
                leaf = (f"stage{stage}", f"norm{index}", "var")
                assert torchvision_names.torch_name(leaf, rules) == f"features.{position + 1}.running_var"


@pytest.mark.slow
def test_alexnet_and_densenet_have_torchvisions_names():
    alexnet = torchvision_names.rules("alexnet_single", {})
    names = [torchvision_names.torch_name((f"conv{n}", "bias"), alexnet) for n in range(1, 6)]
    assert names == [f"features.{position}.bias" for position in (0, 3, 6, 8, 10)]
    layers = [torchvision_names.torch_name((layer, "kernel"), alexnet) for layer in ("fc1", "fc2", "classes")]
    assert layers == ["classifier.1.weight", "classifier.4.weight", "classifier.6.weight"]
    net = models.MODELS["densenet121"]()
    params, stats = jax.eval_shape(partial(models.init, net, jax.random.key(0), (32, 32, 3)))
    rules = torchvision_names.rules("densenet121", {})
    names = {torchvision_names.torch_name(leaf, rules) for tree in (params, stats) for leaf in flatten_dict(tree)}
    # 120 convolutions; 121 batch norms of four arrays; weight and bias of the classifier.
    assert len(names) == 120 + 4 * 121 + 2
    assert "features.norm5.running_var" in names
    assert "features.denseblock4.denselayer16.conv2.weight" in names
    assert "features.transition3.norm.bias" in names
    assert torchvision_names.modern("features.denseblock1.denselayer2.norm.1.weight") in names


def broken(state, **changes):
    return {key: leaf for key, leaf in (state | changes).items() if leaf is not None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer3.1.bn1.bias": None}, r"looks like torchvision's resnet18, but has no layer3\.1\.bn1\.bias; save"),
        ({"extra.weight": array(1)}, r"looks like torchvision's resnet18, but also has extra\.weight; only"),
        (
            {"layer2.0.conv1.weight": array(96, 64, 3, 3)},
            r"its layer2\.0\.conv1\.weight is \[96, 64, 3, 3\], which does not make our \[3, 3, 64, 128\]; only",
        ),
        ({"layer1.0.conv1.weight": None}, r"is of no net known here; load_torchvision reads alexnet_single, vgg_a, "),
        ({"fc.weight": None}, r"is of no net known here"),
        ({"fc.weight": np.array(1, np.float32)}, r"its fc\.weight is \[\], not \[classes, features\]$"),
        ({"fc.bias": np.float32([1, np.nan, np.inf])}, r"its fc\.bias has 2 of 3 numbers that are NaN"),
        ({"fc.weight": np.ones((3, 512), np.int8)}, r"its fc\.weight is no array of .* \(I8\); save"),
    ],
)
def test_other_arrays_are_named(change, message, residual, tmp_path):
    path = tmp_path / "net.safetensors"
    save_file(broken(residual[0], **change), path)
    with pytest.raises(PretrainedError, match=message) as raised:
        load_torchvision(path)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_every_floating_point_type_is_read_as_its_numbers(tmp_path):
    """By hand from the types' definitions: 1.5 is 0x3FC0 in bfloat16, 0x3C and 0x3E in float8 e4m3 and e5m2."""
    tensors = {
        "BF16": ([1], b"\xc0\x3f"),
        "F8_E4M3": ([1, 1], b"\x3c"),
        "F8_E5M2": ([], b"\x3e"),
        "F16": ([], b"\x00\x3e"),
    }
    head, data = {}, b""
    for dtype, (shape, raw) in tensors.items():
        head[f"{dtype}.w"] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(head).encode()
    path = tmp_path / "net.SAFETENSORS"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    state = state_dict.read(path)
    assert {name.split(".")[0]: list(leaf.shape) for name, leaf in state.items()} == {
        dtype: shape for dtype, (shape, _) in tensors.items()
    }
    assert all(leaf.dtype == np.float32 and leaf.item() == 1.5 for leaf in state.values())


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_what_wraps_a_net_makes_no_difference_to_names(prefix, tmp_path):
    names = {"conv1.weight": array(2), "fc.weight": array(3)}
    path = tmp_path / "net.safetensors"
    save_file({prefix + name: leaf for name, leaf in names.items()} | {"n_averaged": np.array(7)}, path)
    assert set(state_dict.read(path)) == set(names)


def test_files_that_are_none(residual, tmp_path, monkeypatch):
    with pytest.raises(PretrainedError, match=r"^there is no file .*missing\.safetensors; name a state dictionary"):
        load_torchvision(tmp_path / "missing.safetensors")
    cut = tmp_path / "cut.safetensors"
    for data in (residual[1].read_bytes()[:-1000], b"not weights at all"):
        cut.write_bytes(data)
        with pytest.raises(PretrainedError, match=r"cut\.safetensors is no whole safetensors file \(.*\); download"):
            load_torchvision(cut)
    (tmp_path / "net.pth").write_bytes(b"pickled")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(PretrainedError, match=r"net\.pth can be read where PyTorch is installed; install it, or save"):
        load_torchvision(tmp_path / "net.pth")


def test_images_are_normalized_by_colour():
    images = np.zeros((2, 1, 1, 3), np.float32)
    images[1] = 1
    expected = [[-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], [0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225]]
    np.testing.assert_allclose(imagenet_normalized(jax.numpy.asarray(images))[:, 0, 0], expected, rtol=1e-6)
    # What torchvision's `transform_input` makes of these.
    undone = np.array(expected) * np.array([0.229, 0.224, 0.225]) / 0.5 + (np.array([0.485, 0.456, 0.406]) - 0.5) / 0.5
    np.testing.assert_allclose(pretrained.centered(jax.numpy.asarray(images))[:, 0, 0], undone, atol=1e-6)


def test_a_pth_file_is_read_by_pytorchs_safe_loader(residual, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is an optional peer: pip install -e '.[peers]'")
    path = tmp_path / "resnet18.pth"
    torch.save({key: torch.tensor(leaf) for key, leaf in residual[0].items()}, path)
    loaded = jax.tree.leaves(load_torchvision(path).params)
    for got, expected in zip(loaded, jax.tree.leaves(load_torchvision(residual[1]).params), strict=True):
        np.testing.assert_array_equal(got, expected)


def tensors_of(torch, **more):
    return {"conv1.weight": torch.tensor([1.5, -2.0]), "fc.weight": torch.tensor(3.0)} | more


def test_checkpoints_of_trainings_hold_a_state_dictionary(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is an optional peer: pip install -e '.[peers]'")
    state, path = tensors_of(torch), tmp_path / "net.PTH"
    averaged = {"n_averaged": torch.tensor(3)} | {f"module.{name}": 2 * leaf for name, leaf in state.items()}
    moments = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]}
    arguments = argparse.Namespace(lr=0.1, model="resnet18")
    for saved in (
        {name: leaf.to(torch.bfloat16) for name, leaf in state.items()},
        {name: leaf.to(torch.float8_e4m3fn) for name, leaf in state.items()},
        {name: torch.nn.Parameter(leaf) for name, leaf in state.items()},
        {"model": state, "model_ema": averaged, "optimizer": moments, "epoch": 3, "args": arguments},
        {"state_dict": {f"module.{name}": leaf for name, leaf in state.items()}, "best": 93.5},
        {"model_state_dict": state, "loss": torch.tensor(1.0)},
        {"net": state},
    ):
        torch.save(saved, path)
        read = state_dict.read(path)
        assert {name: leaf.tolist() for name, leaf in read.items()} == {"conv1.weight": [1.5, -2.0], "fc.weight": 3.0}


def test_what_pytorchs_safe_loader_refuses_is_refused(tmp_path):
    """In one line, without PyTorch's advice to switch that loader off."""
    torch = pytest.importorskip("torch", reason="PyTorch is an optional peer: pip install -e '.[peers]'")
    state, path = tensors_of(torch), tmp_path / "net.pth"
    for saved, reason in (
        (torch.nn.Linear(2, 2), r"is no state dictionary \(it holds a torch\.nn\.modules\.linear\.Linear\); save"),
        ({"model": state, "out": Path("x")}, r"is no state dictionary \(it holds a pathlib\.PosixPath\); save"),
        ({"a": state, "b": state}, r"net\.pth is no state dictionary \(there are a, b\); save"),
        ([1, 2], r"net\.pth is no state dictionary \(it is a list\); save"),
        (tensors_of(torch, note="hello"), r"its note is no array of floating-point numbers \(str\); save"),
        (tensors_of(torch, x=torch.ones(2, device="meta")), r"its x is no array .* \(.*float32 on meta\); save"),
        (tensors_of(torch, x=torch.tensor(torch.nan)), r"its x has 1 of 1 numbers that are NaN or infinite"),
    ):
        torch.save(saved, path)
        with pytest.raises(PretrainedError, match=reason) as raised:
            load_torchvision(path)
        assert "\n" not in str(raised.value)
    torch.save(state, path)
    for damaged in (path.read_bytes()[:-1000], b"not weights", b"", b"cos\nsystem\n(S'exit 1'\ntR."):
        path.write_bytes(damaged)
        with pytest.raises(PretrainedError, match=r"net\.pth is no state dictionary \(.*\); save") as raised:
            load_torchvision(path)
        assert not re.search("\n|weights_only|trust", str(raised.value))


@pytest.mark.parametrize(("name", "side"), [("resnet18", 64), ("densenet121", 64), ("squeezenet1_1", 65)])
def test_outputs_statistics_and_gradients_are_torchvisions(name, side):
    """`tests/peers/torchvision_parity.py` compares all of them, larger and in float32 too."""
    pytest.importorskip("torchvision", reason="torchvision is an optional peer: pip install -e '.[peers]'")
    from tests.peers.torchvision_parity import compare

    with jax.enable_x64(True):
        errors = compare(name, side, ["float64"])["float64"]
    assert max(errors.values()) < 1e-8
