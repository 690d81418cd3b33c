"""Are our classic nets torchvision's? The same random weights in both, the same images: a line for each architecture.

    pip install -e '.[test,peers]' && python -m tests.peers.torchvision_parity [resnet18 …]

In evaluation, with running statistics that matter: the logits. In training: the logits of all heads, the batch norms'
statistics afterwards, and every parameter's gradient of a random weighting of the logits; dropout is off in both. An
error is the greatest difference over the greatest magnitude, of the worst array. In float64 all must agree to 1e-8,
which tells a mistake from rounding; in float32 the logits to 1e-4. A gradient in float32 is not continuous: rounding
decides which side of a ReLU, or which pixel of a pooling's window, it passes. So there both are held against
torchvision's gradient in float64, and ours may be as far off as 1e-4 or three times as far as theirs ("their own").
Where a bound is passed, the exit code is 1.
"""

import copy
import sys
import tempfile
from collections.abc import Mapping
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

from capsnet_jax import models, transfer
from capsnet_jax.bench import workload

# torchvision's name → ours, and the side of the images.
NETS = {
    theirs: (ours, 96 if ours.startswith(("resnet", "densenet")) else 224) for ours, theirs in workload.NETS.items()
}
WITHOUT_DROPOUT = {
    "alexnet": {"dropout": 0.0},
    "vgg": {"dropout": 0.0},
    "googlenet": {"dropout": 0.0, "dropout_aux": 0.0},
}
CLASSES, BATCH = 10, 2
BOUNDS = {
    "float64": {"evaluation": 1e-8, "training": 1e-8, "statistics": 1e-8, "gradients": 1e-8},
    "float32": {"evaluation": 1e-4, "training": 1e-4, "statistics": 1e-4, "gradients": 1e-4},
}
COLUMNS = [*BOUNDS["float64"], "their own"]


def compare(name: str, precision: str, side: int | None = None) -> dict[str, float]:
    """Errors of what is compared between torchvision's net and ours, by its name in `COLUMNS`."""
    ours, usual = NETS[name]
    generator = torch.Generator().manual_seed(0)
    net = _random_net(name, generator).to(getattr(torch, precision))
    images = torch.rand(BATCH, 3, side or usual, side or usual, generator=generator).to(getattr(torch, precision))
    pixels = jnp.asarray(images.numpy().transpose(0, 2, 3, 1))

    start = _ours(net.state_dict())
    assert (start.model, start.classes) == (ours, CLASSES)
    model = models.IMAGENET[ours](classes=CLASSES, precision=precision)
    with torch.no_grad():
        expected = net.eval()(images)
    out = jax.jit(models.apply, static_argnums=0)(model, start.params, start.stats, pixels)
    errors = {"evaluation": _error({"logits": out["logits"]}, {"logits": expected})}

    heads = _heads(net.train()(images))
    weights = {head: torch.rand(logits.shape, generator=generator).to(logits) for head, logits in heads.items()}
    exact = copy.deepcopy(net).double()
    after = _with_gradients(net, heads, weights)
    exact_after = _with_gradients(exact, _heads(exact(images.double())), weights)

    def objective(params: dict, stats: dict, pixels: jax.Array) -> tuple[jax.Array, Any]:
        labels, key = jnp.zeros(BATCH, int), jax.random.key(0)
        out, stats = models.apply_in_training(model, params, stats, pixels, labels, dropout=key)
        logits = {head: out[head] for head in heads}
        return sum(jnp.sum(jnp.asarray(weights[head].numpy()) * logits[head]) for head in heads), (logits, stats)

    with nn.intercept_methods(_no_dropout):
        found, (logits, stats) = jax.jit(jax.grad(objective, has_aux=True))(start.params, start.stats, pixels)
    errors["training"] = _error(logits, heads)
    errors["statistics"] = _error(stats, after.stats) if stats else 0.0
    errors["gradients"] = _error(found, exact_after.params)
    errors["their own"] = _error(after.params, exact_after.params)
    return errors


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


def _ours(state: Mapping[str, torch.Tensor]) -> transfer.Weights:
    """A state dictionary by way of a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_file({key: leaf.detach().contiguous() for key, leaf in state.items()}, path)
        return transfer.load_torchvision(path)


def _with_gradients(
    net: torch.nn.Module, heads: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]
) -> transfer.Weights:
    """The net's running statistics as ours, and the gradients of the weighted logits in place of its parameters."""
    net.zero_grad()
    sum(torch.sum(weights[head] * logits) for head, logits in heads.items()).backward()
    return _ours(net.state_dict() | {key: parameter.grad for key, parameter in net.named_parameters()})


def _heads(out: Any) -> dict[str, torch.Tensor]:
    """Logits by our names."""
    if isinstance(out, torch.Tensor):
        return {"logits": out}
    return {"logits": out.logits, "aux1_logits": out.aux_logits1, "aux2_logits": out.aux_logits2}


def _no_dropout(call: Any, arguments: Any, keywords: Any, context: nn.module.InterceptorContext) -> Any:
    return arguments[0] if isinstance(context.module, nn.Dropout) else call(*arguments, **keywords)


def _error(found: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """Greatest difference over greatest magnitude, of the worst array.

    Arrays whose magnitude is less than a thousandth of the greatest array's are held against that: a bias before a
    batch norm has no gradient but rounding.
    """
    found, expected = ({k: _numpy(leaf) for k, leaf in flatten_dict(tree).items()} for tree in (found, expected))
    assert found.keys() == expected.keys()
    least = 1e-3 * max(np.abs(value).max() for value in expected.values())
    return max(float(np.abs(found[k] - e).max() / max(np.abs(e).max(), least)) for k, e in expected.items())


def _numpy(leaf: Any) -> np.ndarray:
    return leaf.detach().numpy() if isinstance(leaf, torch.Tensor) else np.asarray(leaf)


def main(names: list[str]) -> int:
    """Print the table; 1 if a bound is passed."""
    jax.config.update("jax_enable_x64", True)
    print(f"PyTorch {torch.__version__}, torchvision {torchvision.__version__}, JAX {jax.__version__}; batch {BATCH}")
    print(f"{'net':<12} {'ours':<15} {'side':>4} {'type':<8} " + " ".join(f"{column:>10}" for column in COLUMNS))
    wrong = False
    for name in names or NETS:
        for precision, bounds in BOUNDS.items():
            errors = compare(name, precision)
            allowed = bounds | {"gradients": max(bounds["gradients"], 3 * errors["their own"])}
            wrong |= any(not errors[column] <= bound for column, bound in allowed.items())
            ours, side = NETS[name]
            numbers = " ".join(f"{errors[column]:>10.1e}" for column in COLUMNS)
            print(f"{name:<12} {ours:<15} {side:>4} {precision:<8} {numbers}", flush=True)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
