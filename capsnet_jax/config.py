"""What an experiment may choose: frozen dataclasses with strict `path=value` overrides.

A config is a JAX pytree. Its *leaves* are numbers that a compiled program takes as arguments (fields made with
`number`), so many values of them run side by side in one program. Everything else (fields made with `choice`) is
*structure*: another value of it is another program. `jax.tree.structure(config)` is therefore the key that tells
which runs can share a compilation.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import jax

Overrides = Mapping[str, Any]
T = TypeVar("T")


class ConfigError(Exception):
    """A setting that cannot be used; the message is one line with the mistake and the remedy."""


def number(default: float, *, low: float = -math.inf, high: float = math.inf, doc: str) -> Any:
    """A traced leaf: a float in [low, high] that programs take as an argument, so that it can be vmapped."""
    return dataclasses.field(default=default, metadata={"traced": True, "low": low, "high": high, "doc": doc})


def choice(default: Any, *, among: Sequence[str] = (), low: float = -math.inf, high: float = math.inf, doc: str) -> Any:
    """A static field, part of the program's structure; `among` lists its words where they are known here."""
    metadata = {"traced": False, "among": tuple(among), "low": low, "high": high, "doc": doc}
    return dataclasses.field(default=default, metadata=metadata)


def node(cls: type[T]) -> type[T]:
    """Make a frozen dataclass a pytree: traced fields and sub-configs are its children, the rest is structure."""
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    children = [f.name for f in fields if f.metadata.get("traced", True)]
    structure = [f.name for f in fields if f.name not in children]
    return jax.tree_util.register_dataclass(cls, data_fields=children, meta_fields=structure)


@node
@dataclasses.dataclass(frozen=True)
class Data:
    """Which images, and how they are split and moved."""

    dataset: str = choice("mnist_5k", doc="an embedded set or any tfds image-classification set by name")
    label: str = choice("", doc="the label's key where the set has several; empty: its only one")
    validation_fraction: float = choice(0.1, low=0, high=0.9, doc="part of each class of train held out")
    train_size: int = choice(0, low=0, doc="train on that many images, balanced by class; 0: all of them")
    shift: int = choice(2, low=0, high=64, doc="augmentation: random shift by at most that many pixels")
    flip: bool = choice(False, doc="augmentation: mirror half of the images left to right")
    variant: str = choice(
        "none",
        among=("none", "inverted", "rotated"),
        doc="every image of every split inverted, or turned by 90°: a data set related to the plain one",
    )


@node
@dataclasses.dataclass(frozen=True)
class Model:
    """Which network; sizes left at `none` are the model's own."""

    name: str = choice("capsnet_small", doc="a key of capsnet_jax.models.MODELS")
    channels: int | None = choice(None, low=1, doc="capsnet: channels of the first convolution")
    kernel: int | None = choice(None, low=1, doc="capsnet: side of both convolution kernels, pixels")
    types: int | None = choice(None, low=1, doc="capsnet: types of primary capsules")
    primary_dim: int | None = choice(None, low=1, doc="capsnet: dimensions of a primary capsule")
    digit_dim: int | None = choice(None, low=1, doc="capsnet: dimensions of a class capsule")
    decoder: tuple[int, ...] | None = choice(None, low=1, doc="capsnet: the decoder's hidden widths, as 512x1024")
    weight_scale: float = number(0.1, low=0, doc="capsnet: σ of the normal, cut at 2σ, that W starts from")
    stem: str | None = choice(
        None,
        among=("imagenet", "small"),
        doc="ImageNet nets: the form of their first layers; none: small under 64 pixels",
    )
    precision: str = choice(
        "float32", among=("float32", "bfloat16"), doc="of the factors in products; routing and the rest stay float32"
    )


@node
@dataclasses.dataclass(frozen=True)
class Routing:
    """How capsules choose their parents; a router takes those of these settings that its signature names."""

    name: str = choice("dynamic", doc="a key of capsnet_jax.routing.ROUTERS")
    iterations: int = choice(3, low=1, high=100, doc="routing iterations r")
    gradient: str = choice("full", among=("full", "stop"), doc="through all iterations, or the last only")
    temperature: float = number(1.0, low=1e-3, doc="of the softmax over parents; large: near uniform couplings")
    softmax_over: str = choice(
        "parents", among=("parents", "inputs"), doc="what couplings sum to 1 over; inputs is a common mistake"
    )
    probe: int = choice(0, low=0, high=20, doc="also route with 1 to so many iterations, to see what each one does")


@node
@dataclasses.dataclass(frozen=True)
class Loss:
    """What is minimised."""

    form: str = choice("paper", among=("paper", "official"), doc="the paper's loss, or the released code's")
    m_plus: float = number(0.9, low=0, high=1, doc="margin: least length of a present class's capsule")
    m_minus: float = number(0.1, low=0, high=1, doc="margin: greatest length of an absent class's capsule")
    down_weight: float = number(0.5, low=0, doc="margin: weight λ of absent classes")
    reconstruction: bool = choice(True, doc="whether a decoder reconstructs the image")
    reconstruction_weight: float = number(0.0005, low=0, doc="of the sum of squared pixel differences")


@node
@dataclasses.dataclass(frozen=True)
class Train:
    """How it is minimised: an optimizer with a schedule of its learning rate."""

    epochs: int = choice(10, low=1, doc="passes over the training split")
    batch_size: int = choice(128, low=1, doc="images a step")
    optimizer: str = choice(
        "adam", among=("adam", "muon"), doc="Adam (β 0.9, 0.999; ε 1e-8), or Muon for the kernels between layers"
    )
    learning_rate: float = number(1e-3, low=0, doc="greatest learning rate of the schedule")
    schedule: str = choice("exponential", among=("exponential", "cosine"), doc="how the learning rate falls")
    decay_rate: float = number(0.96, low=0, high=1, doc="exponential: factor for every `decay_steps` steps")
    decay_steps: float = number(2000.0, low=1, doc="exponential: steps")
    floor: float = number(1e-6, low=0, doc="least learning rate")
    warmup: float = number(0.0, low=0, high=0.9, doc="part of all steps in which the learning rate rises from 0")
    weight_decay: float = number(
        0.0, low=0, doc="of all but biases and other vectors, each step by this times the learning rate (AdamW)"
    )
    average: float = choice(0.0, low=0, doc="judge and keep the mean over about so many last epochs; 0: the last step")
    frozen: str = choice("none", doc="layers that stay as they start, joined by +, as conv1+primary")


@node
@dataclasses.dataclass(frozen=True)
class Transfer:
    """What a network has learned before it is trained."""

    source: str = choice("none", doc="data set that the same network is first trained on, by its preset")
    fresh: str = choice("output", doc="layers that start anew, joined by +; output: those that tell the classes")
    rate: float = number(1.0, low=0, doc="the other layers' learning rate, in units of train.learning_rate")


@node
@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that determines a run besides its seed, and nothing else."""

    preset: str = choice("small", among=("small", "paper", "sabour2017"), doc="the preset it started from")
    data: Data = dataclasses.field(default_factory=Data)
    model: Model = dataclasses.field(default_factory=Model)
    routing: Routing = dataclasses.field(default_factory=Routing)
    loss: Loss = dataclasses.field(default_factory=Loss)
    train: Train = dataclasses.field(default_factory=Train)
    transfer: Transfer = dataclasses.field(default_factory=Transfer)


PRESETS: dict[str, dict[str, Any]] = {
    # A CapsNet for studies on a laptop. Warm-up and a cosine schedule reach in ten epochs what the paper's
    # slow exponential decay takes hundreds for; chosen on the validation split.
    "small": {
        "model.name": "capsnet_small",
        "train.schedule": "cosine",
        "train.warmup": 0.05,
        "train.learning_rate": 3e-3,
    },
    # The net of Sabour et al. 2017 on the small one's schedule, in a fortieth of the released code's epochs. Batch and
    # rate were chosen on the validation split; the mean over the last epoch takes out the noise of steps that small.
    "paper": {
        "model.name": "capsnet",
        "train.epochs": 15,
        "train.batch_size": 64,
        "train.schedule": "cosine",
        "train.warmup": 0.05,
        "train.learning_rate": 2.5e-3,
        "train.average": 1.0,
    },
    # The same net by the paper's own recipe (sections 4 and 5) and the released code's decay.
    "sabour2017": {"model.name": "capsnet", "train.epochs": 50},
}


def from_preset(name: str) -> Config:
    """The config that a preset stands for."""
    return override(Config(), PRESETS[name] | {"preset": name})


def paths(config: Any = Config, prefix: str = "") -> dict[str, dataclasses.Field]:
    """Every `path` of a config class with its dataclass field, in reading order."""
    found: dict[str, dataclasses.Field] = {}
    for field in dataclasses.fields(config):
        if "doc" in field.metadata:
            found[prefix + field.name] = field
        else:
            found |= paths(field.type, f"{prefix}{field.name}.")
    return found


def flatten(config: Config) -> dict[str, Any]:
    """The config as {path: value}, JSON-able."""

    def get(path: str) -> Any:
        value: Any = config
        for name in path.split("."):
            value = getattr(value, name)
        return list(value) if isinstance(value, tuple) else value

    return {path: get(path) for path in paths()}


def override(config: Config, changes: Overrides) -> Config:
    """The config with `changes` {path: value} applied; every path and value is checked.

    Raises:
        ConfigError: an unknown path, a wrong type or a value out of range.
    """
    for path, value in changes.items():
        config = _replace(config, path.split("."), check(path, value))
    return config


def unflatten(flat: Overrides) -> Config:
    """The config that `flatten` gave `flat` for."""
    return override(Config(), flat)


def _replace(config: Any, names: list[str], value: Any) -> Any:
    head, *rest = names
    new = _replace(getattr(config, head), rest, value) if rest else value
    return dataclasses.replace(config, **{head: new})


def field_of(path: str) -> dataclasses.Field:
    """The field that `path` names, or a ConfigError with the nearest path that exists."""
    known = paths()
    if path not in known:
        # The leaf alone may be right (`iterations`), or the whole path nearly (`routing.iteration`).
        near = [p for p in known if p.rsplit(".", 1)[-1] == path.rsplit(".", 1)[-1]]
        near = near or difflib.get_close_matches(path, known, n=1, cutoff=0)
        raise ConfigError(f"unknown setting {path!r}; did you mean {near[0]!r}?")
    return known[path]


def check(path: str, value: Any) -> Any:
    """`value` in the type of `path`, or a ConfigError that says what the path takes."""
    field = field_of(path)
    meta = field.metadata
    kinds = kinds_of(field)
    if value is None and type(None) in kinds:
        return None
    kind = kinds[0]
    wrong = ConfigError(f"{path} takes {takes(path)}, not {value!r}")
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple) or not all(type(v) is int for v in value):
            raise wrong
        value, numbers = tuple(value), tuple(value)
    elif kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise wrong
        value = float(value)
        numbers = (value,)
    elif type(value) is not kind:
        raise wrong
    else:
        numbers = (value,) if kind is int else ()
    if any(not meta["low"] <= n <= meta["high"] for n in numbers):
        raise wrong
    if meta.get("among") and value not in meta["among"]:
        raise wrong
    return value


def check_word(path: str, word: str, known: Collection[str]) -> None:
    """Raise a ConfigError with the nearest known word if `word` is not one of them."""
    if word not in known:
        near = difflib.get_close_matches(word, known, n=1, cutoff=0)[0]
        raise ConfigError(f"{path} has no {word!r}; did you mean {near!r}? There are: {', '.join(known)}")


def takes(path: str) -> str:
    """In words, which values a path takes."""
    field = field_of(path)
    kind, meta = kinds_of(field)[0], field.metadata
    if meta.get("among"):
        return "one of " + ", ".join(meta["among"])
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    text = words.get(kind, "whole numbers as 512x1024")
    low, high = meta["low"], meta["high"]
    if math.isfinite(low) and math.isfinite(high):
        text += f" from {low:g} to {high:g}"
    elif math.isfinite(low):
        text += f" of at least {low:g}"
    return text + (", or none" if type(None) in kinds_of(field) else "")


def kinds_of(field: dataclasses.Field) -> tuple[Any, ...]:
    """The types that a field takes, None last where it may be None."""
    return typing.get_args(field.type) if isinstance(field.type, types.UnionType) else (field.type,)
