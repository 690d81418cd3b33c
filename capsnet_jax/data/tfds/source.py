"""Any tfds image-classification set as arrays: prepared if necessary, decoded once, then cached."""

import contextlib
import difflib
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import gcs_utils

import capsnet_jax.data.tfds.decode as decode
import capsnet_jax.data.tfds.prepare as prepare
from capsnet_jax.data.arrays import DataError, RawDataset
from capsnet_jax.data.cache import cached_in, prepared_dir
from capsnet_jax.data.registry import DATASETS
from capsnet_jax.data.tfds.stand_in import tensorflow_stand_in
from capsnet_jax.data.tfds.trust import check_names, tfds_features_only

Builder = Any  # tfds.core.DatasetBuilder, which a type checker cannot see into

MADE_BY = ("tfds/decode.py", "split.py")  # the code that makes the arrays

# name, /config, :version. tfds takes more: namespaces, which run code from the network, and arguments.
_NAME = re.compile(r"[a-z][a-z0-9_]*(/[\w+-][\w.+-]*)?(:(\d+|\*)(\.(\d+|\*)){2})?", re.ASCII)


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Read a set without TensorFlow, without code of its files, and with one line for what the disk refuses."""
    try:
        with tensorflow_stand_in(), tfds_features_only():
            yield
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error}; mend that, or set TFDS_DATA_DIR to another folder") from error


def load(
    name: str,
    label_key: str | None,
    *,
    data_dir: str | os.PathLike[str] | None,
    cache_dir: str | os.PathLike[str] | None,
    variant: str = "",
    decode_fn: Callable[..., RawDataset] | None = None,
    made_by: tuple[str, ...] = MADE_BY,
) -> RawDataset:
    """Load the splits of a tfds set.

    Args:
        name: tfds name, with config and version if wanted: `emnist/letters`, `mnist:3.0.1`.
        label_key: the feature that is the label, or None for the only one.
        data_dir: as for `capsnet_jax.data.load`.
        cache_dir: as for `capsnet_jax.data.load`.
        variant: a name of what `decode_fn` makes, for the cache.
        decode_fn: (builder, image_key, label_key, splits) → what is made of the records, if not `decode.decode`.
        made_by: as of `cache.cached_in`.

    Raises:
        DataError: as for `capsnet_jax.data.load`.
    """
    with _reading(name):
        root = _root(data_dir)
        builder = _make_builder(name, root)
        image_key, label_key = decode.choose_keys(builder, label_key)
        if not prepare.is_prepared(builder):
            prepare.prepare(builder)
            builder = _make_builder(name, root)  # a builder sees only the files that were there when it was made
        splits = decode.choose_splits(builder)
        identity = {
            "name": builder.info.full_name,
            "image_key": image_key,
            "label_key": label_key,
            "files": _fingerprint(Path(builder.data_dir)),
        } | ({"variant": variant} if variant else {})

        def build() -> RawDataset:
            return (decode_fn or decode.decode)(builder, image_key, label_key, splits)

        file = f"{builder.info.full_name}/{quote(variant or label_key, safe='')}.npz"
        return cached_in(cache_dir, file, identity, build, made_by)


def describe(name: str, label_key: str | None) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """Return the shape of a tfds set's images and the names of its classes, as tfds declares them.

    A set that declares no shape has that of its first image, if it is prepared.

    Raises:
        DataError: as for `capsnet_jax.data.describe`.
    """
    with _reading(name):
        builder = _make_builder(name, _root(None))
        image_key, label_key = decode.choose_keys(builder, label_key)
        features = builder.info.features
        shape = features[image_key].shape
        if None in shape and prepare.is_prepared(builder):
            shape = decode.decode_split(builder, "train", image_key, label_key, limit=1).images.shape[1:]
        if None in shape:
            raise DataError(f"{name} does not say how large its images are; choose a set of images of one size")
        return shape, tuple(features[label_key].names)


def _root(data_dir: str | os.PathLike[str] | None) -> Path:
    """Return the folder of prepared sets, which may be missing.

    Raises:
        OSError: it is no folder, or cannot be read.
    """
    root = prepared_dir(data_dir)
    with contextlib.suppress(FileNotFoundError):
        next(os.scandir(root), None)
    return root


def _make_builder(name: str, root: Path) -> Builder:
    """Return tfds's builder of a set. Ask no cloud bucket: without a network that can hang."""
    gcs_utils._is_gcs_disabled = True
    try:
        if not _NAME.fullmatch(name):
            raise ValueError("this is no tfds name, which is `name`, `name/config` or `name/config:1.2.3`")
        builder = tfds.builder(name, data_dir=root, try_gcs=False)
    except Exception as error:  # tfds raises four kinds for a wrong name, config, version or namespace
        for cause in prepare.causes(error):
            if isinstance(cause, DataError):
                raise DataError(f"{name} in {root}: {cause}") from error
            if isinstance(cause, OSError):
                raise cause from error
        base, _, config = name.partition("/")
        base, known = base.partition(":")[0], tfds.list_builders(with_community_datasets=False)
        if base not in known and not (base.isidentifier() and (root / base).is_dir()):
            names = sorted({*DATASETS, *known})
            raise DataError(f"no dataset is named {name!r}; {_suggest(name, names, list(DATASETS))}") from error
        configs = [f"{base}/{c}" for c in tfds.builder_cls(base).builder_configs] if base in known else []
        if config and base in known and name not in configs:
            raise DataError(f"{base} has no config {config!r}; {_suggest(name, configs, configs[:8])}") from error
        problems = [str(cause) for cause in reversed(prepare.causes(error)) if " " in str(cause)]
        problem = (problems[0] if problems else repr(error)).strip().split("\n")[0].rstrip(".")
        if (root / base).is_dir():
            problem += f"; if {root / base} is damaged or incomplete, delete it and load again"
        raise DataError(f"{name}: {problem}") from error
    check_names(builder, f"{name} in {root}")
    return builder


def _suggest(name: str, names: Iterable[str], default: list[str]) -> str:
    """Suggest names that may have been meant: those that differ in case and marks only, else the nearest ones."""
    by_letters: dict[str, list[str]] = {}
    for known in names:
        by_letters.setdefault(_letters(known), []).append(known)
    letters = _letters(name)
    nearest = by_letters.get(letters) or [
        known for key in difflib.get_close_matches(letters, by_letters, n=3, cutoff=0.5) for known in by_letters[key]
    ]
    if nearest:
        return f"did you mean {' or '.join(nearest)}?"
    return f"choose one of {', '.join(default)}" if default else "it has none"


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _fingerprint(folder: Path) -> str:
    """Return a checksum of a prepared set: of its metadata and its files' names, sizes and times."""
    crc = 0
    for file in sorted(folder.iterdir()):
        status = file.stat()
        crc = zlib.crc32(f"{file.name} {status.st_size} {status.st_mtime_ns}".encode(), crc)
        if file.suffix == ".json":
            crc = zlib.crc32(file.read_bytes(), crc)
    return f"{crc:08x}"
