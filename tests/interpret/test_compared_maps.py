import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from capsnet_jax import models, overrides
from capsnet_jax.data import Dataset, Description, Examples
from capsnet_jax.interpret import compared_maps
from capsnet_jax.interpret.capsule_maps import coupling_maps
from capsnet_jax.interpret.compared_maps import OF_LAYER, edges, methods_for, observe_faithfulness
from capsnet_jax.interpret.faithfulness import deletion_curve, insertion_curve
from capsnet_jax.interpret.network import LazyDataset, Network
from tests.interpret.test_capsule_maps import CLASSES, IMAGES, network

GRADIENTS = ["gradient", "gradient × input", "smooth-grad", "integrated gradients", "guided backprop", "deconvnet"]


def test_each_net_has_the_methods_that_apply():
    of_layers = [
        f"{method} {layer}"
        for layer in ("conv1", "primary")
        for method in ("grad-cam", "grad-cam, placed,", "grad-cam++", "layer-cam")
    ]
    routed = ["couplings {}", "coupled votes {}", "couplings {} − uniform"]
    each = [name.format(t) for name in routed for t in (1, 2, 3)][:-3] + [routed[2].format(t) for t in (2, 3)]
    coarse = ["integrated gradients on 4×3"]
    assert set(methods_for(network())) == {*GRADIENTS, "occlusion", *of_layers, *each, *coarse, "edges", "random"}
    uniform = set(methods_for(network(routing__name="uniform"))) - {*GRADIENTS, *of_layers}
    assert uniform == {"occlusion", "couplings 1", "coupled votes 1", *coarse, "edges", "random"}


@pytest.mark.parametrize(
    ("name", "layer"),
    [("resnet8", "stage3.block1"), ("matrix_capsnet", "capsules2_activations"), ("efficient_capsnet", "conv4")],
)
def test_a_net_without_capsules_at_positions_has_maps_of_its_last_layer_and_none_of_couplings(name, layer):
    config = overrides.build({"model.name": name})
    data = LazyDataset("mnist", Description((28, 28, 1), tuple("0123456789")), lambda: None)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), models.shapes(config, data.image_shape, 10))
    net = Network(config, models.build(config, 10), *zeros, data, None)
    methods = set(methods_for(net))
    assert methods - {*GRADIENTS, "occlusion", "edges", "random"} == {f"{method} {layer}" for method in OF_LAYER}


def test_edges_are_sobels():
    expected = [
        np.hypot(*(ndimage.sobel(x, axis, mode="nearest") for axis in (0, 1))) for x in np.asarray(IMAGES[..., 0])
    ]
    np.testing.assert_allclose(edges(IMAGES), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_what_is_observed(monkeypatch):
    monkeypatch.setattr(compared_maps, "IMAGES", 3)
    monkeypatch.setattr(compared_maps, "CASCADED", 2)
    shown = np.round(255 * np.asarray(IMAGES)).astype(np.uint8)
    examples = Examples(shown, CLASSES)
    data = Dataset("mnist", tuple("0123456789"), examples, examples, examples)
    net = dataclasses.replace(network(), data=data)
    observed = observe_faithfulness(net)
    methods = observed["methods"].tolist()
    assert methods == list(methods_for(net))
    assert observed["layers"].tolist() == ["class_capsules", "primary", "conv1"]
    assert observed["deletion"].shape == observed["insertion"].shape == (len(methods), 17)
    lengths = net.outputs(shown)["lengths"]
    whole = 100 * np.mean(lengths.max(axis=1) / lengths.sum(axis=1))
    np.testing.assert_allclose(observed["deletion"][:, 0], whole, rtol=1e-4)
    np.testing.assert_allclose(observed["insertion"][:, -1], whole, rtol=1e-4)
    area = np.trapezoid(observed["deletion"], observed["fractions"], axis=1)
    np.testing.assert_allclose(observed["deletion_area"], area, rtol=1e-4)
    area = np.trapezoid(observed["insertion"], observed["fractions"], axis=1)
    np.testing.assert_allclose(observed["insertion_area"], area, rtol=1e-4)

    # A gradient ranks pixels by its size, integrated gradients by their sign.
    images, classes = jnp.asarray(shown / np.float32(255)), lengths.argmax(axis=1)
    for name, sign in (("gradient", jnp.abs), ("integrated gradients", lambda x: x)):
        maps = sign(methods_for(net)[name].maps(net, images, classes))
        for kind, curve_of in (("deletion", deletion_curve), ("insertion", insertion_curve)):
            curve = curve_of(net.forward, images, maps, classes, key=jax.random.key(0), steps=16)
            expected = 100 * curve.scores.mean(axis=0)
            np.testing.assert_allclose(observed[kind][methods.index(name)], expected, rtol=1e-4)
    whole = coupling_maps(net, images, classes, iterations=3)
    for t in (1, 2, 3):
        maps = methods_for(net)[f"couplings {t}"].maps(net, images, classes)
        np.testing.assert_allclose(maps, whole[:, t - 1], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(observed["absolute"][methods.index("edges")], 1)
    assert np.isnan(observed["absolute"][methods.index("random")]).all()
    assert observed["maps"].dtype == np.int8
    assert observed["class"] == str(classes[0])
