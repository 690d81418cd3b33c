"""Checkpoints: save, restore, resume to the bit.

A checkpoint is one safetensors file, `12.safetensors` for step 12. It holds every array by its path in the state, such
as `params/conv/kernel`. The step, the history and a digest of everything are in the file's metadata.

Why one safetensors file, and not a folder of Orbax: one rename gives the file its name, so what is visible is complete.
Other programs read it: `safetensors.numpy.load_file` needs nothing of ours. One call writes it, without threads, so an
error is raised once and where it happens; on a full disk Orbax's threads print hundreds of lines. What Orbax adds,
arrays that are spread over many machines, is not used here. The digest shows damage that comes later.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from capsnet_jax.sweeps import files

SUFFIX = ".safetensors"
NO_CODE: Mapping[str, str] = {}
log = logging.getLogger(__name__)


class CheckpointError(Exception):
    """A checkpoint could not be saved, or is not one of what was asked for; the message names the remedy."""


class Restored(NamedTuple):
    """What `restore` returns: the step, the state of that step, and the metrics of every epoch up to it."""

    step: int
    state: PyTree
    history: list[dict[str, Any]]


class _Contents(NamedTuple):
    """What is in a file: arrays by their path in the tree, and texts beside them."""

    arrays: dict[str, np.ndarray]
    metadata: dict[str, str]


def save(
    folder: Path,
    step: int,
    state: PyTree,
    history: list[dict[str, Any]],
    *,
    code: Mapping[str, str] = NO_CODE,
    keep: int = 2,
) -> None:
    """Save one step; return when it is on the disk.

    Afterwards the newest `keep` steps remain. Steps above this one are removed too: `restore` passed them
    over as damaged, or the run would not be here.

    Args:
        folder: holds the checkpoints of one program; made where missing. Other files in it are left alone. One process
            at a time saves there.
        step: at least 0.
        state: pytree of arrays, no two with the same path. Random keys as their `jax.random.key_data`.
        history: JSON-able; floats, non-finite ones included, come back equal to the bit.
        code: {source file or the like: digest} of what trains; what differs in one does not go on from here.
        keep: how many steps remain, at least 1.

    Raises:
        CheckpointError: nothing was saved; the checkpoints before this one are as they were.
    """
    _write(folder / f"{step}{SUFFIX}", state, {"step": str(step), "history": json.dumps(history), "code": _code(code)})
    older = [s for s in _steps(folder) if s <= step][keep:]
    newer = [s for s in _steps(folder) if s > step]
    for s in older + newer:
        (folder / f"{s}{SUFFIX}").unlink(missing_ok=True)


def restore(folder: Path, like: PyTree, *, code: Mapping[str, str] = NO_CODE) -> Restored | None:
    """Restore the newest checkpoint that is complete and of this code.

    Another one is passed over with a warning, and the one before it is used.

    Args:
        folder: as given to `save`; need not exist.
        like: pytree of arrays or `jax.ShapeDtypeStruct`; its structure is the structure of the result.
        code: as given to `save`.

    Returns:
        The checkpoint, its arrays on the default device; None where there is none.

    Raises:
        CheckpointError: the checkpoint is complete, but of another tree, shape or dtype than `like`.
    """
    for step in _steps(folder):
        path = folder / f"{step}{SUFFIX}"
        contents = _read(path)
        if isinstance(contents, str):
            log.warning("checkpoint %s is damaged (%s): passed over", path, contents)
        elif contents.metadata.get("code") != _code(code):
            log.warning("checkpoint %s is of other code or settings than now: passed over", path)
        else:
            return Restored(step, _tree(path, contents, like), json.loads(contents.metadata["history"]))
    return None


def save_params(path: Path, params: PyTree, stats: PyTree) -> None:
    """Save a finished run's parameters and batch norm's statistics as one file; replace an older one.

    Args:
        path: of the file, which is there complete or not at all; by convention `params.safetensors`.
        params: pytree of arrays; their names in the file begin with `params/`.
        stats: pytree of arrays, {} for a model without batch norm; their names begin with `stats/`.

    Raises:
        CheckpointError: they could not be saved.
    """
    _write(path, {"params": params, "stats": stats}, {})


def load_params(path: Path, like_params: PyTree, like_stats: PyTree) -> tuple[PyTree, PyTree]:
    """Load what `save_params` saved.

    Args:
        path: of the file.
        like_params: pytree of arrays or `jax.ShapeDtypeStruct`; its structure is the structure of the result.
        like_stats: the same for batch norm's statistics; {} for a model without.

    Returns:
        params, stats: on the default device.

    Raises:
        CheckpointError: they are missing, damaged, or of another tree, shape or dtype than asked for.
    """
    if not path.exists():
        raise CheckpointError(f"{path} is missing: add --rerun to the command that trained it")
    contents = _read(path)
    if isinstance(contents, str):
        raise CheckpointError(f"{path} is damaged ({contents}): the command that trained it mends it")
    tree = _tree(path, contents, {"params": like_params, "stats": like_stats})
    return tree["params"], tree["stats"]


def is_damaged(path: Path) -> bool:
    """Whether a file of parameters is there, but not as it was saved."""
    return path.exists() and isinstance(_read(path), str)


def _steps(folder: Path) -> list[int]:
    """Return the steps that are visible in a folder, newest first."""
    names = (path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}"))
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def _leaves(tree: PyTree) -> dict[str, Any]:
    """Return the leaves of a tree by their path, such as `params/conv/kernel`, in the order of the tree."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    leaves = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}
    if len(leaves) < len(paths):
        raise ValueError("two arrays of the tree have the same path: use no / in the names of layers")
    return leaves


def _describe(leaf: Any) -> str:
    """Return dtype and shape of a leaf, such as `float32[9, 9, 1, 256]`."""
    return f"{leaf.dtype}{list(leaf.shape)}"


def _code(code: Mapping[str, str]) -> str:
    return json.dumps(dict(code), sort_keys=True)


def _write(path: Path, tree: PyTree, metadata: Mapping[str, str]) -> None:
    """Write a tree and texts as one file, which gets its name when it is on the disk."""
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in _leaves(jax.device_get(tree)).items()}
    contents = _Contents(arrays, dict(metadata))
    try:
        files.make_folder(path.parent)
        files.remove_abandoned(path.parent)
        _check_free_space(path.parent, sum(array.nbytes for array in arrays.values()))
        # Not by `save_file`: a kill leaves its temporary file under a name that nobody knows.
        files.write_bytes(path, to_bytes(arrays, {**metadata, "digest": _digest(contents)}))
    except OSError as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise CheckpointError(
            f"{path} was not saved ({reason}): what was saved before is untouched; "
            "make room or make the folder writable, then run the same command again"
        ) from error


def _read(path: Path) -> _Contents | str:
    """Read a file; return what is wrong as text where it is not what was saved."""
    try:
        with safe_open(path, framework="np") as file:
            metadata = dict(file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
    except (OSError, SafetensorError) as error:
        return str(error).splitlines()[0]
    digest = metadata.pop("digest", None)
    contents = _Contents(arrays, metadata)
    return contents if digest == _digest(contents) else "its contents are not what was saved"


def _tree(path: Path, contents: _Contents, like: PyTree) -> PyTree:
    """Return a file's arrays with the structure of `like`."""
    arrays, wanted = contents.arrays, _leaves(like)
    for name in [*wanted, *sorted(arrays)]:
        there = _describe(arrays[name]) if name in arrays else "nothing"
        here = _describe(wanted[name]) if name in wanted else "nothing"
        if there != here:
            raise CheckpointError(
                f"{path} is of another model or setting: {name} is {there} there, {here} here; use another workdir"
            )
    return jax.tree.unflatten(jax.tree.structure(like), [jnp.asarray(arrays[name]) for name in wanted])


def _digest(contents: _Contents) -> str:
    """Return the digest of all arrays with their paths, dtypes and shapes, and of all texts."""
    digest = hashlib.blake2b(json.dumps(contents.metadata, sort_keys=True).encode(), digest_size=32)
    for name, array in sorted(contents.arrays.items()):
        digest.update(json.dumps([name, _describe(array)]).encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _check_free_space(folder: Path, size: int) -> None:
    """Raise OSError where `size` bytes are more than the disk takes."""
    free = shutil.disk_usage(folder).free
    if free < size + 2**20:
        raise OSError(f"{size / 2**20:.0f} MiB to write, {free / 2**20:.0f} MiB free")
