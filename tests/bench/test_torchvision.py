"""The subject with a torchvision of our own, whose networks are small enough to be computed by hand."""

import importlib.util
import sys
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest

from capsnet_jax import overrides
from capsnet_jax.bench.workload import Workload

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is an optional peer: pip install -e '.[peers]'"
)
pytestmark = needs_torch
SUBJECTS = ("torchvision", "torchvision_channels_last")
Heads = namedtuple("Heads", ["logits", "aux_logits2", "aux_logits1"])


def fake_models():
    import torch
    from torch import nn

    class Net(nn.Module):
        """A 1×1 convolution, whose average over all positions is the logits."""

        def __init__(self, num_classes):
            super().__init__()
            self.conv = nn.Conv2d(3, num_classes, 1)

        def forward(self, images):
            self.seen = images
            return self.conv(images).mean((2, 3))

    class Google(Net):
        def forward(self, images):
            logits = super().forward(images)
            return Heads(logits, 3 * logits, 2 * logits) if self.training else logits

    def googlenet(*, num_classes, init_weights):
        assert init_weights is False
        return Google(num_classes)

    torch.manual_seed(0)
    return SimpleNamespace(resnet18=lambda *, num_classes: Net(num_classes), googlenet=googlenet)


@pytest.fixture
def subject(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=fake_models()))
    from capsnet_jax.bench import pytorch

    return SimpleNamespace(build=lambda given: pytorch.build(given, None))


def workload(name="resnet18", subject="torchvision", phase="training") -> Workload:
    settings = overrides.flatten(overrides.build({"model.name": name, "train.batch_size": 2}))
    return Workload(subject, phase, settings, classes=4, side=5, channels=3, num_images=6)


def logits_by_hand(model, images):
    kernel, bias = (leaf.detach().numpy() for leaf in (model.conv.weight, model.conv.bias))
    return images.mean((1, 2)) / 255 @ kernel[:, :, 0, 0].T + bias


def cross_entropy(logits, labels):
    exponentials = np.exp(logits)
    return -np.log(exponentials / exponentials.sum(1, keepdims=True))[np.arange(len(labels)), labels].mean()


@pytest.mark.parametrize("name", ["resnet18", "googlenet_bn"])
def test_the_loss_counts_auxiliary_classifiers_by_three_tenths(subject, name):
    built = subject.build(workload(name))
    images, labels = workload(name).images()
    found = built.loss(built.net, built.images.float() / 255, built.labels, {})
    logits = logits_by_hand(built.net, images)
    expected = cross_entropy(logits, labels)
    if name == "googlenet_bn":
        expected += 0.3 * (cross_entropy(2 * logits, labels) + cross_entropy(3 * logits, labels))
    assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", SUBJECTS)
def test_images_and_weights_lie_in_memory_as_the_subject_says(subject, name):
    import torch

    built = subject.build(workload(subject=name))
    layout = torch.channels_last if name.endswith("last") else torch.contiguous_format
    other = torch.contiguous_format if name.endswith("last") else torch.channels_last
    built.run(0, 2)
    assert built.net.seen.is_contiguous(memory_format=layout)
    assert not built.net.seen.is_contiguous(memory_format=other)
    # The second batch, pixel by pixel.
    images = workload().images()[0][2:4].transpose(0, 3, 1, 2)
    np.testing.assert_allclose(built.net.seen.numpy(), images / np.float32(255), rtol=1e-6)


@pytest.mark.parametrize("name", SUBJECTS)
def test_training_takes_adams_step_and_inference_none(subject, name):
    """Adam's first step moves every weight by the learning rate."""
    built = subject.build(workload("googlenet_bn", name))
    before = built.net.conv.weight.detach().clone()
    assert built.compile() is None
    built.run(0, 1)
    moved = (built.net.conv.weight.detach() - before).abs().numpy()
    np.testing.assert_allclose(moved, workload().settings["train.learning_rate"], rtol=1e-3)
    assert built.device_peak() == 0

    resting = subject.build(workload("googlenet_bn", name, "inference"))
    before = resting.net.conv.weight.detach().clone()
    resting.run(0, 2)
    assert (resting.net.conv.weight == before).all()
    assert not resting.net.training
