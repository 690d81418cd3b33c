"""Orbax checkpoints: save, restore, resume to the bit.

A checkpoint is one folder, `12/` for step 12. Orbax writes it under a hidden name; the digest of every file
is added, all of it is flushed to the disk, and one rename makes it visible. So what is visible was whole when
it was saved, and what was damaged later is seen by its digest.

Orbax's synchronous `Checkpointer` is used rather than its `CheckpointManager`: errors surface in the call
that caused them, no thread or cached list of steps outlives it, and it costs nothing to make.
"""

import contextlib
import hashlib
import json
import logging
import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

DIGESTS = "digests.json"
log = logging.getLogger(__name__)


class CheckpointError(Exception):
    """A checkpoint could not be saved, or is not one of what was asked for; the message names the remedy."""


class Restored(NamedTuple):
    """What `restore` found: the step, the state of that step, and the metrics of every epoch up to it."""

    step: int
    state: PyTree
    history: list[dict[str, Any]]


def save(folder: Path, step: int, state: PyTree, history: list[dict[str, Any]], *, keep: int = 2) -> None:
    """Saves one step; returns when it is on the disk.

    Afterwards the newest `keep` steps remain. Steps above this one are removed too: `restore` passed them
    over as damaged, or the run would not be here.

    Args:
        folder: holds the checkpoints of one run, and nothing else; made where missing.
        step: at least 0.
        state: pytree of arrays, none of size 0. Random keys as their `jax.random.key_data`.
        history: JSON-able; floats, non-finite ones included, come back equal to the bit.
        keep: how many steps remain, at least 1.

    Raises:
        CheckpointError: nothing was saved; the checkpoints before this one are as they were.
    """
    _write(folder / str(step), state, history)
    older = [s for s in _steps(folder) if s <= step][keep:]
    newer = [s for s in _steps(folder) if s > step]
    for s in older + newer:
        shutil.rmtree(folder / str(s), ignore_errors=True)


def restore(folder: Path, like: PyTree) -> Restored | None:
    """Restores the newest checkpoint that is whole.

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
        path = folder / str(step)
        if damage := _damage(path):
            log.warning("checkpoint %s is damaged (%s): passed over", path, damage)
        else:
            return Restored(step, *_read(path, like))
    return None


def save_params(folder: Path, params: PyTree) -> None:
    """Saves a finished run's parameters as `folder`, which is there whole or not at all; replaces older ones.

    Raises:
        CheckpointError: they could not be saved.
    """
    _write(folder, params, [])


def load_params(folder: Path, like: PyTree) -> PyTree:
    """Loads what `save_params` saved, with the structure of `like`.

    Raises:
        CheckpointError: they are missing, damaged, or of another tree, shape or dtype than `like`.
    """
    if damage := _damage(folder):
        raise CheckpointError(f"{folder} holds no whole parameters ({damage}): run the training again")
    return _read(folder, like)[0]


def _steps(folder: Path) -> list[int]:
    """The steps that are visible in a folder, newest first."""
    names = (path.name for path in folder.glob("*") if path.is_dir())
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def _leaves(tree: PyTree) -> dict[str, Any]:
    """The leaves of a tree by their path, such as `.params['conv']['kernel']`, in the order of the tree."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _kind(leaf: Any) -> str:
    """Dtype and shape of a leaf, such as `float32[9, 9, 1, 256]`."""
    return f"{leaf.dtype}{list(leaf.shape)}"


def _write(final: Path, tree: PyTree, history: list[dict[str, Any]]) -> None:
    """Writes a checkpoint under a hidden name, flushes it to the disk and renames it to `final`."""
    # NumPy arrays, because Orbax binds a jax.Array to the devices that it was saved from.
    leaves = {name: np.asarray(leaf) for name, leaf in _leaves(jax.device_get(tree)).items()}
    # A name of its own, because TensorStore goes on writing for a moment after an error.
    partial = final.with_name(f".{final.name}.{secrets.token_hex(4)}.partial")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _remove_partial(final.parent)
        _check_room(final.parent, sum(leaf.nbytes for leaf in leaves.values()))
        args = ocp.args.Composite(state=ocp.args.PyTreeSave(leaves), history=ocp.args.JsonSave(history))
        with _checkpointer() as checkpointer:
            checkpointer.save(partial.absolute(), args=args)
        (partial / DIGESTS).write_text(json.dumps(_digests(partial)))
        for path in (partial, *partial.rglob("*")):
            _flush(path)
        if final.exists():
            final.rename(final.with_name(f".{final.name}.replaced.partial"))
        partial.rename(final)
        _flush(final.parent)
    except (OSError, ValueError, RuntimeError) as error:  # a full disk alone can be any of them
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise CheckpointError(
            f"{final} was not saved ({reason}): what was saved before is untouched; "
            "make room or make the folder writable, then run the same command again"
        ) from error
    finally:
        _remove_partial(final.parent)


def _read(path: Path, like: PyTree) -> tuple[PyTree, list[dict[str, Any]]]:
    """Reads the tree and the history of an undamaged checkpoint."""
    args = ocp.args.Composite(state=ocp.args.PyTreeRestore(), history=ocp.args.JsonRestore())
    with _checkpointer() as checkpointer:
        saved = checkpointer.restore(path.absolute(), args=args)
    asked = _leaves(like)
    for name in [*asked, *sorted(saved.state)]:
        here = _kind(saved.state[name]) if name in saved.state else "nothing"
        wanted = _kind(asked[name]) if name in asked else "nothing"
        if here != wanted:
            raise CheckpointError(
                f"{path} is of another model or setting: {name} is {here} there, {wanted} here; use another workdir"
            )
    arrays = [jnp.asarray(saved.state[name]) for name in asked]
    return jax.tree.unflatten(jax.tree.structure(like), arrays), saved.history


def _damage(path: Path) -> str | None:
    """Says in words how a checkpoint differs from the files that were saved; None where it does not."""
    try:
        saved = json.loads((path / DIGESTS).read_text())
        found = _digests(path)
    except (OSError, ValueError) as error:
        return str(error)
    names = [name for name in saved.keys() | found.keys() if saved.get(name) != found.get(name)]
    return f"{min(names)} is not what was saved" if names else None


def _digests(path: Path) -> dict[str, str]:
    """The digest of every file of a checkpoint but the list of digests, by its relative path."""
    digests = {}
    for file in sorted(path.rglob("*")):
        if file.is_file() and file != path / DIGESTS:
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "blake2b")
            digests[file.relative_to(path).as_posix()] = digest.hexdigest()
    return digests


def _check_room(folder: Path, size: int) -> None:
    """Raises OSError where `size` bytes are more than the disk takes; later each thread would say so."""
    free = shutil.disk_usage(folder).free
    if free < size + 2**20:
        raise OSError(f"{size / 2**20:.0f} MiB to write, {free / 2**20:.0f} MiB free")


def _flush(path: Path) -> None:
    """Makes a file's contents, or a folder's names, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_partial(folder: Path) -> None:
    """Removes what killed or failed saves left behind, Orbax's own temporary folders included."""
    for path in folder.glob(".*.partial*"):
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _checkpointer() -> Iterator[ocp.Checkpointer]:
    """A checkpointer of one tree and one JSON value, silent; no thread outlives it, also after an error."""
    chatter = logging.getLogger("absl")
    level = chatter.level
    chatter.setLevel(logging.CRITICAL)
    handlers = {"state": ocp.PyTreeCheckpointHandler(), "history": ocp.JsonCheckpointHandler()}
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler(**handlers)) as checkpointer:
            yield checkpointer
    finally:
        for thread in threading.enumerate():
            if type(thread).__module__.startswith("orbax."):
                threading.Thread.join(thread, timeout=60)  # their own join raises what was raised already
        chatter.setLevel(level)
