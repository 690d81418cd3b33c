"""Any tfds image-classification set as arrays: prepared if necessary, decoded once, then cached."""

import difflib
import os
import zlib
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import constants
from tensorflow_datasets.core.utils import gcs_utils

import capsnet_jax.data.tfds.decode as decode
import capsnet_jax.data.tfds.prepare as prepare
from capsnet_jax.data.arrays import DataError, RawDataset
from capsnet_jax.data.cache import cached, default_dir
from capsnet_jax.data.registry import DATASETS
from capsnet_jax.data.tfds.stand_in import tensorflow_stand_in

Builder = Any  # tfds.core.DatasetBuilder, which a type checker cannot see into


@tensorflow_stand_in()
def load(
    name: str,
    label_key: str | None,
    *,
    data_dir: str | os.PathLike[str] | None,
    cache_dir: str | os.PathLike[str] | None,
) -> RawDataset:
    """Load a tfds set's train and test splits.

    Args:
        name: tfds name, with config and version if wanted: `emnist/letters`, `mnist:3.0.1`.
        label_key: the feature that is the label, or None for the only one.
        data_dir: as for `capsnet_jax.data.load`.
        cache_dir: as for `capsnet_jax.data.load`.

    Raises:
        DataError: as for `capsnet_jax.data.load`.
    """
    root = _root(data_dir)
    builder = _make_builder(name, root)
    image_key, label_key = decode.choose_keys(builder, label_key)
    if not prepare.is_prepared(builder):
        prepare.prepare(builder)
        builder = _make_builder(name, root)  # a builder sees only the files that were there when it was made
    decode.check_splits(builder)
    cache = Path(cache_dir).expanduser() if cache_dir else default_dir()
    return cached(
        cache / builder.info.full_name / f"{label_key}.npz",
        {
            "name": builder.info.full_name,
            "image_key": image_key,
            "label_key": label_key,
            "files": _fingerprint(Path(builder.data_dir)),
        },
        lambda: decode.decode(builder, image_key, label_key),
    )


@tensorflow_stand_in()
def describe(name: str, label_key: str | None) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """Return the shape of a tfds set's images and the names of its classes, as tfds declares them.

    Raises:
        DataError: as for `capsnet_jax.data.describe`.
    """
    builder = _make_builder(name, _root(None))
    image_key, label_key = decode.choose_keys(builder, label_key)
    features = builder.info.features
    height, width, channels = features[image_key].shape
    if height is None or width is None:
        raise DataError(f"{name} does not say how large its images are; choose a set of images of one size")
    return (height, width, channels), tuple(features[label_key].names)


def _root(data_dir: str | os.PathLike[str] | None) -> Path:
    """Return the folder of prepared sets."""
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or constants.DATA_DIR).expanduser()


def _make_builder(name: str, root: Path) -> Builder:
    """Return tfds's builder of a set. Ask no cloud bucket: without a network that can hang."""
    gcs_utils._is_gcs_disabled = True
    try:
        return tfds.builder(name, data_dir=root, try_gcs=False)
    except Exception as error:  # tfds raises four kinds for a wrong name, config, version or namespace
        base, _, config = name.partition("/")
        names = sorted({*DATASETS, *tfds.list_builders(with_community_datasets=False)})
        if base.partition(":")[0] not in names:
            raise DataError(f"no dataset is named {name!r}; {_suggest(base, names)}") from error
        configs = [f"{base}/{c}" for c in tfds.builder_cls(base.partition(":")[0]).builder_configs]
        if config and name not in configs:
            raise DataError(f"{base} has no config {config!r}; {_suggest(name, configs)}") from error
        raise DataError(f"{name}: {error}") from error


def _suggest(name: str, names: list[str]) -> str:
    """Suggest names that may have been meant."""
    nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or names[:8]
    return f"did you mean {' or '.join(nearest)}?" if nearest else "it has none"


def _fingerprint(folder: Path) -> str:
    """Return a checksum of a prepared set: of its metadata and its files' names, sizes and times."""
    crc = 0
    for file in sorted(folder.iterdir()):
        status = file.stat()
        crc = zlib.crc32(f"{file.name} {status.st_size} {status.st_mtime_ns}".encode(), crc)
        if file.suffix == ".json":
            crc = zlib.crc32(file.read_bytes(), crc)
    return f"{crc:08x}"
