"""Checkpoints: save, restore, resume to the bit.

A checkpoint is one safetensors file, `12.safetensors` for step 12, that is written under a hidden name, flushed to the
disk and renamed. One file was chosen over Orbax's folders because a rename makes it visible whole or not at all, errors
surface in the call that caused them, and anyone can read it without this project. A digest in its header tells damage.
"""

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import PyTree

from capsnet_jax.sweeps.files import write_bytes

log = logging.getLogger(__name__)


class CheckpointError(Exception):
    """A checkpoint could not be saved, or is not one of what was asked for; the message names the remedy."""


class Restored(NamedTuple):
    """What `restore` found: the step, the state of that step, and the metrics of every epoch up to it."""

    step: int
    state: PyTree
    history: list[dict[str, Any]]


class _DamagedError(Exception):
    """A file is not what was saved."""


def save(folder: Path, step: int, state: PyTree, history: list[dict[str, Any]], *, keep: int = 2) -> None:
    """Save one step; return when it is on the disk.

    Afterwards the newest `keep` steps remain. Steps above this one are removed too: `restore` passed them over as
    damaged, or the run would not be here.

    Args:
        folder: holds the checkpoints of runs that are trained together, and nothing else; made where missing.
        step: at least 0.
        state: pytree of arrays. Random keys as their `jax.random.key_data`.
        history: JSON-able; floats, non-finite ones included, come back equal to the bit.
        keep: how many steps remain, at least 1.

    Raises:
        CheckpointError: nothing was saved; the checkpoints before this one are as they were.
    """
    _write(_file(folder, step), state, history)
    older = [s for s in _steps(folder) if s <= step][keep:]
    newer = [s for s in _steps(folder) if s > step]
    for s in older + newer:
        _file(folder, s).unlink(missing_ok=True)


def restore(folder: Path, like: PyTree) -> Restored | None:
    """Restore the newest checkpoint that is whole.

    One that is damaged is passed over with a warning, and the one before it is used.

    Args:
        folder: as given to `save`; need not exist.
        like: pytree of arrays or `jax.ShapeDtypeStruct`; its structure is the structure of the result.

    Returns:
        The checkpoint, its arrays on the default device; None where there is none.

    Raises:
        CheckpointError: the checkpoint is whole, but of another tree, shape or dtype than `like`.
    """
    for step in _steps(folder):
        path = _file(folder, step)
        try:
            return Restored(step, *_read(path, like))
        except _DamagedError as damage:
            log.warning("checkpoint %s is damaged (%s): passed over", path, damage)
    return None


def save_params(path: Path, params: PyTree, stats: PyTree) -> None:
    """Save a finished run's parameters and batch-norm statistics as one file; replace an older one.

    Raises:
        CheckpointError: they could not be saved.
    """
    _write(path, {"params": params, "stats": stats}, [])


def load_params(path: Path, like: PyTree, like_stats: PyTree) -> tuple[PyTree, PyTree]:
    """Load what `save_params` saved, with the structures of `like` and `like_stats`.

    Raises:
        CheckpointError: they are missing, damaged, or of another tree, shape or dtype.
    """
    try:
        saved, _ = _read(path, {"params": like, "stats": like_stats})
    except _DamagedError as damage:
        raise CheckpointError(f"{path} holds no whole parameters ({damage}): train the run again, by --rerun") from None
    return saved["params"], saved["stats"]


def _file(folder: Path, step: int) -> Path:
    return folder / f"{step}.safetensors"


def _steps(folder: Path) -> list[int]:
    """Return the steps that are visible in a folder, newest first."""
    stems = (path.stem for path in folder.glob("*.safetensors"))
    return sorted((int(stem) for stem in stems if stem.isdecimal()), reverse=True)


def _leaves(tree: PyTree) -> dict[str, Any]:
    """Return the leaves of a tree by their path, such as `params/conv1/kernel`, in the order of the tree."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}


def _describe(leaf: Any) -> str:
    """Return dtype and shape of a leaf, such as `float32[9, 9, 1, 256]`."""
    return f"{leaf.dtype}{list(leaf.shape)}"


def _digest(leaves: dict[str, np.ndarray], history: str) -> str:
    """Return a digest of names, types, shapes and contents."""
    digest = hashlib.blake2b(history.encode(), digest_size=16)
    for name, leaf in sorted(leaves.items()):
        digest.update(f"{name} {_describe(leaf)}".encode())
        digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _write(path: Path, tree: PyTree, history: list[dict[str, Any]]) -> None:
    """Write a tree as one file, whole or not at all."""
    leaves = {name: np.ascontiguousarray(leaf) for name, leaf in _leaves(jax.device_get(tree)).items()}
    leaves = {n: a.reshape(np.shape(b)) for (n, a), b in zip(leaves.items(), jax.tree.leaves(tree), strict=True)}
    text = json.dumps(history)
    size = sum(leaf.nbytes for leaf in leaves.values())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_partial(path)
        free = shutil.disk_usage(path.parent).free
        if free < size + 2**20:
            raise OSError(f"{size / 2**20:.0f} MiB to write, {free / 2**20:.0f} MiB free")
        metadata = {"history": text, "digest": _digest(leaves, text)}
        write_bytes(path, safetensors.numpy.save(leaves, metadata))
    except OSError as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise CheckpointError(
            f"{path} was not saved ({reason}): what was saved before is untouched; "
            "make room or make the folder writable, then run the same command again"
        ) from error


def _read(path: Path, like: PyTree) -> tuple[PyTree, list[dict[str, Any]]]:
    """Read the tree and the history of a checkpoint."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
        if _digest(saved, metadata["history"]) != metadata["digest"]:
            raise _DamagedError("its contents are not what was saved")
        history = json.loads(metadata["history"])
    except (OSError, safetensors.SafetensorError, KeyError, ValueError) as error:
        raise _DamagedError(" ".join(str(error).split()) or repr(error)) from error
    asked = _leaves(like)
    for name in [*asked, *sorted(saved)]:
        here = _describe(saved[name]) if name in saved else "nothing"
        wanted = _describe(asked[name]) if name in asked else "nothing"
        if here != wanted:
            raise CheckpointError(
                f"{path} is of another model or setting: {name} is {here} there, {wanted} here; use another workdir"
            )
    arrays = [jnp.asarray(saved[name]) for name in asked]
    return jax.tree.unflatten(jax.tree.structure(like), arrays), history


def _remove_partial(path: Path) -> None:
    """Remove what a killed save of this file left behind."""
    for partial in path.parent.glob(f".{path.name}.*.part"):
        partial.unlink(missing_ok=True)
