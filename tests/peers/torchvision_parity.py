"""Are our classic nets torchvision's? The same random weights in both, the same images: a line for each architecture.

    pip install -e '.[test,peers]' && python -m tests.peers.torchvision_parity [resnet18 …]

In evaluation, with running statistics that matter: the logits. In training: the logits of all heads, the batch norms'
statistics afterwards, and every parameter's gradient of a random weighting of the logits; dropout is off in both. An
error is the greatest difference from torchvision's net in float64 over the greatest magnitude, of the worst array.

Ours in float64 must be within 1e-8, which tells a mistake from rounding. In float32 a gradient is not continuous:
rounding decides which side of a ReLU, or which pixel of a pooling's window, it passes; and a batch norm of few values
grows rounding from layer to layer. So ours in float32 must be within 1e-4 in evaluation, and in training within 1e-4
or twice what torchvision's own float32 is off, on the line below it: at worst of nine runs, all but one with
weights that are moved by up to four units of rounding. One run may be lucky, and ours rounds more where it convolves by
Winograd's form, two to five times as much: one unit was not enough to see in torchvision's AlexNet the pixel that ours
takes otherwise on a CPU without AVX-512. Where a bound is passed, the exit code is 1.
"""

import copy
import itertools
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torchvision
from flax import linen as nn
from flax.traverse_util import flatten_dict
from safetensors.torch import save_file

from capsnet_jax import models
from capsnet_jax.bench import workload
from capsnet_jax.models import pretrained

# torchvision's name → ours, and the side of the images.
NETS = {
    theirs: (ours, 96 if ours.startswith(("resnet", "densenet")) else 224) for ours, theirs in workload.NETS.items()
} | {"squeezenet1_1": ("squeezenet", 227)}
WITHOUT_DROPOUT = {
    "alexnet": {"dropout": 0.0},
    "vgg": {"dropout": 0.0},
    "googlenet": {"dropout": 0.0, "dropout_aux": 0.0},
    "squeezenet": {"dropout": 0.0},
}
CLASSES, BATCH = 10, 2
ROUNDINGS, UNITS = 8, 4  # of torchvision's weights, beside the weights themselves, and how far each may move
COLUMNS = ["evaluation", "training", "statistics", "gradients"]
# What was found, by column: arrays by name.
Found = dict[str, Mapping[str, Any]]


def compare(
    name: str, side: int | None = None, precisions: Sequence[str] = ("float64", "float32")
) -> dict[str, dict[str, float]]:
    """Errors by column, of ours in `precisions` and, with float32 among them, of "theirs", from theirs in float64."""
    ours, usual = NETS[name]
    generator = torch.Generator().manual_seed(0)
    net = _random_net(name, generator)
    images = torch.rand(BATCH, 3, side or usual, side or usual, generator=generator)
    heads = ["logits", "aux1_logits", "aux2_logits"] if name == "googlenet" else ["logits"]
    weights = {head: torch.rand(BATCH, CLASSES, generator=generator) for head in heads}

    exact = _of_theirs(copy.deepcopy(net).double(), images.double(), weights)
    start = to_ours(net.state_dict())
    assert (start.model, start.classes) == (ours, CLASSES)
    found = {precision: _of_ours(start, images.numpy(), weights, precision) for precision in precisions}
    errors = {whose: _errors(of, exact) for whose, of in found.items()}
    if "float32" in precisions:
        # One at a time, for nine of VGG fill the memory; the net itself last, as running moves its statistics.
        rounded = itertools.chain((_rounded_anew(net, generator) for _ in range(ROUNDINGS)), [net])
        theirs = [_errors(_of_theirs(each, images, weights), exact) for each in rounded]
        errors["theirs"] = {column: max(each[column] for each in theirs) for column in COLUMNS}
    return errors


def allowed(errors: dict[str, dict[str, float]], precision: str) -> dict[str, float]:
    """Bounds of ours in a precision, by column."""
    if precision == "float64":
        return dict.fromkeys(COLUMNS, 1e-8)
    in_training = {column: max(1e-4, 2 * own) for column, own in errors["theirs"].items()}
    return in_training | {"evaluation": 1e-4}


def _of_theirs(net: torch.nn.Module, images: torch.Tensor, weights: Mapping[str, torch.Tensor]) -> Found:
    with torch.no_grad():
        evaluation = {"logits": net.eval()(images)}
    heads = _heads(net.train()(images))
    net.zero_grad()
    sum(torch.sum(weights[head].to(logits) * logits) for head, logits in heads.items()).backward()
    after = to_ours(net.state_dict() | {key: parameter.grad for key, parameter in net.named_parameters()})
    return {"evaluation": evaluation, "training": heads, "statistics": after.stats, "gradients": after.params}


def _of_ours(
    start: pretrained.Weights, images: np.ndarray, weights: Mapping[str, torch.Tensor], precision: str
) -> Found:
    model = models.MODELS[start.model](classes=CLASSES, precision=precision)
    params, stats, pixels = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, precision), (start.params, start.stats, images.transpose(0, 2, 3, 1))
    )

    def objective(params: dict, stats: dict, pixels: jax.Array) -> tuple[jax.Array, Any]:
        targets, key = jnp.eye(CLASSES)[:BATCH], jax.random.key(0)
        out, stats = models.apply_in_training(model, params, stats, pixels, targets, dropout=key)
        heads = {head: out[head] for head in weights}
        weighted = [jnp.sum(weights[head].numpy() * logits) for head, logits in heads.items()]
        return jnp.sum(jnp.stack(weighted)), (heads, stats)

    out = jax.jit(models.apply, static_argnums=0)(model, params, stats, pixels)
    with nn.intercept_methods(_no_dropout):
        gradients, (heads, stats) = jax.jit(jax.grad(objective, has_aux=True))(params, stats, pixels)
    evaluation = {"logits": out["logits"]}
    return {"evaluation": evaluation, "training": heads, "statistics": stats, "gradients": gradients}


def _random_net(name: str, generator: torch.Generator) -> torch.nn.Module:
    """torchvision's net, its batch norms neither at their start nor without effect."""
    family = next((f for f in WITHOUT_DROPOUT if name.startswith(f)), "")
    more = {"init_weights": False, "aux_logits": True, "transform_input": False} if name == "googlenet" else {}
    torch.manual_seed(0)
    net = getattr(torchvision.models, name)(num_classes=CLASSES, **WITHOUT_DROPOUT.get(family, {}), **more)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for leaf in (module.weight, module.running_var):
                leaf.data = 0.5 + torch.rand(leaf.shape, generator=generator)
            for leaf in (module.bias, module.running_mean):
                leaf.data = torch.rand(leaf.shape, generator=generator) - 0.5
    return net


def _rounded_anew(net: torch.nn.Module, generator: torch.Generator) -> torch.nn.Module:
    """A copy whose weights are each moved by chance, by whole units of float32's rounding."""
    made = copy.deepcopy(net)
    with torch.no_grad():
        for leaf in made.parameters():
            units = torch.randint(-UNITS, UNITS + 1, leaf.shape, generator=generator)
            leaf.mul_(1 + units * torch.finfo(leaf.dtype).eps)
    return made


def to_ours(state: Mapping[str, torch.Tensor]) -> pretrained.Weights:
    """A state dictionary by way of a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_file({key: leaf.detach().contiguous() for key, leaf in state.items()}, path)
        return pretrained.load_torchvision(path)


def _heads(out: Any) -> dict[str, torch.Tensor]:
    """Logits by our names."""
    if isinstance(out, torch.Tensor):
        return {"logits": out}
    return {"logits": out.logits, "aux1_logits": out.aux_logits1, "aux2_logits": out.aux_logits2}


def _no_dropout(call: Any, arguments: Any, keywords: Any, context: nn.module.InterceptorContext) -> Any:
    return arguments[0] if isinstance(context.module, nn.Dropout) else call(*arguments, **keywords)


def _errors(found: Found, exact: Found) -> dict[str, float]:
    """Errors by column."""
    return {column: _error(found[column], exact[column]) for column in COLUMNS}


def _error(found: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """Greatest difference over greatest magnitude, of the worst array.

    Arrays whose magnitude is less than a thousandth of the greatest array's are held against that: a bias before a
    batch norm has no gradient but rounding.
    """
    found, expected = ({k: _numpy(leaf) for k, leaf in flatten_dict(tree).items()} for tree in (found, expected))
    assert found.keys() == expected.keys()
    if not expected:
        return 0.0
    least = 1e-3 * max(np.abs(value).max() for value in expected.values())
    return max(float(np.abs(found[k] - e).max() / max(np.abs(e).max(), least)) for k, e in expected.items())


def _numpy(leaf: Any) -> np.ndarray:
    return leaf.detach().numpy() if isinstance(leaf, torch.Tensor) else np.asarray(leaf)


def main(names: list[str]) -> int:
    """Print the table; 1 if a bound is passed."""
    jax.config.update("jax_enable_x64", True)
    print(f"PyTorch {torch.__version__}, torchvision {torchvision.__version__}, JAX {jax.__version__}; batch {BATCH}")
    print(f"{'net':<12} {'ours':<15} {'side':>4} {'run':<8} " + " ".join(f"{column:>10}" for column in COLUMNS))
    wrong = False
    for name in names or NETS:
        errors = compare(name)
        for run, found in errors.items():
            passed = run != "theirs" and any(not found[c] <= bound for c, bound in allowed(errors, run).items())
            wrong |= passed
            ours, side = NETS[name]
            numbers = " ".join(f"{found[column]:>10.1e}" for column in COLUMNS)
            print(f"{name:<12} {ours:<15} {side:>4} {run:<8} {numbers}{'  too far' * passed}", flush=True)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
