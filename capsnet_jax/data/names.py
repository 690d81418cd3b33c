"""What a data set's name says: its entry in `DATASETS`, its path, and how it is written elsewhere."""

import hashlib
import os
import re
from collections.abc import Mapping
from typing import Any

from capsnet_jax.data.arrays import DataError
from capsnet_jax.data.registry import DATASETS, DatasetEntry


def entry_of(name: str) -> DatasetEntry | None:
    """Return the entry of a set, which is the same for all paths, or configs and versions of a tfds set.

    Raises:
        DataError: the set has none of these.
    """
    base = _base(name)
    entry = DATASETS.get(base)
    if entry is not None and entry.has_path and not path_of(name):
        raise DataError(f"{name} does not say which: write {base}:PATH")
    if entry is not None and entry.load is not None and not entry.has_path and name != base:
        raise DataError(f"{base} has no configs and no versions: ask for {base}, not {name}")
    return entry


def path_of(name: str) -> str:
    """Return the path of a set that is named with its path, without `~`; "" of any other set."""
    base, _, path = name.partition(":")
    return os.path.abspath(os.path.expanduser(path)) if path and base in DATASETS and DATASETS[base].has_path else ""


def full_name(name: str) -> str:
    """Return a set's name with its absolute path, if it has one: then it means the same from everywhere."""
    return f"{_base(name)}:{path}" if (path := path_of(name)) else name


def short_name(name: str) -> str:
    """Return a set's name without the folders that lead to it: `folder:/home/me/toys` → `folder toys`."""
    return f"{_base(name)} {os.path.basename(path)}" if (path := path_of(name)) else name


def slug(name: str) -> str:
    """Return a set's name as part of a file's name: `a/b` → `a_b`. Sets of two paths have two."""
    legal = re.sub(r"[^\w.+-]", "_", short_name(name)[:60])
    return f"{legal}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:4]}" if (path := path_of(name)) else legal


def own_settings(name: str) -> Mapping[str, Any]:
    """Return the defaults of a set of its own, as {path: value}."""
    return _known(name).settings


def shows_pairs(name: str) -> bool:
    """Return whether each image of a set shows two of the images that `load` returns for training."""
    return _known(name).pairs


def tells_stories(name: str) -> bool:
    """Return whether the images of a set are sentences of word numbers, and no pictures."""
    return _known(name).stories


def _known(name: str) -> DatasetEntry:
    """Return the entry of a set; of one without, a tfds set, an entry that says nothing."""
    return DATASETS.get(_base(name), DatasetEntry(""))


def _base(name: str) -> str:
    return name.split("/")[0].split(":")[0]
