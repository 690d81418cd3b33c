"""What a reader sees in place of a setting's path or a metric's name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from capsnet_jax.routing import matters

_NAMES = {
    "data.dataset": "data set",
    "model.name": "model",
    "routing.name": "routing",
    "routing.iterations": "routing iterations r",
    "routing.gradient": "gradient",
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
}

# None: what everyone expects, and need not be said.
_VALUES: dict[tuple[str, object], str | None] = {
    ("routing.gradient", "full"): "full gradient",
    ("routing.gradient", "stop"): "inner gradient stopped",
    ("routing.softmax_over", "parents"): "softmax over parents",
    ("routing.softmax_over", "inputs"): "softmax over inputs (wrong)",
    ("loss.reconstruction", True): "with reconstruction",
    ("loss.reconstruction", False): "without reconstruction",
    ("loss.form", "paper"): "paper's loss",
    ("loss.form", "official"): "released code's loss",
    ("data.variant", "none"): None,
    ("transfer.source", "none"): None,
    ("train.frozen", "none"): None,
    ("train.frozen", "digit"): "W frozen at random",
    ("train.frozen", "conv1+primary+digit"): "all but the decoder frozen",
}


def label(path: str) -> str:
    """Returns the words, with the unit, for a setting's path or a metric's name.

    A path that has no entry gives its last part: `model.primary_channels` → `primary channels`.
    """
    return _NAMES.get(path, path.rpartition(".")[2].replace("_", " "))


def dataset_label(name: object) -> str:
    """Returns a data set's name as it is printed: `fashion_mnist` → `Fashion-MNIST`."""
    return _DATASETS.get(str(name), str(name))


def setting_label(by: Sequence[str], values: Sequence[object]) -> str:
    """Returns one setting in words: `dynamic routing, r = 3`; a value of None is passed over."""
    setting = {path: value for path, value in zip(by, values, strict=True) if value is not None}
    setting = {path: value for path, value in setting.items() if matters(path, setting)}
    if setting.get("routing.iterations") == 1:  # there is no inner iteration
        setting.pop("routing.gradient", None)
    parts = [_value_label(path, value) for path, value in setting.items()]
    return ", ".join(part for part in parts if part) or "all runs"


def seeds_label(counts: Iterable[int]) -> str:
    """Returns `n = 5 seeds`, or `n = 3 to 5 seeds` where the groups differ."""
    low, high = min(counts := list(counts)), max(counts)
    if low != high:
        return f"n = {low} to {high} seeds"
    return f"n = {low} seed" if low == 1 else f"n = {low} seeds"


def interval_label(counts: Iterable[int], level: float, mark: str) -> str:
    """Returns what `mark` (`band`, `bar`) means in a caption: a t interval, or none with one seed."""
    if max(counts) < 2:
        return f"one seed has no interval, so no {mark}"
    return f"{mark}: {100 * level:g}% Student t interval of the mean"


def _value_label(path: str, value: object) -> str | None:
    if (path, value) in _VALUES:
        return _VALUES[path, value]
    if path == "data.dataset":
        return dataset_label(value)
    if path == "routing.iterations":
        return f"r = {value}"
    if path == "routing.name":
        return f"{value} routing".replace("_", " ")
    if path == "model.name":
        return str(value)
    if isinstance(value, str):
        return f"{label(path)} {value}"
    return f"{label(path)} = {value}"
