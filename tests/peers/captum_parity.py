"""Are our heat maps Captum's? The same SqueezeNet 1.1 in both, with the same weights and images: a line for each map.

    pip install -e '.[test,peers]' && python -m tests.peers.captum_parity [--speed]

The weights are torchvision's own random ones, and those that its authors released, which come with this package. An
error is the greatest difference from Captum's map in float64, over the greatest magnitude of that map.

Ours in float64 must be within 1e-7, which tells a mistake from rounding: Captum rounds weights and falls to float32. In
float32 it must be within 1e-4. But where rounding decides which side of a ReLU a unit is, or which pixel of a window a
pooling takes, a gradient jumps. Of many gradients some do, in Captum's float32 as often as in ours, so for their means
5e-2 is allowed. Where a bound is passed, the exit code is 1.

Captum's windows do not end at the border, so the sides are such that both are the same here. SmoothGrad's noise is ours
in both. `--speed` measures batches in turn, ours and Captum's, and prints Captum's time over ours.
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import captum
import jax
import jax.numpy as jnp
import numpy as np
import torch
import torchvision
from captum import attr
from flax.traverse_util import flatten_dict
from torch.nn import functional

from capsnet_jax import interpret, models
from capsnet_jax.interpret.attribution import normal_noise
from capsnet_jax.models import pretrained
from capsnet_jax.models.forward import Forward
from capsnet_jax.models.torchvision_names import rules, torch_name
from tests.peers.torchvision_parity import to_ours

WEIGHTS = ("random", "released")
LAYERS = {"fire5": "features.7", "fire9": "features.12"}
SHAPE, WINDOW, STRIDE = (127, 111, 3), 31, 16  # 7 × 6 positions
SAMPLES, SIGMA, STEPS = 4, 0.15, 50
OF_MANY_GRADIENTS = ("integrated gradients", "SmoothGrad")
KEY = jax.random.key(0)

Maps = dict[str, Callable[[], Any]]


def compare(weights: str, shape: tuple[int, int, int] = SHAPE) -> dict[str, dict[str, float]]:
    """Errors by map, of ours in float64 and float32 and of Captum's in float32, from Captum's in float64."""
    net, params = nets(weights)
    images = np.random.default_rng(0).random((2, *shape), np.float32)
    with torch.no_grad():
        classes = net(_to_torch(images)).argmax(dim=1).numpy()
    errors: dict[str, dict[str, float]] = {}
    for precision in ("float64", "float32"):
        pixels = images.astype(precision)
        noise = noise_of(pixels, SAMPLES)
        exact = _made(maps_of_captum(net.double(), images.astype("float64"), classes, noise.double()))
        found = {"ours": _made(maps_of_ours(forward(params, precision), jnp.asarray(pixels), classes))}
        if precision == "float32":
            found["Captum"] = _made(maps_of_captum(net.float(), pixels, classes, noise))
        for whose, maps in found.items():
            for name, expected in exact.items():
                errors.setdefault(name, {})[f"{whose} {precision}"] = _error(maps[name], expected)
    return errors


def nets(weights: str) -> tuple[torch.nn.Module, dict]:
    """torchvision's net, in evaluation, and its weights as our parameters."""
    torch.manual_seed(0)
    net = torchvision.models.squeezenet1_1(num_classes=1000, dropout=0.0).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.ReLU):
            module.inplace = False  # which Captum's hooks need
    if weights == "released":
        params = pretrained.load_squeezenet().params
        state = {}
        for path, leaf in flatten_dict(params).items():
            array = np.array(leaf)
            name = torch_name(path, rules("squeezenet", {}))
            state[name] = torch.from_numpy(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array)
        net.load_state_dict(state)
    return net, to_ours(net.state_dict()).params


def forward(params: dict, precision: str) -> Forward:
    """Our net with these parameters."""
    model = models.MODELS["squeezenet"](classes=1000, precision=precision)
    return Forward(model, {"params": jax.tree.map(lambda leaf: jnp.asarray(leaf, precision), params)})


def noise_of(pixels: np.ndarray, samples: int) -> torch.Tensor:
    """Our noise for every image and sample, as Captum orders them."""
    which = jnp.indices((len(pixels), samples)).reshape(2, -1)
    noise = np.asarray(normal_noise(KEY, *which, pixels.shape[1:], pixels.dtype))
    spread = np.ptp(pixels, axis=(1, 2, 3)).repeat(samples).reshape(-1, 1, 1, 1)
    return _to_torch((SIGMA * spread * noise).astype(pixels.dtype))


def maps_of_ours(net: Forward, images: jax.Array, classes: np.ndarray) -> Maps:
    """Our maps by name."""
    given = (net, images, classes)
    fill = images.mean(axis=(1, 2), keepdims=True)
    return {
        "gradient": partial(interpret.gradient, *given),
        "integrated gradients": partial(interpret.integrated_gradients, *given, steps=STEPS, baseline=0.25),
        "SmoothGrad": partial(interpret.smooth_grad, *given, key=KEY, samples=SAMPLES, sigma=SIGMA),
        "occlusion": partial(interpret.occlusion, *given, window=WINDOW, stride=STRIDE, fill=fill),
        "guided backprop": partial(interpret.guided_backprop, *given),
        "deconvnet": partial(interpret.deconvnet, *given),
    } | {f"Grad-CAM {layer}": partial(interpret.grad_cam, net, images, layer, classes) for layer in LAYERS}


def maps_of_captum(net: torch.nn.Module, pixels: np.ndarray, classes: np.ndarray, noise: torch.Tensor) -> Maps:
    """Captum's maps by the same names, in our order of axes."""
    images, target = _to_torch(pixels), torch.from_numpy(classes)
    fill = images.mean(dim=(2, 3), keepdim=True).expand_as(images)

    def smooth_grad() -> torch.Tensor:
        tunnel = attr.NoiseTunnel(attr.Saliency(net))
        with mock.patch("torch.normal", return_value=noise):
            return tunnel.attribute(images, target=target, nt_samples=SAMPLES, nt_type="smoothgrad", abs=False)

    def occlusion() -> torch.Tensor:
        window, stride = (3, WINDOW, WINDOW), (3, STRIDE, STRIDE)
        maps = attr.Occlusion(net).attribute(images, window, stride, fill, target, perturbations_per_eval=8)
        return maps[:, :1]  # all channels are hidden together

    def grad_cam(layer: str) -> torch.Tensor:
        heat = attr.LayerGradCam(net, net.get_submodule(LAYERS[layer])).attribute(
            images, target, relu_attributions=True
        )
        return functional.interpolate(heat, pixels.shape[1:3], mode="bilinear", align_corners=False)

    made: Maps = {
        "gradient": lambda: attr.Saliency(net).attribute(images, target, abs=False),
        "integrated gradients": lambda: attr.IntegratedGradients(net).attribute(
            images, 0.25, target, n_steps=STEPS, method="gausslegendre", internal_batch_size=16
        ),
        "SmoothGrad": smooth_grad,
        "occlusion": occlusion,
        "guided backprop": lambda: attr.GuidedBackprop(net).attribute(images, target),
        "deconvnet": lambda: attr.Deconvolution(net).attribute(images, target),
    } | {f"Grad-CAM {layer}": partial(grad_cam, layer) for layer in LAYERS}
    return {name: lambda make=make: make().detach().numpy().transpose(0, 2, 3, 1) for name, make in made.items()}


def speed(rounds: int, steps: int, batch: int = 4, side: int = 224) -> None:
    """Print Captum's time over ours, for a batch: the median of rounds in turn, the least and the greatest."""
    net, params = nets("released")
    ours = forward(params, "float32")
    pixels = np.random.default_rng(0).random((batch, side, side, 3), np.float32)
    images, theirs = jnp.asarray(pixels), _to_torch(pixels)
    classes = np.array(ours(images)["logits"].argmax(axis=1))
    target = torch.from_numpy(classes)
    window, stride = 48, 22  # 9 × 9 positions; a fifth and a tenth of the side, as far as both are the same
    fill = theirs.mean(dim=(2, 3), keepdim=True).expand_as(theirs)
    noisy = attr.NoiseTunnel(attr.Saliency(net))
    pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "occlusion": (
            partial(interpret.occlusion, ours, images, classes, window=window, stride=stride),
            lambda: attr.Occlusion(net).attribute(
                theirs, (3, window, window), (3, stride, stride), fill, target, perturbations_per_eval=8
            ),
        ),
        "integrated gradients": (
            partial(interpret.integrated_gradients, ours, images, classes, steps=steps),
            lambda: attr.IntegratedGradients(net).attribute(
                theirs, 0.0, target, n_steps=steps, method="gausslegendre", internal_batch_size=32
            ),
        ),
        "SmoothGrad": (
            partial(interpret.smooth_grad, ours, images, classes, key=KEY, samples=steps),
            lambda: noisy.attribute(
                theirs,
                target=target,
                nt_samples=steps,
                nt_samples_batch_size=8,
                nt_type="smoothgrad",
                stdevs=SIGMA,
                abs=False,
            ),
        ),
    }
    print(f"{batch} images of {side}×{side}; Captum's time over ours, {rounds} rounds in turn")
    for name, (mine, other) in pairs.items():
        compiling, _ = _seconds(mine), _seconds(other)
        taken = [(_seconds(mine), _seconds(other)) for _ in range(rounds)]
        ratios = sorted(other / mine for mine, other in taken)
        median = statistics.median(ratios)
        seconds = statistics.median(mine for mine, _ in taken)
        print(
            f"{name:<22} {median:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); ours {seconds:.1f} s, the first time"
            f" {compiling:.1f} s",
            flush=True,
        )


def _seconds(make: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(make())
    return time.perf_counter() - start


def _to_torch(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


def _made(maps: Maps) -> dict[str, np.ndarray]:
    return {name: np.asarray(make()) for name, make in maps.items()}


def _error(found: np.ndarray, exact: np.ndarray) -> float:
    assert found.shape == exact.shape
    assert np.abs(exact).max() > 0
    return float(np.abs(found - exact).max() / np.abs(exact).max())


def main(arguments: list[str]) -> int:
    """Print the table; 1 if a bound is passed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--speed", action="store_true", help="measure how fast, not whether they are the same")
    parser.add_argument("--rounds", type=int, default=5, help="of --speed")
    parser.add_argument("--steps", type=int, default=STEPS, help="of integrated gradients and SmoothGrad, at --speed")
    asked = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", module="captum")
    print(f"Captum {captum.__version__}, PyTorch {torch.__version__}, JAX {jax.__version__}")
    if asked.speed:
        speed(asked.rounds, asked.steps)
        return 0
    jax.config.update("jax_enable_x64", True)
    runs = ("ours float64", "ours float32", "Captum float32")
    print(f"{'weights':<9} {'map':<22} " + " ".join(f"{run:>14}" for run in runs))
    wrong = False
    for weights in WEIGHTS:
        for name, errors in compare(weights).items():
            bound = 5e-2 if name in OF_MANY_GRADIENTS else 1e-4
            passed = not (errors["ours float64"] <= 1e-7 and errors["ours float32"] <= bound)
            wrong |= passed
            numbers = " ".join(f"{errors[run]:>14.1e}" for run in runs)
            print(f"{weights:<9} {name:<22} {numbers}{'  too far' * passed}", flush=True)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
