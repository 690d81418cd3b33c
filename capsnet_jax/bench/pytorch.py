"""CapsNet in PyTorch, written as well as it goes there: eager, or its loss through `torch.compile`.

Parameters are imported from this project's tree. Images are NCHW; convolutions keep their channels last in memory,
which spares the copy that turns their output into capsules.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from capsnet_jax.bench import memory
from capsnet_jax.bench.workload import Workload, load_weights


class CapsNet(nn.Module):
    """The network with given weights.

    Args:
        weights: this project's parameter tree, as NumPy arrays.
        iterations: of routing.
    """

    def __init__(self, weights: Mapping[str, Any], iterations: int):
        super().__init__()
        self.iterations = iterations
        self.conv1 = _conv(weights["conv1"], 1)
        self.primary = _conv(weights["primary"], 2)
        self.W = nn.Parameter(torch.tensor(weights["digit"]["W"]))
        self.decoder = _decoder(weights["decoder"]) if "decoder" in weights else None

    def forward(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Images [batch, 1, side, side] to lengths [batch, classes] and, with a decoder, reconstructions like them.

        The decoder sees the capsules of the labels, or of the longest capsules without them.
        """
        x = self.primary(functional.relu(self.conv1(images)))
        # Capsules in this project's order: by row, column and type, a capsule's dimensions together.
        capsules = _squash(x.permute(0, 2, 3, 1).reshape(x.shape[0], self.W.shape[0], self.W.shape[2]))
        # One matrix of votes a parent: routing is then batched matrix products, which beat einsums over inputs.
        outputs = self.route(torch.einsum("bik,iokd->boid", capsules, self.W).contiguous())
        lengths = torch.sqrt((outputs * outputs).sum(-1) + 1e-12)
        if self.decoder is None:
            return lengths, None
        shown = lengths.argmax(-1) if labels is None else labels
        masked = outputs * functional.one_hot(shown, outputs.shape[1])[:, :, None]
        return lengths, self.decoder(masked.flatten(1)).view(images.shape)

    def route(self, votes: Tensor) -> Tensor:
        """Votes [batch, classes, inputs, dim] to class capsules [batch, classes, dim]."""
        outputs = _squash(votes.sum(2, keepdim=True) / votes.shape[1])  # the first couplings are uniform
        logits = votes.new_zeros(*votes.shape[:3], 1)
        for _ in range(1, self.iterations):
            logits = logits + votes @ outputs.transpose(2, 3)
            outputs = _squash(logits.softmax(1).transpose(2, 3) @ votes)
        return outputs.squeeze(2)


def loss(model: CapsNet, images: Tensor, labels: Tensor, settings: Mapping[str, Any]) -> Tensor:
    """Margin loss and weighted squared error of the reconstruction, averaged over the batch."""
    lengths, reconstruction = model(images, labels)
    target = functional.one_hot(labels, lengths.shape[1])
    present = target * functional.relu(settings["loss.m_plus"] - lengths) ** 2
    absent = (1 - target) * functional.relu(lengths - settings["loss.m_minus"]) ** 2
    total = (present + settings["loss.down_weight"] * absent).sum(1)
    if reconstruction is not None:
        squared = ((reconstruction - images) ** 2).flatten(1).sum(1)
        total = total + settings["loss.reconstruction_weight"] * squared
    return total.mean()


def _conv(layer: Mapping[str, np.ndarray], stride: int) -> nn.Conv2d:
    kernel = torch.tensor(layer["kernel"]).permute(3, 2, 0, 1)  # HWIO to OIHW
    made = nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[2], stride)
    made.weight = nn.Parameter(kernel.contiguous(memory_format=torch.channels_last))
    made.bias = nn.Parameter(torch.tensor(layer["bias"]))
    return made


def _decoder(layers: Mapping[str, Any]) -> nn.Sequential:
    parts: list[nn.Module] = []
    for name in [*sorted(name for name in layers if name != "pixels"), "pixels"]:
        kernel = torch.tensor(layers[name]["kernel"])
        linear = nn.Linear(*kernel.shape)
        linear.weight = nn.Parameter(kernel.T.contiguous())
        linear.bias = nn.Parameter(torch.tensor(layers[name]["bias"]))
        parts += [linear, nn.Sigmoid() if name == "pixels" else nn.ReLU()]
    return nn.Sequential(*parts)


def _squash(s: Tensor) -> Tensor:
    squared = (s * s).sum(-1, keepdim=True)
    return s * (torch.sqrt(squared + 1e-12) / (1 + squared))


class PyTorch:
    """The training step, or the forward pass, on images that live on the device."""

    def __init__(
        self,
        workload: Workload,
        model: nn.Module,
        loss: Callable[..., Tensor],
        layout: torch.memory_format = torch.channels_last,
    ):
        """Data and Adam.

        Args:
            workload: what is to be done.
            model: the network with its weights.
            loss: of a model, images, labels and settings.
            layout: of the images in memory.
        """
        torch.set_num_threads(_cores())
        self._device = torch.device(device())
        if self._device.type == "cuda":  # what JAX does there by default: products in TF32, the fastest of the kernels
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True
        self._settings, self._batch = dict(workload.settings), workload.batch
        self._compiled, self._training = workload.subject == "pytorch_compiled", workload.phase == "training"
        images, labels = workload.images()
        nchw = torch.from_numpy(images).permute(0, 3, 1, 2)
        self._images = nchw.contiguous(memory_format=layout).to(self._device)
        self._labels = torch.from_numpy(labels).long().to(self._device)
        self._model = model.to(self._device)
        rate = workload.settings["train.learning_rate"]
        self._adam = torch.optim.Adam(self._model.parameters(), lr=rate, fused=True) if self._training else None
        self._loss, self._forward = loss, model
        if self._compiled:
            self._loss, self._forward = torch.compile(loss), torch.compile(self._model)
        self._step = 0

    def prepare(self) -> float | None:
        """Compile; returns the seconds that it took, or None where nothing is compiled."""
        if not self._compiled:
            return None
        # Compilation is part of the first step: what that takes longer than the second.
        seconds = []
        for _ in range(2):
            clock = time.perf_counter()
            self.run(1)
            seconds.append(time.perf_counter() - clock)
        return max(0.0, seconds[0] - seconds[1])

    def run(self, steps: int) -> None:
        """Train, or compute, that many batches and wait for them."""
        batches = len(self._labels) // self._batch
        for step in range(self._step, self._step + steps):
            held = slice(step % batches * self._batch, (step % batches + 1) * self._batch)
            images, labels = self._images[held].float() / 255, self._labels[held]
            if self._adam is not None:
                self._adam.zero_grad(set_to_none=True)
                self._loss(self._model, images, labels, self._settings).backward()
                self._adam.step()
            else:
                with torch.inference_mode():
                    self._forward(images)
        self._step += steps
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def peak(self) -> int:
        """Peak memory, bytes."""
        return torch.cuda.max_memory_allocated() if self._device.type == "cuda" else memory.process_peak()


def device() -> str:
    """What PyTorch computes on here: "cuda" or "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def build(workload: Workload) -> PyTorch:
    """The subject at a workload."""
    return PyTorch(workload, CapsNet(load_weights(workload.weights), workload.iterations), loss)
