"""Decoded arrays on disk, so that only the first load of a set decodes its images."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from capsnet_jax.data.arrays import Examples, RawDataset

_FORMAT = 1  # raise it whenever the layout of the file changes: older files are then rebuilt


def default_dir() -> Path:
    """Return the folder of the cache: `CAPSNET_JAX_CACHE`, else `capsnet_jax` in `XDG_CACHE_HOME` or `~/.cache`."""
    if folder := os.environ.get("CAPSNET_JAX_CACHE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "capsnet_jax"


def cached(path: Path, identity: dict[str, str], build: Callable[[], RawDataset]) -> RawDataset:
    """Read a raw dataset from the cache, or build it and write it there.

    Args:
        path: the file. If it is damaged, or was written for another identity, it is built again.
        identity: everything that the arrays depend on: which dataset, version and features, and the state of its
            files.
        build: makes the raw dataset, slowly.

    Returns:
        What `build` returns, or returned when the file was written.
    """
    stamp = json.dumps({"format": _FORMAT, **identity}, sort_keys=True)
    raw = _read(path, stamp)
    if raw is None:
        raw = build()
        _write(path, stamp, raw)
    return raw


def _read(path: Path, stamp: str) -> RawDataset | None:
    """Return the raw dataset in the file, or None if there is none that can be trusted."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            # NumPy compares an array's checksum only if it reads all of its bytes, which a damaged header may
            # prevent. So compare all checksums first.
            if arrays.zip.testzip() is not None or arrays["stamp"].item() != stamp:
                return None
            return RawDataset(
                tuple(arrays["label_names"].tolist()),
                train=Examples(arrays["train_images"], arrays["train_labels"]),
                test=Examples(arrays["test_images"], arrays["test_labels"]),
            )
    except Exception:  # a damaged file can raise anything, and the answer is always to build it again
        return None


def _write(path: Path, stamp: str, raw: RawDataset) -> None:
    """Write the file in one step, so that nobody reads an incomplete one. Print a warning if that is impossible."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("wb") as file:
                np.savez(
                    file,
                    stamp=np.array(stamp),
                    label_names=np.array(raw.label_names),
                    train_images=np.asarray(raw.train.images),
                    train_labels=np.asarray(raw.train.labels),
                    test_images=np.asarray(raw.test.images),
                    test_labels=np.asarray(raw.test.labels),
                )
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        print(f"warning: decoded images are not cached, set CAPSNET_JAX_CACHE: {error}", file=sys.stderr)
