"""The run that another starts from: the same network and seed, first trained on another data set."""

import dataclasses
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp

from capsnet_jax import models
from capsnet_jax.data import Dataset
from capsnet_jax.overrides import from_preset
from capsnet_jax.sweeps.checkpoint import load_params
from capsnet_jax.sweeps.records import Run, params_path
from capsnet_jax.training.finetune import copy_pretrained
from capsnet_jax.training.step import TrainState


def pretraining_run(run: Run) -> Run | None:
    """Return the run whose layers a run copies, trained by the preset's recipe; None if it copies none."""
    config = run.config
    if config.finetune.source == "none":
        return None
    recipe = from_preset(config.preset, {"data.dataset": config.finetune.source})
    same = {name: getattr(config, name) for name in ("model", "routing", "loss", "reconstruction")}
    return Run(dataclasses.replace(recipe, **same), run.seed)


def pretraining_runs(runs: Iterable[Run]) -> list[Run]:
    """Return what `runs` start from, each run once."""
    return list(dict.fromkeys(source for run in runs if (source := pretraining_run(run))))


def initialize_from_pretrained(
    states: TrainState, runs: Sequence[Run], workdir: Path, source_data: Dataset
) -> TrainState:
    """Return fresh states with the layers that the runs copy, read from the workdir.

    Args:
        states: of the runs, stacked.
        runs: all of one structure and with a source.
        workdir: where the sources' parameters lie.
        source_data: the data set that they were trained on.

    Raises:
        CheckpointError: a source's parameters are missing or damaged.
    """
    config = runs[0].config
    model = models.build(config, source_data.classes)
    like = jax.eval_shape(partial(models.init, model, jax.random.key(0), source_data.image_shape))
    pretrained = []
    for source in map(pretraining_run, runs):
        assert source is not None, "every run has a source"
        pretrained.append(load_params(params_path(workdir, source.name), *like))
    params, stats = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pretrained)
    heads = models.MODELS[config.model.name].head_layers
    return states._replace(
        params=copy_pretrained(states.params, params, config.finetune, heads),
        stats=copy_pretrained(states.stats, stats, config.finetune, heads),
    )
