"""A finished run's network, back from its record, and what is kept of it besides numbers."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, PyTree

from capsnet_jax import config, models
from capsnet_jax.data import Dataset
from capsnet_jax.sweeps import checkpoint
from capsnet_jax.sweeps import run as sweep
from capsnet_jax.sweeps.records import Record, write_bytes

Observed = dict[str, np.ndarray]

_apply = jax.jit(models.apply, static_argnums=0)


class Trained(NamedTuple):
    """A network with what it was trained by and on."""

    settings: config.Config
    model: nn.Module
    params: PyTree
    stats: PyTree
    data: Dataset

    def outputs(self, images: Float[Array, "batch height width channels"]) -> dict[str, Any]:
        """The model's outputs as in evaluation, compiled."""
        return _apply(self.model, self.params, self.stats, images)


def has_params(record: Record) -> bool:
    """Whether the run's parameters are there; a table's records may have come without."""
    return (record.folder / "params").exists()


def load(record: Record) -> Trained:
    """The network of a finished run.

    Raises:
        CheckpointError: its parameters are missing or damaged.
    """
    settings = config.unflatten(record.settings)
    data = sweep.load_data(settings.data)
    model = models.build(settings, data.classes)
    like, like_stats = jax.eval_shape(lambda: models.init_all(model, jax.random.key(0), data.image_shape))
    params = checkpoint.load_params(record.folder / "params", like)
    stats = checkpoint.load_params(record.folder / "stats", like_stats) if like_stats else {}
    return Trained(settings, model, params, stats, data)


def observe(record: Record, name: str, look: Callable[[Trained], Observed]) -> None:
    """Keep what `look` sees in a finished run's network in its folder, unless it is kept already."""
    path = _path(record, name)
    if path.exists() or not has_params(record):
        return
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **look(load(record)))
    write_bytes(path, buffer.getvalue())


def observed(record: Record, name: str) -> Observed | None:
    """What `observe` kept; None where it kept nothing."""
    path = _path(record, name)
    if not path.exists():
        return None
    with np.load(path) as arrays:
        return dict(arrays)


def _path(record: Record, name: str) -> Path:
    return record.folder / f"{name}.npz"
