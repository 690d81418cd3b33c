"""Settings: frozen dataclasses whose fields say whether a compiled program takes them as an argument.

A config is a JAX pytree. Its *leaves* are numbers that a compiled program takes as arguments (fields made with
`traced`), so many values of them run side by side in one program. Everything else (fields made with `static`) is
*structure*: another value of it is another program. `jax.tree.structure(config)` therefore tells which runs share a
compilation.

A model, a router and a loss each have settings of their own, a dataclass beside them. `Choice` holds the name that was
chosen and those settings. Module `overrides` finds the field of a path such as `routing.iterations`.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar, dataclass_transform

import jax

T = TypeVar("T")
UNIONS = (types.UnionType, typing.Union)
# What programs hold: the least and the greatest size of numbers, 0 aside. Beyond them float32 has 0 and infinity.
INT32 = (1, 2**31 - 1, "int32: up to 2147483647")
FLOAT32 = (1.1754944e-38, 3.4028234e38, "float32: 0, or of a size from 1.2e-38 to 3.4e+38")
MAX_RUNS = 100_000  # a person who asks for more has mistyped


class ConfigError(Exception):
    """A setting that cannot be used. The message is one line with the mistake and the remedy."""


def traced(
    default: float,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    only_if: Callable[[Any], bool] | None = None,
    doc: str,
) -> Any:
    """Make a traced field: a float in [low, high] that programs take as an argument, so that it can be vmapped.

    Args:
        default: the value if no other is given.
        low: the least value.
        high: the greatest value.
        only_if: tells from the dataclass whether this field makes any difference beside its other fields.
        doc: what it means, in a few words.
    """
    return dataclasses.field(
        default=default, metadata={"traced": True, "low": low, "high": high, "only_if": only_if, "doc": doc}
    )


def static(
    default: Any,
    *,
    choices: Collection[Any] = (),
    low: float = -math.inf,
    high: float = math.inf,
    only_if: Callable[[Any], bool] | None = None,
    doc: str,
) -> Any:
    """Make a static field, a part of the program's structure; arguments as of `traced`.

    Args:
        default: the value if no other is given.
        choices: the values that are allowed, such as the keys of a registry; empty: not limited to a list.
        low: least value of a number.
        high: greatest value of a number.
        only_if: tells from the dataclass whether this field makes any difference beside its other fields.
        doc: what it means, in a few words.
    """
    metadata = {"traced": False, "choices": choices, "low": low, "high": high, "only_if": only_if, "doc": doc}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass_transform(frozen_default=True)
def pytree_dataclass(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass and a pytree: traced fields and inner dataclasses are children."""
    cls = dataclasses.dataclass(frozen=True)(cls)
    hints = typing.get_type_hints(cls)  # types may be text, as under `from __future__ import annotations`
    cls.__no_type_check__ = True  # type: ignore[attr-defined]  # JAX puts arrays, shapes and tracers in place of numbers
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    for field in fields:
        field.type = hints.get(field.name, field.type)
    children = [f.name for f in fields if f.metadata.get("traced", True)]
    structure = [f.name for f in fields if f.name not in children]
    return jax.tree_util.register_dataclass(cls, data_fields=children, meta_fields=structure)


@pytree_dataclass
class NoSettings:
    """The settings of what has none."""


@pytree_dataclass
class Choice:
    """One entry of a registry, with its own settings."""

    name: str = static("", doc="a key of the registry")
    settings: Any = dataclasses.field(default_factory=NoSettings)


@pytree_dataclass
class Data:
    """Which images, and how they are split and augmented."""

    dataset: str = static("mnist_5k", doc="a name in --list, or any tfds image-classification set")
    label: str = static("", doc="the label's key where the set has several; empty: its only one")
    validation_fraction: float = static(0.1, low=0, high=0.9, doc="share of each class of train that is held out")
    train_size: int = static(0, low=0, doc="train on that many images, balanced by class; 0: all of them")
    max_shift: int = static(2, low=0, high=64, doc="augmentation: random shift by at most that many pixels")
    shift_order: str = static(
        "random",
        choices=("random", "in_turn"),
        only_if=lambda data: not data.dataset.startswith("multi_"),
        doc="random shifts; or every shift of an image in turn, in the order of the released CapsNet's file",
    )
    max_rotation: float = static(0.0, low=0, high=180, doc="augmentation: random turn by at most that many degrees")
    flip: bool = static(False, doc="augmentation: mirror half of the images left to right")
    transform: str = static(
        "none", choices=("none", "inverted", "rotated"), doc="every image of every split inverted, or turned by 90°"
    )
    image_size: int = static(
        28,
        low=1,
        high=1024,
        only_if=lambda data: data.dataset.startswith("folder:"),
        doc="pixels of each side that a folder's pictures are brought to",
    )


@pytree_dataclass
class Reconstruction:
    """The decoder of a model that has one, and what its error weighs."""

    reconstruction: bool = static(True, doc="whether a decoder reconstructs the image")
    reconstruction_weight: float = traced(
        0.0005, low=0, only_if=lambda settings: settings.reconstruction, doc="of the sum of squared pixel differences"
    )


@pytree_dataclass
class Train:
    """How the loss is minimised: an optimizer with a schedule of its learning rate."""

    epochs: int = static(10, low=1, doc="passes over the training split")
    batch_size: int = static(128, low=1, doc="images a step")
    optimizer: str = static("adam", doc="a key of capsnet_jax.training.optimizer.OPTIMIZERS")
    learning_rate: float = traced(1e-3, low=0, doc="greatest learning rate of the schedule")
    schedule: str = static("exponential", doc="a key of capsnet_jax.training.schedule.SCHEDULES")
    decay_rate: float = traced(
        0.96,
        low=0,
        high=1,
        only_if=lambda train: train.schedule not in ("cosine", "halving"),
        doc="exponential: factor for every `decay_steps` steps",
    )
    decay_steps: float = traced(
        2000.0,
        low=0,
        only_if=lambda train: train.schedule not in ("cosine", "halving"),
        doc="exponential: steps; 0: a 150th of all, the part that the released code has",
    )
    min_learning_rate: float = traced(1e-6, low=0, doc="least learning rate")
    warmup: float = traced(0.0, low=0, high=0.9, doc="part of all steps in which the learning rate rises from 0")
    weight_decay: float = traced(
        0.0, low=0, doc="of all but vectors, biases and priors, each step by this times the learning rate (AdamW)"
    )
    ema_epochs: float = static(0.0, low=0, doc="evaluate and keep the mean over about so many last epochs; 0: the last")
    clip: float = static(0.0, low=0, doc="greatest norm of a batch's mean gradient; 0: any")
    frozen: str = static("none", doc="layers that stay as they start, joined by +, as conv1+primary")


@pytree_dataclass
class Finetune:
    """From which trained network a run starts, and which of its layers are copied."""

    source: str = static(
        "none", doc="data set that the same network is first trained on, by its preset; or run:…, see --start_from"
    )
    reinitialize: str = static(
        "head",
        only_if=lambda finetune: finetune.source != "none",
        doc="layers that start anew, joined by +; head: those that tell the classes",
    )
    lr_multiplier: float = traced(
        1.0,
        low=0,
        only_if=lambda finetune: finetune.source != "none",
        doc="times train.learning_rate: the rate of the other layers",
    )

    @property
    def starts_from_run(self) -> bool:
        """Whether the source is a finished run, and not a data set; see `sweeps.start_from`."""
        return self.source.startswith("run:")


@pytree_dataclass
class Eval:
    """What is observed beside errors. It changes no run, so it is no part of a run's identity."""

    max_routing_iterations: int = static(
        0, low=0, high=20, doc="also route with 1 to so many iterations, to see what each one does; 0: none"
    )
    couplings: bool = static(False, doc="also measure the couplings' entropy, and how they vary between images")
    test_each_epoch: bool = static(
        False, doc="also test after each epoch, to show what choosing an epoch on the test set would claim"
    )
    dead: bool = static(False, doc="also count dead and nearly dead channels, and capsules that are dead or starve")


@pytree_dataclass
class Config:
    """Everything that determines a run besides its seed, and nothing else.

    Attributes:
        preset: the preset that it started from.
        data: images, splits, augmentation.
        model: a key of MODELS, with that model's settings.
        routing: a key of ROUTERS, with that router's settings; None in a model that does not route.
        loss: a key of LOSSES, with that loss's settings.
        reconstruction: None in a model that has no decoder.
        train: optimizer and schedule.
        finetune: the trained network that the run starts from.
    """

    preset: str = static("small", doc="the preset it started from")
    data: Data = dataclasses.field(default_factory=Data)
    model: Choice = dataclasses.field(default_factory=Choice)
    routing: Choice | None = None
    loss: Choice = dataclasses.field(default_factory=Choice)
    reconstruction: Reconstruction | None = None
    train: Train = dataclasses.field(default_factory=Train)
    finetune: Finetune = dataclasses.field(default_factory=Finetune)


PRESETS: dict[str, dict[str, Any]] = {
    # A CapsNet for studies on a laptop. Warm-up and a cosine schedule reach in ten epochs what the paper's
    # slow exponential decay takes hundreds for; chosen on the validation split.
    "small": {
        "model.name": "capsnet_small",
        "train.schedule": "cosine",
        "train.warmup": 0.05,
        "train.learning_rate": 3e-3,
    },
    # The net of Sabour et al. 2017 on the small one's schedule, in a fortieth of the released code's epochs. Batch size
    # and learning rate were chosen on the validation split; the mean over the last epoch takes out the noise of steps.
    "paper": {
        "model.name": "capsnet",
        "train.epochs": 15,
        "train.batch_size": 64,
        "train.schedule": "cosine",
        "train.warmup": 0.05,
        "train.learning_rate": 2.5e-3,
        "train.ema_epochs": 1.0,
    },
    # The same net by the paper's own recipe (sections 4 and 5) and the released code's decay.
    "sabour2017": {"model.name": "capsnet", "train.epochs": 50},
    # What the released code does where it differs, for its 300,000 steps of 128 images.
    "released": {
        "model.name": "capsnet",
        "model.divide_primary": True,
        "model.start": "released",
        "routing.bias": True,
        "loss.form": "official",
        "data.shift_order": "in_turn",
        "data.validation_fraction": 0.0,
        "train.epochs": 640,
        "train.schedule": "exponential",
        "train.decay_steps": 0.0,
        "train.warmup": 0.0,
        "train.learning_rate": 1e-3,
    },
}


def check_value(path: str, field: dataclasses.Field, value: Any) -> Any:
    """Return `value` in the type of a field; text is read as people type it.

    Args:
        path: the field's name in messages.
        field: made by `traced` or `static`.
        value: a value, or the text that spells it.

    Raises:
        ConfigError: a wrong type or a value out of range; the message says what the field takes.
    """
    kinds = types_of(field)
    text = isinstance(value, str) and kinds[0] is not str
    if type(None) in kinds and (value is None or (text and value.lower() == "none")):
        return None
    try:
        parsed = _read_text(kinds[0], value) if text else value
    except (ValueError, KeyError):
        parsed = value
    wrong = ConfigError(f"{path} takes {describe_domain(field)}, not {value!r}")
    kind = kinds[0]
    if typing.get_origin(kind) is tuple:
        if not isinstance(parsed, list | tuple) or not all(type(v) is int for v in parsed):
            raise wrong
        parsed = numbers = tuple(parsed)
    elif kind is float:
        if isinstance(parsed, bool) or not isinstance(parsed, int | float) or not abs(parsed) < math.inf:
            raise wrong
        numbers = (parsed,)
    elif type(parsed) is not kind:
        raise wrong
    else:
        numbers = (parsed,) if kind is int else ()
    if any(not field.metadata["low"] <= n <= field.metadata["high"] for n in numbers):
        raise wrong
    least, greatest, held = FLOAT32 if kind is float else INT32
    if any(n and not least <= abs(n) <= greatest for n in numbers):
        raise ConfigError(f"{wrong}; programs hold {held}")
    choices = field.metadata.get("choices")
    if choices and parsed not in choices:
        raise wrong
    return float(parsed) if kind is float else parsed


def check_runs(first_seed: int, seeds: int, settings: int = 1) -> None:
    """Look whether so many runs can be meant, before anything of their number is made.

    Args:
        first_seed: the least seed, at least 0.
        seeds: how many seeds there are.
        settings: how many settings are compared.

    Raises:
        ConfigError: more than `MAX_RUNS`, or a seed that int32 does not hold.
    """
    if settings * seeds > MAX_RUNS:
        raise ConfigError(
            f"{settings * seeds:,} runs are asked for, of {settings:,} × {seeds:,} settings and seeds;"
            f" at most {MAX_RUNS:,} can be: lower --seeds, or sweep fewer values"
        )
    if (last := first_seed + seeds - 1) > INT32[1]:
        raise ConfigError(f"--first_seed={first_seed} leads to seed {last}; lower it, programs hold {INT32[2]}")


def describe_domain(field: dataclasses.Field) -> str:
    """Say in words which values a field takes."""
    kind, meta = types_of(field)[0], field.metadata
    if meta.get("choices"):
        return "one of " + ", ".join(map(str, meta["choices"]))
    kinds = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    text = kinds.get(kind, "whole numbers as 512x1024")
    low, high = meta["low"], meta["high"]
    if math.isfinite(low) and math.isfinite(high):
        text += f" from {low:g} to {high:g}"
    elif math.isfinite(low):
        text += f" of at least {low:g}"
    return text + (", or none" if type(None) in types_of(field) else "")


def check_word(path: str, word: str, known: Collection[str]) -> None:
    """Raise a ConfigError with the nearest known word if `word` is not one of them."""
    if word not in known:
        near = nearest(word, known)
        raise ConfigError(f"{path} has no {word!r}; did you mean {near!r}? There are: {', '.join(known)}")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that is most like a word; upper case, and - for _, make no difference."""

    def plain(text: object) -> str:
        return str(text).lower().replace("-", "_")

    by_plain = {plain(each): each for each in known}
    return by_plain[difflib.get_close_matches(plain(word), by_plain, n=1, cutoff=0)[0]]


def makes_difference(settings: Any, field: dataclasses.Field) -> bool:
    """Whether a field of a settings dataclass makes any difference beside its other fields."""
    only_if = field.metadata.get("only_if")
    return only_if is None or only_if(settings)


def types_of(field: dataclasses.Field) -> tuple[Any, ...]:
    """Return the types that a field takes, None last where it may be None."""
    kinds = typing.get_args(field.type) if typing.get_origin(field.type) in UNIONS else (field.type,)
    return tuple(sorted(kinds, key=lambda kind: kind is type(None)))


def _read_text(kind: Any, text: str) -> Any:
    if typing.get_origin(kind) is tuple:
        return tuple(int(part) for part in text.split("x"))
    if kind is bool:
        return {"true": True, "false": False}[text.lower()]
    return kind(text)
