"""Files of weights: the arrays of a state dictionary by name, from `.safetensors` or PyTorch's `.pth`."""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors

from capsnet_jax.config import ConfigError

CHECKPOINT_NAMES = ("model", "state_dict", "model_state_dict")  # where the checkpoint of a training has its net
COUNTERS = ("num_batches_tracked", "n_averaged")  # whole numbers of batch norms and of averaged models, of no use here
SAFETENSORS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}  # name of a type there, and here; others are no weights


class PretrainedError(ConfigError):
    """A file that holds no weights for our nets; the message is one line with the mistake and the remedy."""


def read(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a state dictionary by their names in the net, without the prefix of what wraps it."""
    if not path.is_file():
        raise PretrainedError(f"there is no file {path}; name a state dictionary, as .safetensors or .pth")
    read = _read_safetensors if path.suffix.lower() == ".safetensors" else _read_pickled
    state = {name: leaf for name, leaf in read(path).items() if name.rpartition(".")[2] not in COUNTERS}
    # As `module.` of DataParallel and `_orig_mod.` of torch.compile. Nets here have several layers.
    while len(first := {name.partition(".")[0] for name in state}) == 1 and all("." in name for name in state):
        state = {name.removeprefix(f"{next(iter(first))}."): leaf for name, leaf in state.items()}
    return {name: _as_floats(path, name, leaf) for name, leaf in state.items()}


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        views = safetensors.deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise PretrainedError(f"{path} is no whole safetensors file ({error}); download or save it again") from error
    state: dict[str, Any] = {}
    for name, view in views:
        dtype = SAFETENSORS.get(view["dtype"])
        state[name] = np.frombuffer(view["data"], dtype).reshape(view["shape"]) if dtype else view["dtype"]
    return state


def _read_pickled(path: Path) -> dict[str, Any]:
    """Return what a file of PyTorch's holds, read by its safe loader, which runs no code that a file brings."""
    try:
        import torch
    except ImportError as error:
        raise PretrainedError(
            f"{path} can be read where PyTorch is installed; install it, or save the weights as .safetensors"
        ) from error
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # the arguments in torchvision's checkpoints
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever unpickling something else may raise
        reason = (str(error).strip() or repr(error)).splitlines()[0].split(". ")[0]
        if "weights_only" in str(error):  # then the rest is PyTorch's advice to switch its safe loader off
            other = re.search(r"GLOBAL (\S+)", str(error))
            reason = f"it holds a {other[1]}" if other else "it is damaged, or holds other things than tensors"
        raise PretrainedError(f"{path} is no state dictionary ({reason}); save a module's state_dict()") from error
    return {name: _to_numpy(leaf) for name, leaf in _state_of(path, loaded).items()}


def _state_of(path: Path, loaded: Any) -> Mapping[str, Any]:
    """Return the state dictionary that was loaded, or the one of the model in a checkpoint of a training."""

    def is_state(value: Any) -> bool:
        named = isinstance(value, Mapping) and all(isinstance(name, str) for name in value)
        return named and any(hasattr(leaf, "detach") for leaf in value.values())

    found = {name: value for name, value in loaded.items() if is_state(value)} if isinstance(loaded, Mapping) else {}
    if not found and is_state(loaded):
        return loaded
    for name in (*CHECKPOINT_NAMES, *(found if len(found) == 1 else ())):
        if name in found:
            return found[name]
    several = f"there are {', '.join(map(str, found))}" if found else f"it is a {type(loaded).__name__}"
    raise PretrainedError(f"{path} is no state dictionary ({several}); save a module's state_dict()")


def _to_numpy(leaf: Any) -> Any:
    """Return a tensor as an array, or what it is, in a word, if it cannot be one."""
    import torch

    if not isinstance(leaf, torch.Tensor):
        return type(leaf).__name__
    try:
        small = leaf.is_floating_point() and leaf.dtype.itemsize < 4  # NumPy does not know all of these types
        return (leaf.to(torch.float32) if small else leaf).numpy(force=True)
    except (TypeError, RuntimeError):  # sparse, quantized, packed or without data
        return f"{leaf.layout} of {leaf.dtype} on {leaf.device}"


def _as_floats(path: Path, name: str, leaf: Any) -> np.ndarray:
    """Return an array of finite float32 or float64."""
    if not (isinstance(leaf, np.ndarray) and jnp.issubdtype(leaf.dtype, jnp.floating)):
        kind = f"array of {leaf.dtype}" if isinstance(leaf, np.ndarray) else leaf
        raise PretrainedError(
            f"{path}: its {name} is no array of floating-point numbers ({kind}); save a float32 module's state_dict()"
        )
    wide = leaf if leaf.dtype.itemsize >= 4 else leaf.astype(np.float32)
    if bad := int(np.count_nonzero(~np.isfinite(wide))):
        raise PretrainedError(
            f"{path}: its {name} has {bad} of {wide.size} numbers that are NaN or infinite; take an earlier checkpoint"
        )
    return wide
