import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from capsnet_jax.config import ConfigError
from capsnet_jax.interpret import gradient, targets
from capsnet_jax.interpret.chunks import map_chunks, sum_chunks
from capsnet_jax.interpret.program import before_relu, continue_from, with_relu_gradient
from capsnet_jax.models import MODELS, init
from capsnet_jax.models.forward import Forward, from_flax

IMAGES = jax.random.uniform(jax.random.key(0), (3, 13, 11, 1))
W1, W2 = jax.random.normal(jax.random.key(1), (2, 143, 143)) / 10


def two_layers(images):
    """A plain function with a path around its layer."""
    x = images.reshape(len(images), -1)
    hidden = jax.nn.relu(x @ W1)
    return {"hidden": hidden, "logits": jnp.maximum(hidden @ W2, 0) + x}


def test_a_net_is_continued_from_other_activations():
    hidden = jax.random.normal(jax.random.key(2), (3, 143))
    out = jax.jit(continue_from(two_layers, "hidden"))(IMAGES, hidden)
    np.testing.assert_array_equal(out["hidden"], hidden)
    expected = np.maximum(hidden @ W2, 0) + IMAGES.reshape(3, -1)
    np.testing.assert_allclose(out["logits"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn_small", "capsnet_small", "resnet8", "densenet_bc22_k7", "squeezenet"])
def test_every_layer_of_our_nets_continues_to_their_own_outputs(name):
    entry = MODELS[name]
    model = entry()
    shape = (28, 28, entry.image_shape[-1])
    params, stats = init(model, jax.random.key(0), shape)
    net = Forward(model, {"params": params, "batch_stats": stats})
    images = jax.random.uniform(jax.random.key(1), (2, *shape))
    outputs = net(images)
    scores = targets.scores_of(outputs)
    for layer in [n for n, x in outputs.items() if x.ndim == 4 and n not in ("reconstruction", "block3")]:
        doubled = jax.jit(continue_from(net, layer))(images, 2 * outputs[layer])
        assert jnp.abs(targets.scores_of(doubled) - scores).max() > 1e-6, f"{name} does not go on from {layer}"
        same = jax.jit(continue_from(net, layer))(images, outputs[layer])
        np.testing.assert_allclose(targets.scores_of(same), scores, rtol=1e-4, atol=1e-5)


def test_before_a_relu_there_is_what_went_in():
    before = jax.jit(before_relu(two_layers, "hidden"))(IMAGES)
    np.testing.assert_allclose(before["hidden"], IMAGES.reshape(3, -1) @ W1, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(before["logits"], two_layers(IMAGES)["logits"], rtol=1e-5)


def test_every_relu_gets_the_rule():
    def passed(rule):
        net = with_relu_gradient(two_layers, rule)
        np.testing.assert_allclose(net(IMAGES)["logits"], two_layers(IMAGES)["logits"], rtol=1e-5)
        return jax.grad(lambda images: net(images)["logits"].sum())(IMAGES).reshape(3, -1)

    assert np.ptp(passed(lambda x, g: 0 * g)) == 0  # what is left is the path around
    np.testing.assert_allclose(passed(lambda x, g: g), jnp.ones((3, 143)) @ (W1 @ W2).T + 1, rtol=1e-3, atol=1e-3)
    usual = jax.grad(lambda images: two_layers(images)["logits"].sum())(IMAGES).reshape(3, -1)
    np.testing.assert_allclose(passed(lambda x, g: jnp.where(x > 0, g, 0)), usual, rtol=1e-4, atol=1e-5)


def test_relus_are_found_in_any_flax_module_and_inside_of_jit():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, images):
            x = jax.jit(nn.relu)(nn.Conv(3, (3, 3), name="first")(images))
            return nn.Dense(4, name="last")(x.reshape(len(x), -1))

    module = Net()
    variables = module.init(jax.random.key(0), IMAGES)
    net = from_flax(module, variables)
    assert set(net(IMAGES)) == {"first", "last", "output"}
    np.testing.assert_array_equal(net(IMAGES)["output"], module.apply(variables, IMAGES))
    silent = with_relu_gradient(net, lambda x, g: 0 * g)
    assert not jax.grad(lambda images: silent(images)["output"].sum())(IMAGES).any()
    with pytest.raises(ConfigError, match="no ReLU"):
        with_relu_gradient(lambda images: images.sum(axis=(1, 2, 3)), lambda x, g: g)(IMAGES)


@pytest.mark.parametrize("layer", ["hiden", "images"])
def test_what_is_no_layer_is_told(layer):
    net = lambda images: two_layers(images) | {"images": images}  # noqa: E731
    with pytest.raises(ConfigError, match="did you mean 'hidden'" if layer == "hiden" else "no layer"):
        continue_from(net, layer)(IMAGES, IMAGES)


def test_the_gradient_is_that_of_the_target():
    classes = np.array([5, 0, 142])
    expected = jax.grad(lambda images: two_layers(images)["logits"][jnp.arange(3), classes].sum())(IMAGES)
    for chunk in (1, 2, 64):
        np.testing.assert_allclose(gradient(two_layers, IMAGES, classes, chunk=chunk), expected, rtol=1e-4, atol=1e-5)
    of_chosen = gradient(two_layers, IMAGES, two_layers(IMAGES)["logits"].argmax(axis=1))
    np.testing.assert_array_equal(gradient(two_layers, IMAGES), of_chosen)
    np.testing.assert_allclose(
        gradient(lambda x: x.sum((1, 2, 3)) ** 2, IMAGES)[:, 0, 0, 0], 2 * IMAGES.sum((1, 2, 3)), rtol=1e-5
    )


def test_targets():
    maps = jax.random.normal(jax.random.key(3), (3, 4, 5, 6))
    capsules = jax.random.normal(jax.random.key(4), (3, 10, 8))
    present = jax.random.uniform(jax.random.key(5), (3, 10))  # of a router whose capsules are as long as they like
    outputs = {"maps": maps, "capsules": capsules, "lengths": present}
    lengths = np.linalg.norm(capsules, axis=-1)
    expected = [
        (targets.class_score(2), present[:, 2]),
        (targets.channel("maps", 5), np.mean(maps, axis=(1, 2))[:, 5]),
        (targets.unit("maps", 5), maps[:, 2, 2, 5]),
        (targets.unit_at("maps", 3, 0, 1), maps[:, 3, 0, 1]),
        (targets.capsule_length([1, 2, 3]), lengths[[0, 1, 2], [1, 2, 3]]),
        (targets.capsule_contrast(4), present[:, 4] - (present.sum(axis=1) - present[:, 4]) / 9),
        (targets.capsule_dimension(4, 7), capsules[:, 4, 7]),
    ]
    for target, values in expected:
        np.testing.assert_allclose(target(outputs), values, rtol=1e-5, err_msg=target.score.__name__)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (143, "143 classes, counted from 0, and no 143"),
        (targets.unit("hidden", -1), "hidden has 143 units.* no -1"),
        (targets.channel("hiden", 0), "did you mean 'hidden'"),
    ],
)
def test_a_target_that_is_not_there_is_told(target, message):
    with pytest.raises(ConfigError, match=message):
        gradient(two_layers, IMAGES, target)


def test_chunks_cover_every_pair_once():
    for images, samples, chunk in ((3, 5, 4), (1, 1, 9), (4, 2, 1)):
        pairs = map_chunks(lambda i, s: 10 * i + s, images, samples, chunk)
        np.testing.assert_array_equal(pairs, [[10 * i + s for s in range(samples)] for i in range(images)])
        sums = sum_chunks(lambda i, s: (10.0 * i + s)[:, None], images, samples, chunk)[:, 0]
        np.testing.assert_array_equal(sums, [sum(10 * i + s for s in range(samples)) for i in range(images)])
