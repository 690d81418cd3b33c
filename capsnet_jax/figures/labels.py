"""What a reader sees in place of a setting's path or a metric's name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from capsnet_jax.data import short_name, slug
from capsnet_jax.overrides import format_value
from capsnet_jax.statistics import PERCENT

MODEL, ITERATIONS, GRADIENT = "model.name", "routing.iterations", "routing.gradient"

_NAMES = {
    "data.dataset": "data set",
    MODEL: "model",
    "routing.name": "routing",
    ITERATIONS: "routing iterations r",
    GRADIENT: "gradient",
    "routing.temperature": "temperature of the softmax",
    "model.weight_scale": "σ that W starts from",
    "loss.reconstruction_weight": "reconstruction weight",
    "train.epochs": "epochs",
    "train.batch_size": "batch size",
    "train.learning_rate": "learning rate",
    "epoch": "epoch",
    "test_error": "test error [%]",
    "validation_error": "validation error [%]",
    "test_top5_error": "top-5 test error [%]",
    "validation_top5_error": "top-5 validation error [%]",
    "train_error": "training error [%]",
    "test_error_at_stop": "test error at equal training error [%]",
    "test_coupling_entropy": "entropy of the couplings",
    "test_coupling_variation": "variation of the couplings between images",
    "train_loss": "training loss",
    "train_classification_loss": "training classification loss",
    "train_reconstruction_mse": "training reconstruction error [mean square]",
    "validation_loss": "validation loss",
    "seconds": "time [s]",
    "images_per_second": "throughput [images / s]",
}

_DATASETS = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "kmnist": "KMNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "svhn_cropped": "SVHN",
    "smallnorb": "smallNORB",
    "smallnorb_azimuth": "smallNORB by azimuth",
    "smallnorb_elevation": "smallNORB by elevation",
    "multi_mnist": "MultiMNIST",
    "multi_fashion": "MultiFashion",
    "affnist": "affNIST",
    "babi_1": "bAbI, one fact",
    "babi_2": "bAbI, two facts",
    "babi_3": "bAbI, three facts",
}

# Parts of the names of metrics in percent.
_PERCENTAGES = ("error", "flips", "dead_", "starved_")
_NEVER_NEGATIVE = ("loss", "mse", "seconds", "per_second", "change")

# None: what everyone expects, and need not be said.
_VALUES: dict[tuple[str, object], str | None] = {
    (GRADIENT, "full"): "full gradient",
    (GRADIENT, "stop"): "inner gradient stopped",
    ("routing.softmax_over", "parents"): "softmax over parents",
    ("routing.softmax_over", "inputs"): "softmax over inputs (wrong)",
    ("loss.reconstruction", True): "with reconstruction",
    ("loss.reconstruction", False): "without reconstruction",
    ("routing.leaky", True): "leaky",
    ("routing.leaky", False): None,
    ("routing.bias", True): "with bias",
    ("routing.bias", False): None,
    ("routing.squash", "layer_norm"): "layer norm, no squash",
    ("model.share_weights", True): "W shared",
    ("model.share_weights", False): None,
    ("loss.name", "margin"): "margin loss",
    ("loss.name", "cross_entropy"): "cross-entropy",
    ("loss.name", "spread"): "spread loss",
    ("loss.form", "paper"): "paper's loss",
    ("loss.form", "official"): "released code's loss",
    ("model.divide_primary", True): "primary ÷ types",
    ("model.divide_primary", False): None,
    ("model.questions", "one"): None,
    ("model.questions", "answers"): "each answer asks",
    ("model.softmax_over", "memories"): None,
    ("model.softmax_over", "answers"): "shares over answers",
    ("model.start", "released"): "released code's start",
    ("model.start", "he"): None,
    ("data.shift_order", "in_turn"): "shifts in turn",
    ("data.shift_order", "random"): None,
    ("data.transform", "none"): None,
    ("data.max_rotation", 0.0): None,
    ("train.ema_epochs", 0.0): None,
    ("finetune.source", "none"): None,
    ("train.frozen", "none"): None,
    ("train.frozen", "class_capsules"): "W frozen at random",
    ("train.frozen", "conv1+primary+class_capsules"): "all but the decoder frozen",
}

# Of all other values.
_PHRASES = {
    MODEL: "{}",
    ITERATIONS: "r = {}",
    "data.max_rotation": "turned by up to {}°",
    "train.ema_epochs": "mean over {} epochs",
}


def label(path: str) -> str:
    """Return the text, with the unit, for a setting's path or a metric's name.

    A path that has no entry gives its last part: `model.primary_channels` → `primary channels`.
    """
    return _NAMES.get(path, path.rpartition(".")[2].replace("_", " "))


def dataset_label(name: object) -> str:
    """Return a data set's name as it is printed: `fashion_mnist` → `Fashion-MNIST`."""
    return _DATASETS.get(str(name)) or short_name(str(name))


def dataset_slug(name: object) -> str:
    """Return a data set's name as part of a file's name: `a/b` → `a_b`."""
    return slug(str(name))


def possible_range(name: str) -> tuple[float, float]:
    """Return the least and the greatest value that a metric can have: 0 and 100 for a percentage."""
    if any(part in name for part in _PERCENTAGES):
        return PERCENT
    return (0.0, math.inf) if any(part in name for part in _NEVER_NEGATIVE) else (-math.inf, math.inf)


def setting_label(by: Sequence[str], values: Sequence[object]) -> str:
    """Return one setting as text: `dynamic routing, r = 3`.

    A value of None, which stands for a setting that a run does not have, is left out. A list, as records have it of a
    setting of several numbers, is told as it is typed; an object, which another version may have, as text.
    """
    told = [format_value(value) if isinstance(value, list | dict) else value for value in values]
    setting = {path: value for path, value in zip(by, told, strict=True) if value is not None}
    parts = [_value_label(path, value) for path, value in setting.items()]
    text = ", ".join(part for part in parts if part) or "all runs"
    return f" {text}" if text.startswith("_") else text  # matplotlib leaves such names out of legends


def seeds_label(counts: Iterable[int]) -> str:
    """Return `n = 5 seeds`, or `n = 3 to 5 seeds` where the groups differ."""
    low, high = min(counts := list(counts) or [0]), max(counts)
    if low != high:
        return f"n = {low} to {high} seeds"
    return f"n = {low} seed" if low == 1 else f"n = {low} seeds"


def interval_label(counts: Iterable[int], level: float, mark: str) -> str:
    """Return what `mark` (`band`, `bar`) means in a caption: a t interval, or none with one seed."""
    if (most := max(counts, default=0)) < 2:
        return "" if not most else f"one seed has no interval, so no {mark}"
    return f"{mark}: {100 * level:g}% Student t interval of the mean"


def listing(names: Sequence[str], most: int = 3) -> str:
    """Return `a; b`, or how many more there are: `a; b; c; and 4 more`."""
    return "; ".join([*names[:most], *([f"and {len(names) - most} more"] if len(names) > most else [])])


def left_out_label(missing: int, total: int) -> str:
    """Return how many runs have no mark; "" if all have one."""
    return f"{missing} of {total} runs left out: no finite value" if missing else ""


def _value_label(path: str, value: object) -> str | None:
    if (path, value) in _VALUES:
        return _VALUES[path, value]
    if path == "data.dataset":
        return dataset_label(value)
    if path in _PHRASES:
        return _PHRASES[path].format(value)
    if path == "routing.name":
        return f"{str(value).removesuffix('_routing')} routing".replace("_", " ")
    if isinstance(value, str):
        return f"{label(path)} {value}"
    return f"{label(path)} = {value}"
