"""A data set as its publisher splits it, by its entry's loader or else through tfds."""

import os
from typing import Any

from capsnet_jax.data.arrays import DataError, RawDataset, note
from capsnet_jax.data.names import entry_of, path_of
from capsnet_jax.data.registry import Loader
from capsnet_jax.signatures import asked_for, takes

IMAGE_SIZE = 28  # pixels of each side of a folder's pictures, if nothing else is said


def fingerprint(name: str) -> str:
    """Return a digest of the user's own files that a set is read from; "" of a set that is always the same.

    Raises:
        DataError: they cannot be read.
    """
    entry = entry_of(name)
    if entry is None or not isinstance(entry.load, Loader):
        return ""
    digest_files = getattr(entry.load.imported, "fingerprint", None)
    return digest_files(**asked_for(digest_files, {"path": path_of(name)})) if digest_files else ""


def made_by(name: str) -> tuple[str, ...]:
    """Return the files of this folder whose code makes a set's arrays, as far as its loader says so."""
    entry = entry_of(name)
    return getattr(entry.load.imported, "MADE_BY", ()) if entry and isinstance(entry.load, Loader) else ()


def load_raw(
    name: str,
    label_key: str | None,
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    image_size: int = IMAGE_SIZE,
    validation_fraction: float = 0.0,
) -> RawDataset:
    """Load a set by its entry's loader, or else through tfds."""
    entry = entry_of(name)
    if entry is None or entry.load is None:
        from capsnet_jax.data.tfds import source

        label_key = label_key or (entry.label_key if entry else None)
        raw = source.load(name, label_key, data_dir=data_dir, cache_dir=cache_dir)
    elif label_key is not None:
        raise DataError(f"{name} has one label feature: leave out label_key={label_key!r}")
    else:
        folders: dict[str, Any] = {"data_dir": data_dir, "cache_dir": cache_dir}
        arguments = folders | {"path": path_of(name), "image_size": image_size}
        arguments["validation_fraction"] = validation_fraction
        asked = entry.load.function if isinstance(entry.load, Loader) else entry.load
        if entry.base is not None and takes(asked, "base"):
            arguments["base"] = load_raw(entry.base, None, **folders)
        raw = entry.load(**asked_for(asked, arguments))
        if not isinstance(raw, RawDataset):
            raise DataError(f"{name}: its loader returned a {type(raw).__name__}; it must return a RawDataset")
    raw.check(name)
    for line in raw.notes:
        note(line)
    return raw
