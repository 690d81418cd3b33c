"""The MNIST family (MNIST, Fashion-, K-, EMNIST): original files → tfds examples, without TensorFlow.

tfds's builders of these sets unpack the files and encode the images with TensorFlow. This module replaces those two
steps. tfds does the rest: download, checksums, shuffling, record files, metadata.
"""

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from tensorflow_datasets.image_classification import mnist

from capsnet_jax.data.arrays import DataError
from capsnet_jax.data.tfds.idx import parse_idx

Builder = Any  # tfds.core.DatasetBuilder, which a type checker cannot see into
Reader = Callable[[str, str], np.ndarray]

# tfds's names of the splits → the beginnings of the files' names
_SPLITS = {"train": "train", "test": "t10k"}


def is_member(builder: Builder) -> bool:
    """Return whether a set is one of the family."""
    return isinstance(builder, mnist.MNIST)


def split_generators(builder: Builder, downloads: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
    """Replace the builder's `_split_generators`.

    Args:
        builder: one of the family.
        downloads: tfds's download manager, which fetches the files and compares their checksums.

    Returns:
        The examples of each split. Their keys are those that tfds's builder gives them, so the order on disk is the
        same.

    Raises:
        DataError: a file is damaged, or does not fit the others.
    """
    reader = _emnist_reader if isinstance(builder, mnist.EMNIST) else _mnist_reader
    read = reader(builder, downloads)
    return {split: _examples(builder, read(split, "images-idx3"), read(split, "labels-idx1")) for split in _SPLITS}


def _mnist_reader(builder: Builder, downloads: Any) -> Reader:
    """Return a function of (split, kind) that reads one of the four files."""
    kinds = ("images-idx3", "labels-idx1")
    names = {(s, k): f"{stem}-{k}-ubyte.gz" for s, stem in _SPLITS.items() for k in kinds}
    paths = downloads.download({"/".join(key): urljoin(builder.URL, name) for key, name in names.items()})

    def read(split: str, kind: str) -> np.ndarray:
        return parse_idx(Path(paths[f"{split}/{kind}"]).read_bytes(), f"{builder.name}'s {names[split, kind]}")

    return read


def _emnist_reader(builder: Builder, downloads: Any) -> Reader:
    """Return a function of (split, kind) that reads a file of the one archive that holds all configs."""
    path = downloads.download(builder.URL)

    def read(split: str, kind: str) -> np.ndarray:
        member = f"gzip/emnist-{builder.builder_config.name}-{split}-{kind}-ubyte.gz"
        try:
            with zipfile.ZipFile(path) as archive:
                return parse_idx(archive.read(member), member)
        except (zipfile.BadZipFile, KeyError) as error:
            raise DataError(f"emnist: cannot read {member} in {path} ({error}); delete it and load again") from error

    return read


def _examples(
    builder: Builder, images: UInt8[np.ndarray, "..."], labels: UInt8[np.ndarray, "..."]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (key, example) of every image, encoded as PNG."""
    features = builder.info.features
    if images.shape != (len(labels), *features["image"].shape[:2]) or labels.ndim != 1:
        raise DataError(f"{builder.name}: images {images.shape} and labels {labels.shape} do not belong together")
    if labels.max(initial=0) >= features["label"].num_classes:
        raise DataError(f"{builder.name}: label {labels.max()} is not one of {features['label'].num_classes} classes")
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        encoded = io.BytesIO()
        Image.fromarray(image).save(encoded, format="PNG")
        yield index, {"image": encoded.getvalue(), "label": int(label)}
