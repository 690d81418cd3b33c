"""From the same weights, every subject computes the same lengths, reconstruction, loss and gradients."""

import importlib.util
from typing import NamedTuple

import jax
import numpy as np
import pytest

from capsnet_jax import losses, models, overrides
from capsnet_jax.bench import plain_jax
from capsnet_jax.bench.workload import capsnet_loss
from capsnet_jax.data.augment import to_float
from tests.bench import small

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is an optional peer: pip install -e '.[peers]'"
)
# Several types and dimensions, so that an exchange of axes shows.
CHANGES = {"model__capsule_types": 3, "model__primary_dim": 4, "model__class_dim": 5, "model__decoder": (6, 7)}
BATCH = 4


class Outputs(NamedTuple):
    lengths: np.ndarray
    reconstruction: np.ndarray | None
    loss: np.ndarray
    gradients: dict[str, np.ndarray]


def at(iterations, reconstruction=True, **more):
    changes = CHANGES | {"routing__iterations": iterations, "loss__reconstruction": reconstruction}
    return small.workload(changes=changes, classes=6, side=21, **more)


@pytest.fixture(scope="module", params=[{"iterations": 3}, {"iterations": 1, "reconstruction": False}], ids=str)
def case(request):
    """The workload, its weights and images, and what this project computes."""
    workload = at(**request.param, num_images=BATCH)
    tree = small.random_weights(workload)
    images, labels = map(jax.numpy.asarray, workload.images())
    settings = overrides.build(workload.settings)
    model = models.build(settings, workload.classes)
    scaled = to_float(images)

    def loss(params):
        targets = jax.nn.one_hot(labels, workload.classes)
        out = model.apply({"params": params}, scaled, targets)
        return losses.total_loss(out, scaled, targets, settings)[0], out

    (value, out), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(jax.tree.map(jax.numpy.asarray, tree))
    wanted = Outputs(out["lengths"], out.get("reconstruction"), value, flat(gradients))
    return workload, tree, scaled, labels, wanted


def flat(tree):
    return {"/".join(part.key for part in where): leaf for where, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def assert_equal(found: Outputs, wanted: Outputs):
    def close(a, b):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape
        assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(b)

    close(found.lengths, wanted.lengths)
    close(found.loss, wanted.loss)
    assert (found.reconstruction is None) == (wanted.reconstruction is None)
    if wanted.reconstruction is not None:
        close(found.reconstruction, wanted.reconstruction)
    assert found.gradients.keys() == wanted.gradients.keys()
    for name, gradient in wanted.gradients.items():
        assert np.linalg.norm(gradient) > 0, name
        close(found.gradients[name], gradient)


def differentiate(workload):
    return jax.jit(jax.value_and_grad(lambda *given: plain_jax.loss(*given, workload.settings)))


def test_plain_jax(case):
    workload, tree, images, labels, wanted = case
    lengths, reconstruction = plain_jax.forward(tree, images, labels, workload.iterations)
    value, gradients = differentiate(workload)(tree, images, labels)
    assert_equal(Outputs(lengths, reconstruction, value, flat(gradients)), wanted)


@needs_torch
def test_pytorch(case):
    import torch

    from capsnet_jax.bench import pytorch

    workload, tree, images, labels, wanted = case
    model = pytorch.CapsNet(tree, workload.iterations)
    batch = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
    classes = torch.from_numpy(np.array(labels)).long()
    with torch.no_grad():
        lengths, reconstruction = model(batch, classes)
    value = capsnet_loss(torch.nn.functional.one_hot, model, batch, classes, workload.settings)
    value.backward()
    shown = None if reconstruction is None else reconstruction.permute(0, 2, 3, 1).numpy()
    assert_equal(Outputs(lengths.numpy(), shown, value.detach().numpy(), gradients_of(model, wanted)), wanted)


def gradients_of(model, wanted: Outputs) -> dict[str, np.ndarray]:
    """PyTorch's gradients under this project's names, in its layout."""
    found = {"class_capsules/W": model.W.grad.numpy()}
    for name, kernel in model.kernels.items():
        path = name if name in ("conv1", "primary") else f"decoder/{name}"
        gradient = kernel.grad.numpy()
        found[f"{path}/kernel"] = np.einsum("oihw->hwio", gradient) if gradient.ndim == 4 else gradient.T
        found[f"{path}/bias"] = model.biases[name].grad.numpy()
    return found


@needs_torch
@pytest.mark.parametrize("phase", ["training", "inference"])
def test_peers_take_the_same_steps(phase):
    """Three of Adam, on the same batches; inference moves nothing."""
    from capsnet_jax.bench import pytorch

    workload = at(iterations=2, phase=phase)
    weights = small.random_weights(workload)
    before = np.array(weights["class_capsules"]["W"])
    subjects = plain_jax.build(workload, weights), pytorch.build(workload, weights)
    assert subjects[0].compile() > 0
    assert subjects[1].compile() is None
    for subject in subjects:
        subject.run(0, 1)
        subject.run(1, 3)
        assert subject.device_peak() == 0
    plain = np.asarray(subjects[0].params["class_capsules"]["W"]) - before
    moved = subjects[1].net.W.detach().numpy() - before
    if phase == "inference":
        assert not plain.any()
        assert not moved.any()
        return
    assert np.median(np.abs(plain)) > workload.settings["train.learning_rate"]
    assert np.linalg.norm(moved - plain) <= 1e-2 * np.linalg.norm(plain)


def test_plain_jax_takes_adams_step():
    """Its first moves a parameter by the learning rate against its gradient, but for the smallest gradients."""
    workload = at(iterations=2)
    tree = small.random_weights(workload)
    images, labels = (array[: workload.batch] for array in workload.images())
    gradient = differentiate(workload)(tree, images / np.float32(255), labels)[1]["class_capsules"]["W"]
    subject = plain_jax.build(workload, tree)
    subject.compile()
    subject.run(0, 1)
    moved = np.asarray(subject.params["class_capsules"]["W"]) - tree["class_capsules"]["W"]
    step = workload.settings["train.learning_rate"] * np.sign(gradient)
    assert np.mean(np.isclose(moved, -step, rtol=1e-2)) > 0.95
