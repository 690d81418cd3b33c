"""A trained network that runs start from: an exported folder, or a run of another workdir.

In a run's settings it is `finetune.source=run:FOLDER@CHECKSUM`. So other parameters make other runs, and a record says
where its parameters came from. `--start_from=PATH` finds the folder, and which layers fit.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from capsnet_jax import data, models
from capsnet_jax.config import Config, ConfigError
from capsnet_jax.models import exported
from capsnet_jax.overrides import flatten, format_value
from capsnet_jax.sweeps import records
from capsnet_jax.sweeps.best import best_run
from capsnet_jax.sweeps.checkpoint import CheckpointError, is_damaged
from capsnet_jax.training.finetune import reinitialized_layers

DIGITS = 16  # of the checksum in a setting; its first ones


class Source(NamedTuple):
    """A trained network.

    Attributes:
        folder: has its `params.safetensors`; an exported one, or a run's.
        checksum: the first digits of that file's SHA-256.
        settings: {path: value} that it was trained with.
        params: its parameters.
        stats: its batch norms' running statistics.
    """

    folder: Path
    checksum: str
    settings: Mapping[str, Any]
    params: dict[str, Any]
    stats: dict[str, Any]

    @property
    def setting(self) -> str:
        """The value of `finetune.source` that stands for it."""
        return f"run:{self.folder}@{self.checksum}"


def find(path: str) -> Source:
    """Return the network that a path means: an exported folder, a run's folder, or the best run of a workdir.

    Raises:
        ConfigError: there is none, or files of an exported one are missing or damaged.
        CheckpointError: a run's parameters are damaged.
    """
    folder = Path(os.path.abspath(os.path.expanduser(path)))
    if "," in str(folder):
        raise ConfigError(f"--start_from={path}: a comma separates values of a setting; rename the folder")
    if not folder.is_dir():
        raise ConfigError(f"--start_from={path}: there is no such folder; name an exported one, or a workdir")
    return read(best_run(folder).folder if (folder / "runs.jsonl").exists() else folder)


def read(folder: Path) -> Source:
    """Read an exported folder, or a run's; raises as `find`."""
    path = folder / exported.PARAMS
    if exported.is_exported(folder):
        about, params, stats = exported.read(folder)
        return Source(folder, about["checksums"][exported.PARAMS][:DIGITS], about["settings"], params, stats)
    record = records.load_all(folder.parents[1]).get(folder.name) if folder.parent.name == "runs" else None
    if record is None or not path.exists():
        raise ConfigError(
            f"{folder} holds no trained network; name a folder that --export wrote, a workdir of finished runs,"
            " or the folder of one of its runs"
        )
    if is_damaged(path):
        raise CheckpointError(f"{path} is damaged: the command that trained it mends it")
    return Source(folder, exported.checksum(path)[:DIGITS], record.settings, *exported.read_params(path))


def read_setting(setting: str) -> Source:
    """Read what `finetune.source` says.

    Raises:
        ConfigError: as `find`, or the parameters are not those any more.
    """
    folder, _, checksum = setting.removeprefix("run:").rpartition("@")
    if not folder or len(checksum) != DIGITS:
        raise ConfigError(f"finetune.source={setting} lacks the checksum of parameters; ask by --start_from=FOLDER")
    source = read(Path(folder))
    if source.checksum != checksum:
        raise ConfigError(
            f"finetune.source={setting}: the parameters there are others now ({source.checksum});"
            f" start from them by --start_from={folder}"
        )
    return source


def adapt(config: Config, source: Source) -> Config:
    """Return a config with `finetune.reinitialize` set to the layers that cannot be copied.

    These are the layers that depend on the number of classes, if theirs is another; otherwise none.

    Args:
        config: with `source` as its `finetune.source`.
        source: what is copied.

    Raises:
        ConfigError: it is another model, or has other settings.
        DataError: the config's data set is not known.
    """
    _check_model(flatten(config), source)
    described = data.describe(
        config.data.dataset,
        label_key=config.data.label or None,
        transform=config.data.transform,
        image_size=config.data.image_size,
    )
    classes, shape = len(described.label_names), described.image_shape
    now, more = (_layer_shapes(models.shapes(config, shape, count)[0]) for count in (classes, classes + 1))
    there = _layer_shapes(source.params)
    depend = [layer for layer in now if now[layer] != more[layer]]
    anew = depend if any(layer in there and now[layer] != there[layer] for layer in depend) else []
    return dataclasses.replace(
        config, finetune=dataclasses.replace(config.finetune, reinitialize="+".join(anew) or "none")
    )


def _check_model(flat: Mapping[str, Any], source: Source) -> None:
    """Raise a ConfigError where settings of a model are not the source's, which says what to set."""
    there = {path: source.settings.get(path, value) for path, value in flat.items() if path.startswith("model.")}
    if there["model.name"] != flat["model.name"]:
        there = {"model.name": there["model.name"]}
    if differing := [path for path in there if there[path] != flat[path]]:
        text = ", ".join(f"{path}={format_value(there[path])}, not {format_value(flat[path])}" for path in differing)
        remedy = " ".join(f"--set {path}={format_value(there[path])}" for path in differing)
        raise ConfigError(f"--start_from: the network in {source.folder} has {text}; add {remedy}")


def describe(config: Config, source: Source) -> str:
    """Say in a line what a run starts from, and which of its layers start anew."""
    anew = config.finetune.reinitialize
    if anew == "none":
        return f"starting from {source.folder}: all layers are copied"
    return f"starting from {source.folder}: {anew} start anew, all other layers are copied"


def check_layers(config: Config, fresh: Mapping[str, Any], pretrained: Mapping[str, Any]) -> None:
    """Look whether a source has every layer that is copied; which fit is asked by `check_pretrained`.

    Raises:
        ConfigError: one is missing.
    """
    anew = reinitialized_layers(fresh, config.finetune, models.MODELS[config.model.name].head_layers)
    if missing := [layer for layer in fresh if layer not in pretrained and layer not in anew]:
        raise ConfigError(
            f"finetune.source={config.finetune.source} has no {', '.join(missing)}; these can start anew by"
            f" --set finetune.reinitialize={'+'.join([*anew, *missing])}"
        )


def _layer_shapes(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the shapes of each layer's parameters."""
    return {layer: jax.tree.map(lambda leaf: tuple(leaf.shape), dict(leaves)) for layer, leaves in params.items()}
