"""Settings as people name and type them: `path=value` to a config and back, and what a sweep compares.

A path is `group.field`, as `routing.iterations`. Which paths there are depends on the chosen model, router and loss, as
each has its own settings. What a choice lacks is no part of a config, and so of no run's identity.
"""

import dataclasses
import functools
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from capsnet_jax.config import (
    PRESETS,
    Choice,
    Config,
    ConfigError,
    Data,
    Eval,
    Finetune,
    Reconstruction,
    Train,
    check_runs,
    check_value,
    check_word,
    describe_domain,
    makes_difference,
    nearest,
)
from capsnet_jax.data import full_name, own_settings
from capsnet_jax.losses import LOSSES
from capsnet_jax.models import MODELS
from capsnet_jax.routing import ROUTERS
from capsnet_jax.training.optimizer import OPTIMIZERS
from capsnet_jax.training.schedule import SCHEDULES

Overrides = Mapping[str, Any]

DEFAULT_MODEL = "capsnet_small"
REGISTRIES: dict[str, Mapping[str, Any]] = {
    "model.name": MODELS,
    "routing.name": ROUTERS,
    "loss.name": LOSSES,
    "train.optimizer": OPTIMIZERS,
    "train.schedule": SCHEDULES,
    "preset": PRESETS,
}
SHORT = {"lr": "train.learning_rate", "model": "model.name", "routing": "routing.name", "loss": "loss.name"}
RENAMED = {
    "data.shift": "data.max_shift",
    "data.variant": "data.transform",
    "model.types": "model.capsule_types",
    "model.digit_dim": "model.class_dim",
    "routing.probe": "eval.max_routing_iterations",
    "train.floor": "train.min_learning_rate",
    "train.average": "train.ema_epochs",
    "transfer.source": "finetune.source",
    "transfer.fresh": "finetune.reinitialize",
    "transfer.rate": "finetune.lr_multiplier",
}


class Resolved(NamedTuple):
    """The config that overrides lead to.

    Attributes:
        config: everything that determines a run.
        observed: what is observed beside errors.
        unused: paths that the chosen model, router or loss does not have, or that make no difference here.
    """

    config: Config
    observed: Eval
    unused: list[str]


def resolve(changes: Overrides) -> Resolved:
    """Build the config that {path: value} asks for, on top of each choice's own defaults.

    Raises:
        ConfigError: an unknown path, a wrong type, a value out of range, or an unknown name.
    """
    changes = {full_path(path): value for path, value in changes.items()}
    for path, registry in REGISTRIES.items():
        if path in changes:
            check_word(path, changes[path], registry)
    for path in ("data.dataset", "finetune.source"):
        if isinstance(changes.get(path), str):
            changes[path] = full_name(changes[path])
    used: set[str] = set()

    def apply_changes(group: str, settings: Any) -> Any:
        """Return a settings dataclass with the changes that it has a field for."""
        fields = {f"{group}.{f.name}": f for f in dataclasses.fields(settings) if "doc" in f.metadata}
        new = {fields[p].name: check_value(p, fields[p], changes[p]) for p in fields if p in changes}
        new_settings = dataclasses.replace(settings, **new)
        idle = {f.name: getattr(settings, f.name) for f in fields.values() if not makes_difference(new_settings, f)}
        used.update(path for path in fields if path in changes and fields[path].name not in idle)
        return dataclasses.replace(new_settings, **idle)

    def choose(group: str, registry: Mapping[str, Any], default: str) -> Choice:
        name = changes.get(f"{group}.name", default)
        used.add(f"{group}.name")
        return Choice(name, apply_changes(group, registry[name].settings))

    own = own_settings(str(changes.get("data.dataset", Data().dataset)))
    data = dataclasses.replace(Data(), **{path.removeprefix("data."): value for path, value in own.items()})
    model = choose("model", MODELS, DEFAULT_MODEL)
    entry = MODELS[model.name]
    config = Config(
        preset=changes.get("preset", "small"),
        data=apply_changes("data", data),
        model=model,
        routing=choose("routing", ROUTERS, entry.router) if entry.routes else None,
        loss=choose("loss", LOSSES, entry.loss),
        reconstruction=apply_changes("loss", Reconstruction()) if entry.decodes else None,
        train=apply_changes("train", Train()),
        finetune=apply_changes("finetune", Finetune()),
    )
    observed = apply_changes("eval", Eval())
    return Resolved(config, observed, [path for path in changes if path not in used | {"preset"}])


def build(changes: Overrides) -> Config:
    """Build the config that {path: value} asks for.

    Raises:
        ConfigError: as of `resolve`, or a setting that this model, router or loss does not have.
    """
    resolved = resolve(changes)
    refuse_unused(resolved.unused, [resolved.config])
    return resolved.config


def from_preset(name: str, changes: Overrides | None = None) -> Config:
    """Build the config that a preset stands for, with `changes` on top."""
    return build(PRESETS[name] | {"preset": name} | dict(changes or {}))


def override(config: Config, changes: Overrides) -> Config:
    """Return a config with {path: value} on top. A setting that makes no difference any more returns to its default.

    Raises:
        ConfigError: as of `build`, of a path in `changes`.
    """
    changes = {full_path(path): value for path, value in changes.items()}
    resolved = resolve(flatten(config) | changes)
    refuse_unused([path for path in resolved.unused if path in changes], [resolved.config])
    return resolved.config


def refuse_unused(unused: Iterable[str], configs: Sequence[Config]) -> None:
    """Raise a ConfigError for the first path of `unused`, which none of the configs has."""
    for path in unused:
        config, group = configs[0], path.split(".")[0]
        present = [p for p in flatten(config) if p.startswith(f"{group}.")]
        if path in fields_of(config):
            doc = fields_of(config)[path].metadata["doc"]
            raise ConfigError(f"{path} ({doc}) makes no difference with {', '.join(present)} as they are; leave it out")
        if path in {f"loss.{field.name}" for field in dataclasses.fields(Reconstruction)}:
            raise ConfigError(f"{config.model.name} has no {path}; it has no decoder")
        names = {"routing": config.routing, "loss": config.loss}
        owner = config.model if group == "model" else names.get(group) or config.model
        raise ConfigError(
            f"{owner.name} has no {path}; " + (f"it has {', '.join(present)}" if present else "it does not route")
        )


def flatten(config: Config) -> dict[str, Any]:
    """Return the config as {path: value}, JSON-able, without the settings that make no difference."""
    flat: dict[str, Any] = {"preset": config.preset}
    for group, settings in _groups(config):
        for field in dataclasses.fields(settings):
            if "doc" in field.metadata and makes_difference(settings, field):
                value = getattr(settings, field.name)
                flat[f"{group}.{field.name}"] = list(value) if isinstance(value, tuple) else value
    return flat


def identity(config: Config) -> dict[str, Any]:
    """Return what tells a config from others: its names, and each setting that differs from their defaults.

    A setting that is added later, at a default that changes nothing, renames no run.
    """
    flat = flatten(config)
    names: dict[str, Any] = {path: flat[path] for path in ("model.name", "routing.name", "loss.name") if path in flat}
    default = flatten(resolve(names).config)
    return {path: value for path, value in flat.items() if path in names or value != default.get(path)}


def fields_of(config: Config) -> dict[str, dataclasses.Field]:
    """Return the field behind every path of a config, `eval.*` included, in reading order."""
    fields = {"preset": next(f for f in dataclasses.fields(Config) if f.name == "preset")}
    for group, settings in (*_groups(config), ("eval", Eval())):
        fields |= {f"{group}.{f.name}": f for f in dataclasses.fields(settings) if "doc" in f.metadata}
    return fields


def describe_settings(config: Config, observed: Eval) -> str:
    """List every setting with the value in force, what it means and what it takes."""
    values = flatten(config) | {f"eval.{f.name}": getattr(observed, f.name) for f in dataclasses.fields(observed)}
    lines = []
    for path, field in fields_of(config).items():
        if path in values:
            domain = f"one of {', '.join(REGISTRIES[path])}" if path in REGISTRIES else describe_domain(field)
            lines.append(f"{path + '=' + format_value(values[path]):<36} {field.metadata['doc']} ({domain})")
    return "\n".join(lines)


@functools.cache
def _paths_of(chosen: tuple[tuple[str, type], ...]) -> tuple[str, ...]:
    parts = {"data": Data, "train": Train, "finetune": Finetune, "eval": Eval, "loss": Reconstruction}
    paths = ["preset", "model.name", "routing.name", "loss.name"]
    for group, cls in (*parts.items(), *chosen):
        paths += [f"{group}.{f.name}" for f in dataclasses.fields(cls) if "doc" in f.metadata]
    return tuple(dict.fromkeys(paths))


def all_paths() -> tuple[str, ...]:
    """Return every path that some model, router or loss has; new entries of the registries included."""
    registries: dict[str, Mapping[str, Any]] = {"model": MODELS, "routing": ROUTERS, "loss": LOSSES}
    chosen = [(group, type(entry.settings)) for group, registry in registries.items() for entry in registry.values()]
    return _paths_of(tuple(dict.fromkeys(chosen)))


def full_path(path: str) -> str:
    """Return the path that a name stands for: itself, or the only one that ends so.

    Raises:
        ConfigError: there is none, there are several, or it was renamed.
    """
    known = all_paths()
    if path in known:
        return path
    if path in SHORT:
        return SHORT[path]
    if path in RENAMED:
        raise ConfigError(f"{path} is now called {RENAMED[path]}")
    leaf = path.rsplit(".", 1)[-1]
    same = [p for p in known if p.rsplit(".", 1)[-1] == leaf]
    if path == leaf and len(same) == 1:
        return same[0]
    if path == leaf and same:
        raise ConfigError(f"{path} is the name of several settings: {', '.join(same)}")
    for old, new in RENAMED.items():
        if path == old.rsplit(".", 1)[-1]:
            raise ConfigError(f"{path} is now called {new}")
    names = {full: full for full in known} | SHORT  # as train.lr, and LR
    near = same[0] if same else names[nearest(leaf if leaf.lower() in SHORT else path, names)]
    raise ConfigError(f"unknown setting {path!r}; did you mean {near!r}?")


def parse_setting(text: str) -> tuple[str, list[str]]:
    """Split `path=value,value,...` into the path and the texts of its values.

    Raises:
        ConfigError: no `=`, no value, or no such path.
    """
    path, equals, values = text.partition("=")
    texts = [value.strip() for value in values.split(",")]
    if not equals or not values:
        raise ConfigError(f"{text!r} is not a setting; write path=value, for example routing.iterations=3")
    if "" in texts:
        raise ConfigError(f"{text!r} has an empty value; write path=value,value")
    return full_path(path.strip()), texts


def format_value(value: Any) -> str:
    """Return the text that is read back as `value`."""
    if isinstance(value, list | tuple):
        return "x".join(map(str, value))
    return str(value).lower() if isinstance(value, bool | None) else str(value)


def grid(values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return every combination of {path: values} as {path: value}, the last path fastest.

    Raises:
        ConfigError: so many cannot be meant.
    """
    check_runs(0, 1, math.prod(map(len, values.values())))
    return [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]


def sweep_over(arms: Sequence[Overrides], values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return the settings `arms` with the paths of `values` swept instead. Arms that differed only there become one."""
    remaining: list[dict[str, Any]] = []
    for arm in arms:
        rest = {path: value for path, value in arm.items() if path not in values}
        if rest not in remaining:
            remaining.append(rest)
    return [arm | setting for arm in remaining for setting in grid(values)]


def program_key(config: Config) -> str:
    """Return a text that is the same for configs that share a compiled program."""
    fields = fields_of(config)
    structure = {path: value for path, value in flatten(config).items() if not fields[path].metadata["traced"]}
    return json.dumps(structure, sort_keys=True)


def _groups(config: Config) -> Iterator[tuple[str, Any]]:
    """Yield (first part of the paths, dataclass) in reading order."""
    yield "data", config.data
    for group, choice in (("model", config.model), ("routing", config.routing), ("loss", config.loss)):
        if choice is not None:
            yield group, _Name(choice.name)
            yield group, choice.settings
    if config.reconstruction is not None:
        yield "loss", config.reconstruction
    yield "train", config.train
    yield "finetune", config.finetune


@dataclasses.dataclass(frozen=True)
class _Name:
    """The name of a choice, as a settings dataclass of one field."""

    name: str = dataclasses.field(metadata={"doc": "which one; see --list", "traced": False, "low": 0, "high": 0})
