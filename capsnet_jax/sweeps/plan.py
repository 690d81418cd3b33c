"""What a sweep is going to do: which runs share a program, and whether all of them can be trained."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from capsnet_jax import data, models
from capsnet_jax.config import Config, ConfigError, Data, Eval
from capsnet_jax.overrides import flatten, program_key
from capsnet_jax.sweeps.pretrain import pretraining_run
from capsnet_jax.sweeps.records import Run
from capsnet_jax.sweeps.start_from import check_layers, read_setting
from capsnet_jax.training.evaluation import ObserveFn
from capsnet_jax.training.finetune import check_frozen, check_pretrained
from capsnet_jax.training.hosts import ALONE, Hosts
from capsnet_jax.training.limits import check_limits


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a sweep is carried out; nothing here changes a result.

    Attributes:
        workdir: where records go, as described in `records`.
        parallel: "map" or "vmap", how runs share a program; "auto" takes what the platform does best.
        command: what to type to train one run alone.
        stop: returns the signal that asked to stop, or None; polled between chunks of about two seconds.
        observed: what is observed beside errors.
        observe_fn: the function that observes it.
        rerun: whether runs that are finished are trained anew.
        devices: that share the work; () is JAX's first.
        wait: whether to wait for what other processes train; without it, what they train is left to them.
        hosts: the processes that have them.
    """

    workdir: Path
    parallel: str
    command: Callable[[Run], str]
    stop: Callable[[], int | None]
    observed: Eval = dataclasses.field(default_factory=Eval)
    observe_fn: ObserveFn | None = None
    rerun: bool = False
    devices: tuple[jax.Device, ...] = ()
    wait: bool = True
    hosts: Hosts = ALONE


def group_by_program(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Group runs of one structure; each group shares a compiled program, named by its key."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        key = hashlib.sha256(program_key(run.config).encode()).hexdigest()[:16]
        groups.setdefault(key, []).append(run)
    return groups


def load_data(settings: Data) -> data.Dataset:
    """Load the data set that a config asks for."""
    return data.load(
        settings.dataset,
        label_key=settings.label or None,
        validation_fraction=settings.validation_fraction,
        train_size=settings.train_size,
        transform=settings.transform,
        image_size=settings.image_size,
    )


def check(runs: Sequence[Run], datasets: Mapping[Data, data.Dataset]) -> None:
    """Look for mistakes before anything is trained.

    Raises:
        ConfigError: no such layer, a batch larger than the set, images too small, or a model or router that does not
          fit what calls it.
        OutOfMemoryError: one run alone needs more memory than there is.
    """
    for run in (group[0] for group in group_by_program(runs).values()):
        _check_stories(run.config.data)
        config, dataset = run.config, datasets[run.config.data]
        params = _param_shapes(config, dataset)
        check_frozen(params, config.train.frozen)
        check_limits(config, 1, dataset, params)
        models.check_head(config.model.name, params)
        if config.finetune.starts_from_run:
            pretrained = read_setting(config.finetune.source).params
            check_layers(config, params, pretrained)
        elif source := pretraining_run(run):
            pretrained = _param_shapes(source.config, datasets[source.config.data])
        else:
            continue
        check_pretrained(params, pretrained, config.finetune, models.MODELS[config.model.name].head_layers)


def _check_stories(settings: Data) -> None:
    """Raise a ConfigError where words of stories would be moved as if they were a picture."""
    moving = ("max_shift", "max_rotation", "flip", "transform")
    moved = [name for name in moving if getattr(settings, name) not in (0, "none")]
    if moved and data.tells_stories(settings.dataset):
        raise ConfigError(f"{settings.dataset} holds stories, whose words cannot be moved; leave out data.{moved[0]}")


def _param_shapes(config: Config, dataset: data.Dataset) -> dict[str, Any]:
    return models.shapes(config, dataset.image_shape, dataset.classes, data=dataset.name)[0]


def title(group: Sequence[Run], runs: Sequence[Run]) -> str:
    """Say what sets a group apart from the other runs, and how many runs it holds."""
    flats = [flatten(run.config) for run in runs]
    members = [flatten(run.config) for run in group]
    first = members[0]
    apart = [
        f"{path}={first[path]}"
        for path in first
        if any(flat.get(path, first[path]) != first[path] for flat in flats)
        and all(flat[path] == first[path] for flat in members)
    ]
    text = counted(len(group), "run")
    return f"{' '.join(apart)} × {text}" if apart else text


def counted(number: int, noun: str) -> str:
    """Say a number of things: `1 run`, `2 runs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
