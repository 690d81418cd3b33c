import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import models, overrides
from capsnet_jax.config import ConfigError
from capsnet_jax.losses import total_loss
from capsnet_jax.models import MODELS
from capsnet_jax.models.convnets.resnet import ResNet
from capsnet_jax.models.heads import HEADS
from capsnet_jax.routing import ROUTERS
from capsnet_jax.sweeps import code
from tests.models.random_params import random_variables
from tests.routing.loops import loop_routing

IMAGE, CLASSES = (7, 5, 2), 3
IMAGES = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (2, *IMAGE)), jnp.float32)
SIZES = {"capsule_types": 2, "primary_dim": 4, "class_dim": 5}
TINY = {f"model.{name}": value for name, value in SIZES.items()} | {"model.name": "resnet8", "model.head": "dynamic"}


def net(head: str, **sizes) -> ResNet:
    return ResNet(CLASSES, (1,), (6,), bottleneck=False, head=head, **(SIZES | sizes))


@cache
def applied(head: str, **sizes):
    """A net with random parameters: these in float64, and its outputs."""
    model = net(head, **sizes)
    params, stats = random_variables(model, IMAGE)
    out = jax.jit(lambda images: models.apply(model, params, stats, images))(IMAGES)
    return jax.tree.map(np.float64, params), jax.tree.map(np.float64, out)


@pytest.mark.parametrize(
    ("head", "name", "pool"),
    [
        ("avg", "average", lambda x: x.mean(axis=(1, 2))),
        ("max", "maximum", lambda x: x.max(axis=(1, 2))),
        ("fc", "flat", lambda x: x.reshape(len(x), -1)),
    ],
)
def test_plain_heads_are_a_linear_layer_on_what_is_pooled(head, name, pool):
    params, out = applied(head)
    assert set(params) == {"conv1", "norm1", "stage1", "classes"}
    features = pool(out["stage1.block1"])
    np.testing.assert_allclose(out[name], features, rtol=1e-5)
    expected = features @ params["classes"]["kernel"] + params["classes"]["bias"]
    np.testing.assert_allclose(out["logits"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
def test_a_routers_head_is_the_loop(shared):
    """A 1×1 convolution, the squash, votes by a W for each type or for each capsule, and three iterations."""
    params, out = applied("dynamic", share_weights=shared)
    x = out["stage1.block1"]
    capsules = (x @ params["primary"]["kernel"][0, 0] + params["primary"]["bias"]).reshape(2, -1, 4)
    norms = np.linalg.norm(capsules, axis=-1, keepdims=True)
    capsules = norms / (1 + norms**2) * capsules
    np.testing.assert_allclose(out["primary_capsules"], capsules, rtol=1e-3, atol=1e-6)
    weights = params["class_capsules"]["W"]
    assert len(weights) == (2 if shared else 2 * 7 * 5)
    for example in range(2):
        votes = np.array(
            [[u @ weights[i % len(weights), o] for o in range(CLASSES)] for i, u in enumerate(capsules[example])]
        )
        parents = loop_routing(votes, 3)[0]
        np.testing.assert_allclose(out["capsules"][example], parents, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(out["lengths"][example], np.linalg.norm(parents, axis=1), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("head", ROUTERS)
def test_every_router_is_a_head(head):
    out, variables = jax.eval_shape(lambda: net(head).init_with_output(jax.random.key(0), IMAGES))
    models.check_head("resnet8", variables["params"])
    assert {"primary", "class_capsules"} <= set(variables["params"])
    assert out["lengths"].shape == (2, CLASSES)
    assert out["primary_capsules"].shape == (2, 7 * 5 * 2, SIZES["primary_dim"])
    config = overrides.build(TINY | {"model.head": head})
    assert code.code_of(config).keys() >= {"models/heads.py", "models/capsnet.py", "routing/layer.py"}
    assert config.routing is None


@pytest.mark.slow
def test_both_losses_reach_every_layer_of_a_net_with_capsules():
    model = net("dynamic")
    params, stats = random_variables(model, IMAGE)
    configs = [overrides.build(TINY | {"loss.name": loss}) for loss in ("cross_entropy", "margin")]

    @jax.jit
    def gradients(params):
        targets = jnp.eye(CLASSES)[:2]
        arguments = stats, IMAGES, targets
        out, back = jax.vjp(
            lambda p: models.apply_in_training(model, p, *arguments, dropout=jax.random.key(0))[0]["lengths"], params
        )
        by_lengths = [jax.grad(lambda v, c=c: total_loss({"lengths": v}, IMAGES, targets, c)[0])(out) for c in configs]
        return jax.vmap(back)(jnp.stack(by_lengths))[0]

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients(params)):
        assert jnp.isfinite(leaf).all()
        assert all(jnp.abs(gradient).max() > 0 for gradient in leaf), jax.tree_util.keystr(path)


def count(head: str, **sizes) -> int:
    model = models.build(overrides.build({"model.name": "resnet8", "model.head": head}), 10).clone(**sizes)
    params = jax.eval_shape(lambda: models.init(model, jax.random.key(0), (32, 32, 3)))[0]
    head = {name: part for name, part in params.items() if name in ("classes", "primary", "class_capsules")}
    return models.count_parameters(head)


def test_heads_are_counted_by_hand():
    """32×32 images: 8×8 positions of 64 channels, as in ResNet-20."""
    assert count("avg") == 64 * 10 + 10
    assert count("fc") == 64 * 64 * 10 + 10 == 40_970
    assert count("dynamic") == (64 * 64 + 64) + 4 * 10 * 16 * 16 == 14_400
    assert count("self_routing") == 14_400 + 256 * 10 * 16 + 256 * 10 == 57_920
    assert count("dynamic", share_weights=False) == 4_160 + 256 * 10 * 16 * 16


def test_a_head_is_asked_for_by_name_and_the_default_renames_nothing():
    assert overrides.identity(overrides.build({"model.name": "resnet8"})) == {
        "model.name": "resnet8",
        "loss.name": "cross_entropy",
    }
    named = overrides.identity(overrides.build({"model.name": "resnet8", "model.head": "dynamic"}))
    assert named["model.head"] == "dynamic"
    assert list(HEADS) == ["avg", "max", "fc", *ROUTERS]
    with pytest.raises(ConfigError, match=r"^model.head takes one of avg, max, fc, dynamic, .*, not 'median'$"):
        overrides.build({"model.name": "resnet8", "model.head": "median"})
    with pytest.raises(ConfigError, match=r"^model.capsule_types .* makes no difference"):
        overrides.build({"model.name": "resnet8", "model.capsule_types": 2})
    with pytest.raises(ConfigError, match=r"^vgg_a has no model.head"):
        overrides.build({"model.name": "vgg_a", "model.head": "avg"})


def test_a_guest_among_the_routers_is_a_head(monkeypatch):
    monkeypatch.setitem(ROUTERS, "mine", dataclasses.replace(ROUTERS["uniform"]))
    model = models.build(overrides.build(TINY | {"model.head": "mine"}), CLASSES).clone(depths=(1,))
    assert "class_capsules" in jax.eval_shape(lambda: models.init(model, jax.random.key(0), IMAGE))[0]


def test_a_changed_router_concerns_the_nets_whose_head_it_is(monkeypatch):
    configs = [overrides.build({"model.name": "resnet8", "model.head": head}) for head in ("avg", "dynamic", "uniform")]
    before = [code.code_of(config) for config in configs]
    real = code.digest
    monkeypatch.setattr(code, "digest", lambda path: "changed" if path.name == "dynamic.py" else real(path))
    after = [code.code_of(config) for config in configs]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    assert "models/capsnet.py" not in before[0]


def test_every_resnet_has_the_choice_and_no_other_net():
    for name, entry in MODELS.items():
        assert hasattr(entry.settings, "head") == name.startswith("resnet")
