"""Decoded arrays on disk, so that only the first load of a set decodes its images."""

import contextlib
import glob
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from capsnet_jax.data.arrays import Examples, RawDataset

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_FORMAT = 2  # raise it whenever the layout of the file changes: older files are then rebuilt


def default_dir() -> Path:
    """Return the folder of the cache: `CAPSNET_JAX_CACHE`, else `capsnet_jax` in `XDG_CACHE_HOME` or `~/.cache`.

    Raises:
        FileNotFoundError: the folder is in the home directory, and there is none.
    """
    if folder := os.environ.get("CAPSNET_JAX_CACHE"):
        return expand_home(folder)
    return expand_home(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "capsnet_jax"


def prepared_dir(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of prepared sets: `data_dir`, else `TFDS_DATA_DIR`, else tfds's default.

    Raises:
        FileNotFoundError: the folder is in the home directory, and there is none.
    """
    return expand_home(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def expand_home(folder: str | os.PathLike[str]) -> Path:
    """Return a folder with its `~` replaced.

    Raises:
        FileNotFoundError: there is no such home directory.
    """
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:
        raise FileNotFoundError(f"{folder}: there is no such home directory") from error


def cached_in(
    cache_dir: str | os.PathLike[str] | None,
    name: str,
    identity: dict[str, str],
    build: Callable[[], RawDataset],
    made_by: Iterable[str],
) -> RawDataset:
    """As `cached`, of the file `name` in the folder `cache_dir`, else the default one; without a home, only build.

    The source files `made_by`, named below this folder, make the arrays: other code builds them again.
    """
    code = hashlib.sha256(b"".join((Path(__file__).parent / file).read_bytes() for file in made_by))
    identity = identity | {"code": code.hexdigest()[:12]}
    try:
        folder = expand_home(cache_dir) if cache_dir else default_dir()
    except FileNotFoundError as error:
        warn_uncached(error)
        return build()
    return cached(folder / name, identity, build)


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
            splits = {
                split: Examples(arrays[f"{split}_images"], arrays[f"{split}_labels"])
                for split in ("train", "validation", "test")
                if f"{split}_images" in arrays
            }
            notes = tuple(arrays["notes"].tolist()) if "notes" in arrays else ()
            return RawDataset(tuple(arrays["label_names"].tolist()), **splits, notes=notes)
    except Exception:  # a damaged file can raise anything, and the answer is always to build it again
        return None


def _write(path: Path, stamp: str, raw: RawDataset) -> None:
    """Write the file in one step, so that nobody reads an incomplete one. Print a warning if that is impossible."""
    arrays: dict[str, Any] = {"stamp": np.array(stamp), "label_names": np.array(raw.label_names)}
    arrays |= {"notes": np.array(raw.notes)} if raw.notes else {}
    for split, examples in raw.splits.items():
        arrays |= {f"{split}_{kind}": np.asarray(array) for kind, array in examples._asdict().items()}
    # Nobody else can have put a file or a link there: the name is random, and "x" creates a file or fails.
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(path)
        try:
            with unfinished.open("xb") as file:
                if fcntl is not None:
                    with contextlib.suppress(OSError):  # a file system without locks
                        fcntl.flock(file, fcntl.LOCK_EX)
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())
                os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        warn_uncached(error)


def fingerprint(files: Iterable[Path], root: Path) -> str:
    """Return a digest of files by their names below `root`, sizes and times; of links, those of what they lead to."""
    digest = hashlib.sha256()
    for file in sorted(files):
        status = file.stat()
        digest.update(
            f"{file.relative_to(root)} {status.st_size} {status.st_mtime_ns}\n".encode(errors="surrogateescape")
        )
    return digest.hexdigest()[:12]


def warn_uncached(error: OSError) -> None:
    """Say that the decoded images could not be kept, and go on."""
    print(f"warning: decoded images are not cached, set CAPSNET_JAX_CACHE: {error}", file=sys.stderr)


def _remove_unfinished(path: Path) -> None:
    """Remove what killed processes left. The kernel frees a process's lock when it ends, however that ends."""
    if fcntl is None:
        return
    for file in path.parent.glob(f"{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError), file.open("rb") as left:  # BlockingIOError: its process still writes it
            fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()
