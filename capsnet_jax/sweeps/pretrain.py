"""What a run starts from: the same network and seed, first trained on another data set; or any finished run."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp

from capsnet_jax import models
from capsnet_jax.config import PRESETS, Data
from capsnet_jax.data import Dataset
from capsnet_jax.overrides import resolve
from capsnet_jax.sweeps.checkpoint import load_params
from capsnet_jax.sweeps.records import Run, params_path
from capsnet_jax.sweeps.start_from import read_setting
from capsnet_jax.training.finetune import copy_pretrained
from capsnet_jax.training.step import TrainState


def pretraining_run(run: Run) -> Run | None:
    """Return the run whose layers a run copies, trained first by the preset's recipe; None without one."""
    config = run.config
    if config.finetune.source == "none" or config.finetune.starts_from_run:
        return None
    recipe = resolve(PRESETS[config.preset] | {"preset": config.preset, "data.dataset": config.finetune.source}).config
    same = {name: getattr(config, name) for name in ("model", "routing", "loss", "reconstruction")}
    return Run(dataclasses.replace(recipe, **same), run.seed)


def pretraining_runs(runs: Iterable[Run]) -> list[Run]:
    """Return what `runs` start from, each run once."""
    return list(dict.fromkeys(source for run in runs if (source := pretraining_run(run))))


def initialize(states: TrainState, runs: Sequence[Run], workdir: Path, datasets: Mapping[Data, Dataset]) -> TrainState:
    """Return fresh states with the layers that the runs copy, if they copy any.

    Args:
        states: of the runs, stacked.
        runs: all of one structure.
        workdir: where the parameters of `pretraining_runs` lie.
        datasets: the data set of each `config.data`.

    Raises:
        CheckpointError: a source's parameters are missing or damaged.
        ConfigError: a finished run that is copied has other parameters now.
    """
    config = runs[0].config
    if config.finetune.source == "none":
        return states
    if config.finetune.starts_from_run:
        source = read_setting(config.finetune.source)
        pretrained = [(source.params, source.stats)] * len(runs)
    else:
        pretrained = [_load(run, workdir, datasets) for run in runs]
    params, stats = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pretrained)
    heads = models.MODELS[config.model.name].head_layers
    return states._replace(
        params=copy_pretrained(states.params, params, config.finetune, heads),
        stats=copy_pretrained(states.stats, stats, config.finetune, heads),
    )


def _load(run: Run, workdir: Path, datasets: Mapping[Data, Dataset]) -> tuple[dict, dict]:
    """Load the parameters and statistics of a run's `pretraining_run`."""
    source = pretraining_run(run)
    assert source is not None, "every run has a source"
    data = datasets[source.config.data]
    model = models.build(source.config, data.classes)
    like = jax.eval_shape(partial(models.init, model, jax.random.key(0), data.image_shape))
    return load_params(params_path(workdir, source.name), *like)
