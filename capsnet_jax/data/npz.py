"""Arrays of the user's own in an .npz file: `images` and `labels`, or `x_train` and `y_train` as Keras names them."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from capsnet_jax.data import cache
from capsnet_jax.data.arrays import DataError, Examples, RawDataset
from capsnet_jax.data.split import TEST_FRACTION, train_and_test

# Of each split: the names of its images and labels.
NAMES = {
    "train": (("images", "labels"), ("train_images", "train_labels"), ("x_train", "y_train")),
    "validation": (("validation_images", "validation_labels"), ("x_val", "y_val")),
    "test": (("test_images", "test_labels"), ("x_test", "y_test")),
}


def load(path: str) -> RawDataset:
    """Read the arrays of an .npz file.

    Images are uint8 or floats in [0, 1], [n, height, width] or [n, height, width, channels]; labels whole numbers or
    texts, one an image. The classes are the labels of train, sorted. Without a test split it is a fifth of each class.

    Raises:
        DataError: there is no such file, or its arrays are others.
    """
    where = f"npz:{path}"
    arrays = _read(path)
    chosen = {split: next((p for p in pairs if {*p} <= arrays.keys()), None) for split, pairs in NAMES.items()}
    if chosen["train"] is None:
        names = ", ".join(arrays) or "no arrays"
        raise DataError(f"{where} holds {names}; it needs images and labels, or x_train and y_train")
    parts: dict[str, Any] = {}
    for split, pair in chosen.items():
        if pair is not None:
            images, labels = (arrays[name] for name in pair)
            parts[split] = _images(images, f"{where}: {pair[0]}"), _labels(labels, len(images), f"{where}: {pair[1]}")
    classes = np.unique(parts["train"][1])
    if len(classes) < 2:
        raise DataError(f"{where}: all labels are {classes[0]}; there must be two classes at least")
    examples: dict[str, Any] = {}
    for split, (images, labels) in parts.items():
        if labels.dtype.kind != classes.dtype.kind or (unknown := np.setdiff1d(labels, classes)).size:
            value = labels[0] if labels.dtype.kind != classes.dtype.kind else unknown[0]
            raise DataError(f"{where}: {split} has the label {value!s}, which train has not; leave its images out")
        examples[split] = Examples(images, np.searchsorted(classes, labels).astype(np.int32))
    notes: tuple[str, ...] = ()
    if "test" not in examples:
        notes = (f"{where} has no test split: {TEST_FRACTION:.0%} of each class are test",)
        examples["train"], examples["test"] = train_and_test(examples["train"], name=where)
    return RawDataset(tuple(str(label) for label in classes), **examples, notes=notes)


def fingerprint(path: str) -> str:
    """Return a digest of the file's size and time.

    Raises:
        DataError: there is no such file.
    """
    _check_file(path)
    return cache.fingerprint([Path(path)], Path(path).parent)


def _check_file(path: str) -> None:
    if not Path(path).is_file():
        raise DataError(f"npz:{path}: there is no such file; name one that numpy.savez wrote")


def _read(path: str) -> dict[str, np.ndarray]:
    """Return all arrays of a file that have a known name."""
    _check_file(path)
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no .npz file")
        with np.load(path, allow_pickle=False) as file:
            known = {name for pairs in NAMES.values() for pair in pairs for name in pair}
            return {name: file[name] if name in known else np.empty(0) for name in file.files}
    except Exception as error:  # a damaged file can raise anything, and so does one of objects
        reason = " ".join(str(error).split())
        raise DataError(
            f"npz:{path} cannot be read ({reason}); write it by numpy.savez, of numbers and texts only"
        ) from error


def _images(images: np.ndarray, where: str) -> np.ndarray:
    """Return images as uint8[n, height, width, channels]."""
    if images.ndim not in (3, 4) or not images.size:
        raise DataError(f"{where} is {list(images.shape)}; give [n, height, width] or [n, height, width, channels]")
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype.kind in "biu" and (images.dtype != np.uint8 or images.max() == 1):  # bytes of 0 and 1 are black
        raise DataError(f"{where} is of {images.dtype}, from {images.min()} to {images.max()}; {_remedy(images)}")
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise DataError(f"{where} is of {images.dtype}; give bytes, or floats from 0 to 1")
    if not (images.min() >= 0 and images.max() <= 1):
        raise DataError(f"{where} goes from {images.min():g} to {images.max():g}; give floats from 0 to 1, or bytes")
    return np.round(255 * images).astype(np.uint8)


def _remedy(images: np.ndarray) -> str:
    """Say how truth values or whole numbers become floats from 0 to 1, or bytes."""
    if images.min() < 0:
        return "give floats, 0 for black and 1 for white"
    if images.max() <= 1:
        return "give floats by .astype(numpy.float32)"
    if images.max() <= 255:
        return "give bytes by .astype(numpy.uint8)"
    return "give floats, by dividing by the number of white (65535 in 16 bits)"


def _labels(labels: np.ndarray, count: int, where: str) -> np.ndarray:
    """Return labels as an array of whole numbers or texts, one an image."""
    if labels.ndim == 2 and labels.shape[1] == 1:  # as Keras has those of CIFAR-10
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iuUS":
        raise DataError(f"{where} is {labels.dtype}{list(labels.shape)}; give one whole number or text for each image")
    if len(labels) != count:
        raise DataError(f"{where} has {len(labels)} labels for {count} images; give one for each")
    return (
        np.char.decode(labels)
        if labels.dtype.kind == "S"
        else labels.astype(np.int64)
        if labels.dtype.kind in "iu"
        else labels
    )
