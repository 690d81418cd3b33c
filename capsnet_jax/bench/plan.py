"""Which groups of measurements there are, and what is in each."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

from capsnet_jax import config
from capsnet_jax.bench.workload import IMAGES, Workload
from capsnet_jax.config import Config, ConfigError
from capsnet_jax.overrides import spell

EXPERIMENT = "throughput"
PEERS = ("pytorch", "pytorch_compiled", "plain_jax")
PACKAGES = {"torch": "pytorch"}  # that peers need, and what the environment calls them
LIBRARY = "PyTorch"
# What presets are compared at: the same steps for each, and no averages of parameters, which the peers do not keep.
USUAL: dict[str, object] = {"train.batch_size": 128, "train.average": 0.0}


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is measured; the default takes about thirteen minutes on two cores.

    Attributes:
        rounds: blocks of each subject in the comparisons.
        seconds: that such a block takes.
        slow_rounds: blocks of a subject whose step takes more than five blocks' time.
        curve_rounds: blocks of each point of a curve.
        curve_seconds: that such a block takes.
        compile_rounds: pairs of a cold and a warm compilation, each process new.
        batches, iterations, classes, sides, runs: points of the curves; without points there is no curve.
        seeds: that are trained together and alone; 0 leaves that out.
        epochs: that they are trained for.
        seed_rounds: how often.
    """

    rounds: int = 5
    seconds: float = 1.0
    slow_rounds: int = 2
    curve_rounds: int = 3
    curve_seconds: float = 0.5
    compile_rounds: int = 2
    batches: tuple[int, ...] = (16, 32, 64, 128, 256)
    iterations: tuple[int, ...] = (1, 2, 3, 5, 7)
    classes: tuple[int, ...] = (5, 10, 20, 50)
    sides: tuple[int, ...] = (20, 28, 36, 44)
    runs: tuple[int, ...] = (1, 2, 5, 10)
    seeds: int = 5
    epochs: int = 2
    seed_rounds: int = 2


EFFORT = Effort()


class Group(NamedTuple):
    """Workloads that are measured in turns.

    Attributes:
        name: unique in a case.
        kind: "blocks" of steps, "compile" times, or whole "fits".
        workloads: to be measured; for "fits", the one that all runs train together.
        rounds: how often.
        seconds: that a block takes.
        starts: how often new processes do all that: which memory a process gets may decide its speed for good.
    """

    name: str
    kind: str
    workloads: tuple[Workload, ...]
    rounds: int
    seconds: float = 0.0
    starts: int = 1

    @property
    def digest(self) -> str:
        """A name for exactly these measurements."""
        asked = [self.kind, [dataclasses.asdict(w) for w in self.workloads], self.rounds, self.seconds]
        asked += [self.starts] if self.starts > 1 else []
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def groups(setting: Config, peers: Sequence[str], effort: Effort) -> list[Group]:
    """What is measured for one setting: the comparisons at it, and the curves that pass through it.

    Curves over batch and iterations keep the setting's preset; those over classes, image side and runs are of the
    small one, whose steps are short.
    """
    small = rebase(setting, "small")
    other = rebase(setting, "paper" if setting.preset == "small" else "small")
    eager = [peer for peer in peers if peer == "pytorch"]

    def curve(name: str, workloads: list[Workload]) -> Group:
        return Group(name, "blocks", tuple(workloads), effort.curve_rounds, effort.curve_seconds)

    def against(name: str, points: list[Workload]) -> Group:
        theirs = [dataclasses.replace(point, subject=peer) for peer in eager for point in points]
        return curve(name, points + theirs)

    both = [_training(setting), _training(other)]
    compared = [*both, *(dataclasses.replace(both[0], subject=peer) for peer in peers)]
    inferred = [dataclasses.replace(w, phase="inference") for w in compared if w.preset == setting.preset]
    compiled = [w for w in compared if w.subject in ("capsnet_jax", "plain_jax") and w.preset == setting.preset]

    def at(path: str, values: Sequence[int]) -> list[Workload]:
        return [_training(config.override(setting, {path: value})) for value in values]

    found = [
        Group("training", "blocks", tuple(compared), effort.rounds, effort.seconds),
        Group("inference", "blocks", tuple(inferred), effort.rounds, effort.seconds),
        Group("compile", "compile", tuple(compiled), effort.compile_rounds),
        against("iterations", at("routing.iterations", effort.iterations)),
        against("batch", at("train.batch_size", effort.batches)),
        against("classes", [dataclasses.replace(_training(small), classes=n) for n in effort.classes]),
        against("side", [dataclasses.replace(_training(small), side=n) for n in effort.sides]),
        curve("runs", _runs(_training(small), effort.runs)),
    ]
    if effort.seeds:
        together = dataclasses.replace(
            _training(config.override(small, {"train.epochs": effort.epochs})), runs=effort.seeds
        )
        found.append(Group("seeds", "fits", (together,), effort.seed_rounds))
    return [group for group in found if group.workloads and group.rounds]


def check(setting: Config) -> None:
    """Raise a ConfigError for a setting that cannot be measured here: peers know CapsNet, as the paper has it."""
    wanted = {"routing.name": "dynamic", "routing.gradient": "full", "loss.form": "paper", "data.dataset": "mnist_5k"}
    flat = config.flatten(setting)
    for path, value in wanted.items():
        if flat[path] != value:
            images = "; images are synthetic" if path == "data.dataset" else "; its peers are written for that"
            raise ConfigError(f"throughput is measured with {path}={value}{images}")
    if not setting.model.name.startswith("capsnet") or setting.routing.temperature != 1:
        raise ConfigError(
            "throughput is measured with a CapsNet at routing.temperature=1, its peers know no other;"
            " networks that torchvision has are measured by throughput_nets"
        )
    if setting.train.batch_size > IMAGES:
        raise ConfigError(f"throughput is measured on {IMAGES} images; lower train.batch_size")


def rebase(setting: Config, preset: str) -> Config:
    """The same changes made to another preset."""
    return config.override(_usual(preset), changes(setting))


def case(setting: Config) -> str:
    """A setting in words: its preset and what it changes there."""
    return " ".join([setting.preset, *(f"{path}={spell(value)}" for path, value in changes(setting).items())])


def changes(setting: Config) -> dict[str, object]:
    """What a setting changes in its preset as it is usually measured, {path: value}."""
    original = config.flatten(_usual(setting.preset))
    return {path: value for path, value in config.flatten(setting).items() if value != original[path]}


def _usual(preset: str) -> Config:
    return config.override(config.from_preset(preset), USUAL)


def _training(setting: Config) -> Workload:
    return Workload("capsnet_jax", "training", config.flatten(setting))


def _runs(one: Workload, counts: Sequence[int]) -> list[Workload]:
    """A single run, and several in both ways of sharing a program."""
    alone = [dataclasses.replace(one, runs=n, across="map") for n in counts if n == 1]
    shared = [dataclasses.replace(one, runs=n, across=a) for a in ("map", "vmap") for n in counts if n > 1]
    return alone + shared
