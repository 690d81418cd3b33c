"""A run that was exported: a folder with its parameters and with what tells everything else of it."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import safetensors
import safetensors.numpy
from flax.traverse_util import unflatten_dict

from capsnet_jax.models.state_dict import PretrainedError

PARAMS, ABOUT = "params.safetensors", "config.json"
FORMAT = 1  # of config.json


class Exported(NamedTuple):
    """What an exported folder holds.

    Attributes:
        about: `config.json`.
        params: the model's parameters.
        stats: its batch norms' running statistics; {} if it has none.
    """

    about: Mapping[str, Any]
    params: dict[str, Any]
    stats: dict[str, Any]


def is_exported(folder: Path) -> bool:
    """Whether a folder is one that was exported, be it whole or not."""
    return (folder / ABOUT).is_file()


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, as `sha256sum` prints it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def checksum_of(about: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what `config.json` says beside its own "checksum"."""
    rest = {name: value for name, value in about.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read(folder: Path) -> Exported:
    """Read an exported folder; its parameters are those that were exported, to the bit.

    Raises:
        PretrainedError: a file is missing or damaged, or is of another export.
    """
    about, path = _read_about(folder / ABOUT), folder / PARAMS
    if not path.is_file():
        raise PretrainedError(f"{path} is missing; export the run again")
    if checksum(path) != about["checksums"].get(PARAMS):
        raise PretrainedError(f"{path} is damaged, or of another run than {ABOUT} beside it; export the run again")
    return Exported(about, *read_params(path))


def read_params(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters and the statistics of a run's file, as trees; names of arrays are paths joined by `/`.

    Raises:
        PretrainedError: it is no safetensors file.
    """
    try:
        arrays = safetensors.numpy.load(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise PretrainedError(f"{path} is no whole safetensors file ({error}); export the run again") from error
    tree = unflatten_dict({tuple(name.split("/")): jnp.asarray(array) for name, array in arrays.items()})
    return tree.get("params", {}), tree.get("stats", {})


def _read_about(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise PretrainedError(f"{path} is damaged ({error}); export the run again") from error
    form = about.get("format") if isinstance(about, dict) else None
    if isinstance(form, int) and form != FORMAT:
        raise PretrainedError(f"{path} is of format {form}, and this version of capsnet_jax reads {FORMAT}")
    if form is None or about.get("checksum") != checksum_of(about):
        raise PretrainedError(f"{path} is damaged, or was edited; export the run again")
    if re.fullmatch(r"\w[\w.+-]*", about["name"]) is None:  # it becomes a folder's
        raise PretrainedError(f"{path}: {about['name']} is no name of a run")
    return about
