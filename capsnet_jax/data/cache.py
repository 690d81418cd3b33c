"""Decoded arrays on disk, so that only the first load of a set pays for decoding its images."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from capsnet_jax.data.dataset import Examples, Source

_FORMAT = 1  # raise it whenever what is written below changes: older files are then rebuilt


def default_dir() -> Path:
    """The folder of the cache: `CAPSNET_JAX_CACHE`, else `capsnet_jax` in `XDG_CACHE_HOME` or `~/.cache`."""
    if chosen := os.environ.get("CAPSNET_JAX_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "capsnet_jax"


def cached(path: Path, identity: dict[str, str], build: Callable[[], Source]) -> Source:
    """Reads a source from the cache, or builds it and leaves it there.

    Args:
        path: the file. One that is damaged, or that was written for another identity, is built again.
        identity: whatever the arrays depend on: which dataset, version and features, and the state of its
            files.
        build: makes the source, slowly.

    Returns:
        What `build` returns, or returned when the file was written.
    """
    stamp = json.dumps({"format": _FORMAT, **identity}, sort_keys=True)
    source = _read(path, stamp)
    if source is None:
        source = build()
        _write(path, stamp, source)
    return source


def _read(path: Path, stamp: str) -> Source | None:
    """Returns the source in the file, or None if there is none that can be trusted."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            # Reading an array checks its bytes only if its header asks for all of them, and the header may be
            # what is damaged: so compare the checksums of everything first.
            if arrays.zip.testzip() is not None or arrays["stamp"].item() != stamp:
                return None
            return Source(
                tuple(arrays["label_names"].tolist()),
                train=Examples(arrays["train_images"], arrays["train_labels"]),
                test=Examples(arrays["test_images"], arrays["test_labels"]),
            )
    except Exception:  # there is no end to what a damaged file can raise; the answer is always to build it again
        return None


def _write(path: Path, stamp: str, source: Source) -> None:
    """Writes the file in one step, so that nobody ever reads half of one; a warning if that is impossible."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("wb") as file:
                np.savez(
                    file,
                    stamp=np.array(stamp),
                    label_names=np.array(source.label_names),
                    train_images=np.asarray(source.train.images),
                    train_labels=np.asarray(source.train.labels),
                    test_images=np.asarray(source.test.images),
                    test_labels=np.asarray(source.test.labels),
                )
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        print(f"warning: decoded images are not cached, set CAPSNET_JAX_CACHE: {error}", file=sys.stderr)
