"""How fast is this project beside plain JAX and PyTorch, and how does its speed grow with the work?

Goal: on a CPU, batch 128, paper preset with the decoder, to train 3.5 times as fast as the faster of PyTorch eager and
compiled and to infer twice as fast; three routing iterations for 1.15 times the step of one, and seven for 1.4 times.
What was reached: `results/throughput.csv`.

    python launch.py --experiment=throughput --preset=paper

It takes about 13 minutes on 2 cores; the machine should do nothing else. `capsnet_jax/bench/README.md` says how it
measures. PyTorch is compared where it is installed (`pip install -e '.[peers]'`); peers compute in float32, on a GPU in
TF32, whatever is set. Each setting that --set and --sweep give is measured for itself. Seeds and --across have no
meaning here.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from capsnet_jax import figures as draw
from capsnet_jax import overrides
from capsnet_jax.bench import measure as bench
from capsnet_jax.bench import records
from capsnet_jax.bench.measure import Group
from capsnet_jax.bench.workload import OURS, Workload
from capsnet_jax.config import Config, ConfigError
from capsnet_jax.figures.throughput import by_round, select
from capsnet_jax.overrides import format_value

# The same steps for every preset, and no averages of parameters, which peers do not keep.
CONFIG: dict[str, object] = {"train.batch_size": 128, "train.ema_epochs": 0.0}

SWEEP: list[dict[str, object]] = [{}]

PYTORCH = ("pytorch", "pytorch_compiled")
PEERS = (*PYTORCH, "plain_jax")
# Beginnings of the paths that may vary: what costs nothing, and what peers know too.
FREE = (
    *("preset", "model.name", "data.validation_fraction", "data.train_size", "train.batch_size", "train.epochs"),
    *("train.learning_rate", "train.schedule", "train.warmup", "train.decay", "train.min_learning_rate"),
)
VARIED = (
    *FREE,
    *("model.channels", "model.kernel", "model.capsule_types", "model.primary_dim", "model.class_dim", "model.decoder"),
    *("model.precision", "routing.iterations", "loss.m_", "loss.down_weight", "loss.reconstruction", "data.max_shift"),
)
FIT_IMAGES = 5000  # of mnist_5k


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is measured; a curve without points is left out."""

    rounds: int = 5  # blocks of each subject in the comparisons
    seconds: float = 1.0  # that such a block takes
    curve_rounds: int = 3  # blocks of each point of a curve
    curve_seconds: float = 0.5  # that such a block takes
    compile_rounds: int = 2  # pairs of a cold and a warm compilation
    batch: tuple[int, ...] = (16, 32, 64, 128, 256)
    iterations: tuple[int, ...] = (1, 2, 3, 5, 7)
    classes: tuple[int, ...] = (5, 10, 20, 50)
    side: tuple[int, ...] = (20, 28, 36, 44)
    runs: tuple[int, ...] = (1, 2, 5, 10)
    devices: tuple[int, ...] = (1, 2, 4, 8)  # as far as the machine has them
    seeds: int = 5  # trained together and alone
    epochs: int = 2  # that they are trained for
    seed_rounds: int = 2


EFFORT = Effort()


def requires(setting: Config, data: None) -> None:
    """Raise a ConfigError where a setting cannot be measured; it says the remedy."""
    if not setting.model.name.startswith("capsnet"):
        raise ConfigError("throughput is measured with a CapsNet; nets that torchvision has: throughput_nets")
    check("throughput", setting, CONFIG, VARIED, Workload.num_images)


def measure(settings: Sequence[Config], workdir: Path, stop: Callable[[], int | None]) -> None:
    """Measure what the workdir does not yet have; see `capsnet_jax.bench.measure`."""
    cases = {case(setting, CONFIG): groups(setting, EFFORT) for setting in settings}
    bench.measure(workdir / "throughput.jsonl", cases, stop)


def report(workdir: Path) -> tuple[str, list[dict[str, Any]]]:
    """Return the text for the terminal and the records that figures are drawn from."""
    frame = records.load(workdir / "throughput.jsonl")
    if frame.empty:
        return "", []
    return f"{summary(frame)}\n(median, least to greatest)", frame.to_dict("records")


def figures(measured: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Draw every subject's speed, memory and compile time, and the scaling curves, for each machine and setting."""
    drawn: dict[str, Figure] = {}
    if not measured:
        return drawn
    for number, ((machine, name), rows) in enumerate(_cases(pd.DataFrame(measured))):
        title = f"{name.split()[0]}-{slug(machine)}"
        title += f"-{number}" if any(known.endswith(title) for known in drawn) else ""
        if rows["group"].isin(draw.COMPARED).any():
            drawn[f"subjects-{title}"] = draw.throughput_by_subject(rows)
        if rows["group"].isin(draw.CURVES).any():
            drawn[f"scaling-{title}"] = draw.throughput_scaling(rows)
    return drawn


def groups(setting: Config, effort: Effort) -> list[Group]:
    """Return what is measured of a setting: comparisons at it, and curves through it.

    Curves over batch and iterations are of its preset, those over classes, side, runs and devices of `small`, whose
    steps are short.
    """
    small, other = (
        rebase(setting, CONFIG, name) for name in ("small", "paper" if setting.preset == "small" else "small")
    )
    ours, ours_small = _training(setting), _training(small)
    compared = [ours, _training(other), *(dataclasses.replace(ours, subject=peer) for peer in PEERS)]
    inferred = [dataclasses.replace(w, phase="inference") for w in compared if w.settings["preset"] == setting.preset]
    compiled = [w for w in compared if w.subject in (OURS, "plain_jax") and w.settings["preset"] == setting.preset]
    curves = {
        "iterations": [_training(overrides.override(setting, {"routing.iterations": r})) for r in effort.iterations],
        "batch": [_training(overrides.override(setting, {"train.batch_size": n})) for n in effort.batch],
        "classes": [dataclasses.replace(ours_small, classes=n) for n in effort.classes],
        "side": [dataclasses.replace(ours_small, side=n) for n in effort.side],
    }
    curves = {
        name: [*points, *(dataclasses.replace(w, subject="pytorch") for w in points)] for name, points in curves.items()
    }
    # A single run, and several in both ways to share a program.
    curves["runs"] = [dataclasses.replace(ours_small, runs=n, parallel="map") for n in effort.runs]
    curves["runs"] += [dataclasses.replace(ours_small, runs=n, parallel="vmap") for n in effort.runs if n > 1]
    # A run on each device, and one run whose batches they share.
    curves["devices"] = [dataclasses.replace(ours_small, runs=n, devices=n) for n in effort.devices]
    curves["devices"] += [dataclasses.replace(ours_small, devices=n) for n in effort.devices if n > 1]
    fit = _training(overrides.override(small, {"train.epochs": effort.epochs}))
    fits = [dataclasses.replace(fit, runs=effort.seeds, num_images=FIT_IMAGES)] if effort.seeds else []
    results = [
        Group("training", "blocks", tuple(compared), effort.rounds, effort.seconds),
        Group("inference", "blocks", tuple(inferred), effort.rounds, effort.seconds),
        Group("compile", "compile", tuple(compiled), effort.compile_rounds),
        *(Group(name, "blocks", tuple(w), effort.curve_rounds, effort.curve_seconds) for name, w in curves.items()),
        Group("seeds", "seeds", tuple(fits), effort.seed_rounds),
    ]
    return [group for group in results if group.workloads and group.rounds]


def ratios(frame: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the comparisons of one machine and setting, a value a round, as far as they were measured.

    Speeds above 1 favour this project. Costs (step time over iterations, memory, compile time) should be small.
    """
    preset = frame["case"].iloc[0].split()[0]
    rows = select(frame, preset=preset)
    runs = frame[frame["group"] == "seeds"]["runs"].max()

    def over(group: str, quantity: str, peers: Sequence[str]) -> pd.Series:
        wide = by_round(rows, "subject", group=group, quantity=quantity).reindex(columns=[OURS, *peers])
        return wide[OURS] / wide[list(peers)].max(axis=1)

    presets = by_round(frame, "preset", subject=OURS, group="training", quantity="training")
    steps = 1 / by_round(rows, "iterations", subject=OURS, group="iterations", quantity="training")
    fits = by_round(frame, "quantity", group="seeds")
    results = {
        "training speed / faster of PyTorch": over("training", "training", PYTORCH),
        "inference speed / faster of PyTorch": over("inference", "inference", PYTORCH),
        "training speed / plain JAX": over("training", "training", ["plain_jax"]),
        "inference speed / plain JAX": over("inference", "inference", ["plain_jax"]),
        "training memory / PyTorch eager": over("training", "training_memory", ["pytorch"]),
        "inference memory / PyTorch eager": over("inference", "inference_memory", ["pytorch"]),
        "step time r = 3 / r = 1": quotient(steps, 3, 1),
        "step time r = 7 / r = 1": quotient(steps, 7, 1),
        "training speed small / paper": quotient(presets, "small", "paper"),
        f"{runs} seeds of small alone / in one program, time": quotient(fits, "fit_alone", "fit_together"),
    } | {
        f"compile time, {how} [s]": select(rows, subject=OURS, quantity=f"compile_{how}")["value"]
        for how in ("cold", "warm")
    }
    return {name: values.dropna() for name, values in results.items() if values.notna().any()}


def quotient(wide: pd.DataFrame, above: object, below: object) -> pd.Series:
    """Return a column over another; nothing where one was not measured."""
    return wide[above] / wide[below] if {above, below} <= set(wide) else pd.Series(dtype=float)


def summary(frame: pd.DataFrame) -> str:
    """Return medians of every subject, and the ratios with their spread, for each machine and setting."""
    parts = []
    for (machine, name), rows in _cases(frame):
        compared = rows[rows["group"].isin(draw.COMPARED)]
        table = compared.assign(quantity=compared["quantity"] + " [" + compared["unit"] + "]").pivot_table(
            index=["subject", "preset"], columns="quantity", values="value", aggfunc="median", sort=False
        )
        lines = pd.Series({what: spread(values) for what, values in ratios(rows).items()}, dtype=str)
        text = [table.rename_axis(columns=None).to_string(float_format="{:,.4g}".format, na_rep="")] * (not table.empty)
        parts += [f"{name}, {machine}", *text, lines.to_string() if len(lines) else ""]
    return "\n\n".join(filter(None, parts))


def spread(values: pd.Series) -> str:
    """Return the values' median, least and greatest: 4.21 (4.1 to 4.35, n = 5)."""
    reach = f"{values.min():.3g} to {values.max():.3g}, " if len(values) > 1 else ""
    return f"{values.median():.3g} ({reach}n = {len(values)})"


def to_csv(measured: Sequence[Mapping[str, Any]]) -> str:
    """Return a row a measurement."""
    frame = pd.DataFrame(measured).drop(columns=["digest", "group_size"])
    return frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def slug(machine: str) -> str:
    """Return a machine's name as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")


def _cases(frame: pd.DataFrame) -> Any:
    return frame.groupby(["machine", "case"], sort=False)


def _training(setting: Config) -> Workload:
    return Workload(OURS, "training", overrides.flatten(setting))


def base(setting: Config, defaults: Mapping[str, object]) -> Config:
    """Return how an experiment measures a setting's preset and model; `defaults` is its CONFIG."""
    return overrides.from_preset(setting.preset, {**defaults, "model.name": setting.model.name})


def changes(setting: Config, defaults: Mapping[str, object]) -> dict[str, object]:
    """Return what a setting changes there, {path: value}; the model's name if it is not its preset's."""
    before, name = overrides.flatten(base(setting, defaults)), setting.model.name
    other = name != overrides.from_preset(setting.preset).model.name
    changed = {path: value for path, value in overrides.flatten(setting).items() if value != before.get(path)}
    return {"model.name": name} | changed if other else changed


def rebase(setting: Config, defaults: Mapping[str, object], preset: str) -> Config:
    """Return the same changes made to another preset."""
    return overrides.from_preset(preset, {**defaults, **changes(setting, defaults)})


def case(setting: Config, defaults: Mapping[str, object]) -> str:
    """Return a setting as text: its preset, and what it changes there."""
    return " ".join(
        [setting.preset, *(f"{path}={format_value(value)}" for path, value in changes(setting, defaults).items())]
    )


def check(name: str, setting: Config, defaults: Mapping[str, object], varied: tuple[str, ...], most: int) -> None:
    """Raise a ConfigError for a large batch, or for a setting that peers do not know.

    They know the small preset's values, and any of a path that starts as one of `varied`.
    """
    known = overrides.flatten(overrides.from_preset("small", {**defaults, "model.name": setting.model.name}))
    given = overrides.flatten(setting)
    for path, value in given.items():
        if value != known.get(path, value) and not path.startswith(varied):
            why = "images are synthetic" if path == "data.dataset" else "its peers know no other"
            raise ConfigError(f"{name} is measured with {path}={format_value(known[path])}; {why}")
    if setting.train.batch_size > most:
        raise ConfigError(f"{name} is measured on {most} images; lower train.batch_size")
