"""The run that another starts from: the same network and seed, first trained on another data set."""

import dataclasses
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp

from capsnet_jax import models
from capsnet_jax.config import from_preset
from capsnet_jax.data import Dataset
from capsnet_jax.sweeps import checkpoint
from capsnet_jax.sweeps.records import Cell
from capsnet_jax.training.finetune import take_over
from capsnet_jax.training.step import TrainState


def source_of(cell: Cell) -> Cell | None:
    """The run whose layers a run takes over, trained on the source by the preset's recipe; None if it takes none."""
    own = cell.config
    if own.transfer.source == "none":
        return None
    usual = from_preset(own.preset)
    data = dataclasses.replace(usual.data, dataset=own.transfer.source)
    same = dataclasses.replace(usual, data=data, model=own.model, routing=own.routing, loss=own.loss)
    return Cell(same, cell.seed)


def sources_of(cells: Iterable[Cell]) -> list[Cell]:
    """What `cells` start from, each run once."""
    return list(dict.fromkeys(source for cell in cells if (source := source_of(cell))))


def starting(states: TrainState, cells: Sequence[Cell], workdir: Path, source: Dataset) -> TrainState:
    """Fresh states with the layers that the runs take over, read from the workdir.

    Args:
        states: of the runs, stacked.
        cells: the runs, all of one structure and with a source.
        workdir: where the sources' records lie.
        source: the data set that they were trained on.

    Raises:
        CheckpointError: a source's parameters are missing or damaged.
    """
    settings = cells[0].config
    model = models.build(settings, source.classes)
    like = jax.eval_shape(partial(models.init_all, model, jax.random.key(0), source.image_shape))
    known = []
    for found in map(source_of, cells):
        assert found is not None, "every run has a source"
        parts = zip(("params", "stats"), like, strict=True)
        folder = workdir / "cells" / found.name
        known.append([checkpoint.load_params(folder / name, tree) if tree else {} for name, tree in parts])
    params, stats = jax.tree.map(lambda *leaves: jnp.stack(leaves), *known)
    return states._replace(
        params=take_over(states.params, params, settings.transfer),
        stats=take_over(states.stats, stats, settings.transfer),
    )
