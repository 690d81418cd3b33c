"""CapsNet in PyTorch, written as well as it goes there, eager or compiled; and torchvision's nets, eager.

CapsNet takes this project's parameters. Its convolutions keep their channels last in memory, which spares the copy that
turns their output into capsules. torchvision's nets start from weights of their own, which do not change a step's time.
"""

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from capsnet_jax.bench.process import torch_device
from capsnet_jax.bench.workload import NETS, Workload, capsnet_loss


class CapsNet(nn.Module):
    """The net with this project's parameters (NumPy arrays)."""

    def __init__(self, weights: Mapping[str, Any], iterations: int):
        super().__init__()
        self.W = nn.Parameter(torch.tensor(weights["class_capsules"]["W"]))
        layers = {name: weights[name] for name in ("conv1", "primary")} | weights.get("decoder", {})
        self.kernels = nn.ParameterDict({name: _kernel(layer["kernel"]) for name, layer in layers.items()})
        self.biases = nn.ParameterDict({name: torch.tensor(layer["bias"]) for name, layer in layers.items()})
        self.iterations, self.decoder = iterations, sorted(weights.get("decoder", {}))  # "hidden1", …, "pixels"

    def forward(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return lengths [batch, classes] and reconstructions of the labels' capsules, or of the longest, or None."""
        x = functional.relu(functional.conv2d(images, self.kernels["conv1"], self.biases["conv1"]))
        x = functional.conv2d(x, self.kernels["primary"], self.biases["primary"], stride=2)
        # Capsules in this project's order: by row, column and type, a capsule's dimensions together.
        capsules = _squash(x.permute(0, 2, 3, 1).reshape(x.shape[0], self.W.shape[0], self.W.shape[2]))
        # One matrix of votes a parent: routing is then batched matrix products, which beat einsums over inputs.
        votes = torch.einsum("bik,iokd->boid", capsules, self.W).contiguous()
        outputs = _squash(votes.sum(2, keepdim=True) / votes.shape[1])  # the first couplings are uniform
        logits = votes.new_zeros(*votes.shape[:3], 1)
        for _ in range(1, self.iterations):
            logits = logits + votes @ outputs.transpose(2, 3)
            outputs = _squash(logits.softmax(1).transpose(2, 3) @ votes)
        outputs = outputs.squeeze(2)
        lengths = torch.sqrt((outputs * outputs).sum(-1) + 1e-12)
        if not self.decoder:
            return lengths, None
        decoded_class = lengths.argmax(-1) if labels is None else labels
        x = (outputs * functional.one_hot(decoded_class, outputs.shape[1])[:, :, None]).flatten(1)
        for name in self.decoder:
            x = functional.linear(x, self.kernels[name], self.biases[name])
            x = torch.sigmoid(x) if name == "pixels" else functional.relu(x)
        return lengths, x.view(images.shape)


def cross_entropy(net: nn.Module, images: Tensor, labels: Tensor, _settings: Mapping[str, Any]) -> Tensor:
    """Return the cross-entropy, with those of auxiliary classifiers, averaged over the batch."""
    out = net(images)
    if isinstance(out, Tensor):
        return functional.cross_entropy(out, labels)
    auxiliary = [functional.cross_entropy(logits, labels) for logits in (out.aux_logits1, out.aux_logits2)]
    return functional.cross_entropy(out.logits, labels) + 0.3 * sum(auxiliary)  # GoogLeNet's weight, here and there


def _kernel(kernel: Any) -> Tensor:
    """Return HWIO as OIHW with channels last in memory, and [in, out] as [out, in]."""
    if kernel.ndim == 2:
        return torch.tensor(kernel).T.contiguous()
    return torch.tensor(kernel).permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)


def _squash(s: Tensor) -> Tensor:
    squared = (s * s).sum(-1, keepdim=True)
    return s * (torch.sqrt(squared + 1e-12) / (1 + squared))


class _PyTorch:
    """A net's training step, or its forward pass, on images that live on the device, `layout` in memory."""

    def __init__(self, workload: Workload, net: nn.Module, loss: Callable[..., Tensor], layout: torch.memory_format):
        torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
        self._device = torch.device(torch_device())
        if self._device.type == "cuda":  # what JAX does there by default: products in TF32, the fastest of the kernels
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True
        self._settings, self._batch = dict(workload.settings), workload.batch
        images, labels = map(torch.from_numpy, workload.images())
        self.images = images.permute(0, 3, 1, 2).contiguous(memory_format=layout).to(self._device)
        self.labels, self.net = labels.long().to(self._device), net.to(self._device)
        adam = partial(torch.optim.Adam, lr=workload.settings["train.learning_rate"], fused=True)
        self._adam = adam(self.net.parameters()) if workload.phase == "training" else None
        self._compiled = workload.subject == "pytorch_compiled"
        wrap: Callable = torch.compile if self._compiled else lambda function: function
        self.loss, self._forward = wrap(loss), wrap(net)

    def compile(self) -> float | None:
        if not self._compiled:
            return None
        clock = [time.perf_counter()]
        for step in range(2):
            self.run(step, step + 1)
            clock.append(time.perf_counter())
        return max(0.0, 2 * clock[1] - clock[0] - clock[2])  # what the first step takes longer than the second

    def run(self, start: int, stop: int) -> None:
        for step in range(start, stop):
            first = step % (len(self.labels) // self._batch) * self._batch
            images, labels = (array[first : first + self._batch] for array in (self.images, self.labels))
            images = images.float() / 255
            if self._adam is None:
                with torch.inference_mode():
                    self._forward(images)
            else:
                self._adam.zero_grad(set_to_none=True)
                self.loss(self.net, images, labels, self._settings).backward()
                self._adam.step()
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def device_peak(self) -> int:
        return torch.cuda.max_memory_allocated() if self._device.type == "cuda" else 0


def build(workload: Workload, weights: Any) -> _PyTorch:
    """Return the subject at a workload."""
    if not workload.subject.startswith("torchvision"):
        loss = partial(capsnet_loss, functional.one_hot)
        return _PyTorch(workload, CapsNet(weights, workload.iterations), loss, torch.channels_last)
    import torchvision  # not everyone who has PyTorch has it

    name = NETS[workload.settings["model.name"]]
    more = {"init_weights": False} if name == "googlenet" else {}  # its own initialisation takes long
    net = getattr(torchvision.models, name)(num_classes=workload.classes, **more).train(workload.phase == "training")
    layout = torch.channels_last if workload.subject.endswith("channels_last") else torch.contiguous_format
    return _PyTorch(workload, net.to(memory_format=layout), cross_entropy, layout)
