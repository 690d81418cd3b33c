"""torchvision's networks, run eagerly: in PyTorch's own layout, or with channels last in memory.

Weights are as torchvision starts them, for a step's time does not hang on their values. Steps, data and Adam are those
of `pytorch`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from capsnet_jax.bench.pytorch import PyTorch
from capsnet_jax.bench.workload import NETS, Workload

_AUXILIARY = 0.3  # weight of GoogLeNet's auxiliary classifiers, here and there


def build(workload: Workload) -> PyTorch:
    """The subject at a workload."""
    last = workload.subject == "torchvision_channels_last"
    layout = torch.channels_last if last else torch.contiguous_format
    return PyTorch(workload, network(workload).to(memory_format=layout), loss, layout)


def network(workload: Workload) -> nn.Module:
    """A workload's network with fresh weights, dropout and batch norms as its phase has them."""
    name = NETS[workload.model]
    # GoogLeNet's own initialisation takes long and warns that it does.
    more = {"init_weights": False} if name == "googlenet" else {}
    made = getattr(torchvision.models, name)(num_classes=workload.classes, **more)
    return made.train(workload.phase == "training")


def loss(model: nn.Module, images: Tensor, labels: Tensor, settings: Mapping[str, Any]) -> Tensor:
    """Cross-entropy, with those of auxiliary classifiers, averaged over the batch."""
    out = model(images)
    if isinstance(out, Tensor):
        return functional.cross_entropy(out, labels)
    auxiliary = [functional.cross_entropy(logits, labels) for logits in (out.aux_logits1, out.aux_logits2)]
    return functional.cross_entropy(out.logits, labels) + _AUXILIARY * sum(auxiliary)
