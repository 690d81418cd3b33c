"""What a reader sees in place of a setting's path or a metric's name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_NAMES = {
    "data.dataset": "data set",
    "model.name": "model",
    "routing.name": "routing",
    "routing.iterations": "routing iterations r",
    "routing.gradient": "gradient",
    "train.epochs": "epochs",
    "train.batch_size": "batch size",
    "train.learning_rate": "learning rate",
    "epoch": "epoch",
    "test_error": "test error [%]",
    "validation_error": "validation error [%]",
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

_VALUES = {
    ("routing.gradient", "full"): "full gradient",
    ("routing.gradient", "stop"): "inner gradient stopped",
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
    parts = [_value_label(path, value) for path, value in zip(by, values, strict=True) if value is not None]
    return ", ".join(parts) or "all runs"


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


def _value_label(path: str, value: object) -> str:
    if path == "data.dataset":
        return dataset_label(value)
    if path == "routing.iterations":
        return f"r = {value}"
    if path == "routing.name":
        return f"{value} routing".replace("_", " ")
    if path == "model.name":
        return str(value)
    if isinstance(value, str):
        return _VALUES.get((path, value)) or f"{label(path)} {value}"
    return f"{label(path)} = {value}"
