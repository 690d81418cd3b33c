"""Grid × seeds in the fewest programs: loop over static choices, side by side over traced numbers and seeds."""

import contextlib
import dataclasses
import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from capsnet_jax import config, data, models, routing
from capsnet_jax.sweeps import checkpoint, records
from capsnet_jax.sweeps import pretrain as source
from capsnet_jax.sweeps.interrupt import Interrupted
from capsnet_jax.sweeps.progress import Progress
from capsnet_jax.sweeps.records import Cell, CellWriter
from capsnet_jax.training import evaluation
from capsnet_jax.training import finetune as partition
from capsnet_jax.training import step as train
from capsnet_jax.training.parallel import chosen

CHECKPOINT_SECONDS = 30.0


class Diverged(Exception):  # noqa: N818 - what happened to some runs; the others are fine
    """Runs whose loss was no longer finite; the message has a line for each, with its step and the remedy."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a sweep is carried out; nothing here changes a result.

    Attributes:
        workdir: where records go, as described in `records`; held by this process alone.
        across: "map" or "vmap", how runs share a program; "auto" takes what the platform does best.
        command: what to type to run one cell alone.
        stop: tells the signal that asked to stop, or None; polled between chunks of about two seconds.
    """

    workdir: Path
    across: str
    command: Callable[[Cell], str]
    stop: Callable[[], int | None]


def run(cells: Sequence[Cell], plan: Plan) -> None:
    """Train every cell that is not finished, and leave its record in the workdir.

    Raises:
        ConfigError, DataError: before anything is trained.
        Interrupted: after saving; the same call continues.
        Diverged: after all other cells are finished.
    """
    plan = dataclasses.replace(plan, across=chosen(plan.across))
    used = {cell.config.data for cell in [*cells, *source.sources_of(cells)]}
    datasets = {settings: load_data(settings) for settings in used}
    check(cells, datasets)

    settle(plan.workdir)
    sources = source.sources_of(cell for cell in cells if not records.finished(plan.workdir, cell))
    # A record may have come without its parameters: such a source is trained again, to the same result.
    missing = [cell for cell in sources if not (plan.workdir / "cells" / cell.name / "params").exists()]
    _train(missing, sources, datasets, plan)
    _train([cell for cell in cells if not records.finished(plan.workdir, cell)], cells, datasets, plan)


def _train(
    pending: Sequence[Cell], cells: Sequence[Cell], datasets: Mapping[config.Data, data.Dataset], plan: Plan
) -> None:
    """Train those of the cells that are pending, program after program."""
    groups = programs(pending)
    progress = Progress(sum(_images(group, datasets[group[0].config.data]) for group in groups))
    if len(pending) < len(cells):
        progress.say(f"{len(cells) - len(pending)} of {len(cells)} runs are finished already")
    compiling = 0.0
    for number, group in enumerate(groups, 1):
        title = f"[{number}/{len(groups)}] {_title(group, cells)}"
        compiling += _train_together(group, datasets, plan, progress, title)
    if groups:
        progress.say(f"{len(pending)} runs in {len(groups)} compiled training programs ({compiling:.1f} s)")
    if failures := [line for cell in cells if (line := _failure(plan.workdir, cell))]:
        raise Diverged("\n".join(failures))


def settle(workdir: Path) -> None:
    """Give every cell of a program that is through its result, also those that a kill came before."""
    for path in workdir.glob("programs/*/results.json"):
        results = json.loads(path.read_text())
        for name, result in results.items():
            folder = workdir / "cells" / name
            if folder.exists() and not (folder / "result.json").exists():
                records.write_result(folder, result)
        if all(result["diverged_step"] < 0 for result in results.values()):
            shutil.rmtree(path.parent)
    with contextlib.suppress(OSError):  # others are still being trained, or there were none
        (workdir / "programs").rmdir()


def programs(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells in groups of one structure; each group is one compiled program."""
    groups: dict[Any, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(jax.tree.structure(cell.config), []).append(cell)
    return list(groups.values())


def load_data(settings: config.Data) -> data.Dataset:
    """The data set that a config asks for."""
    return data.load(
        settings.dataset,
        label_key=settings.label or None,
        validation_fraction=settings.validation_fraction,
        train_size=settings.train_size,
        transform=settings.variant,
    )


def check(cells: Sequence[Cell], datasets: Mapping[config.Data, data.Dataset]) -> None:
    """Look for mistakes before anything is trained.

    Raises:
        ConfigError: no such model, router or layer, a batch larger than the set, or images too small.
    """
    for cell in (group[0] for group in programs(cells)):
        settings, dataset = cell.config, datasets[cell.config.data]
        config.check_word("model.name", settings.model.name, models.MODELS)
        config.check_word("routing.name", settings.routing.name, routing.ROUTERS)
        if train.steps_per_epoch(settings, dataset.train) == 0:
            raise config.ConfigError(
                f"train.batch_size={settings.train.batch_size} is more than the"
                f" {dataset.train.labels.shape[0]} training images of {dataset.name}; lower it"
            )
        params = _shapes(settings, dataset)
        partition.check_frozen(params, settings.train.frozen)
        if start := source.source_of(cell):
            partition.check_taken(params, _shapes(start.config, datasets[start.config.data]), settings.transfer)


def _shapes(settings: config.Config, dataset: data.Dataset) -> dict[str, Any]:
    """Shapes of a model's parameters, layer by layer.

    Raises:
        ConfigError: the images are too small.
    """
    model = models.build(settings, dataset.classes)
    try:
        return jax.eval_shape(partial(models.init, model, jax.random.key(0), dataset.image_shape))
    except ValueError as error:
        raise config.ConfigError(f"{settings.model.name} on {dataset.name}: {error}") from error


def _train_together(
    group: list[Cell], datasets: Mapping[config.Data, data.Dataset], plan: Plan, progress: Progress, title: str
) -> float:
    """Train the cells of one program to their results; returns the seconds of compiling."""
    dataset = datasets[group[0].config.data]
    configs, seeds = [cell.config for cell in group], [cell.seed for cell in group]
    batch = configs[0].train.batch_size * len(group)
    folder = plan.workdir / "programs" / _digest([cell.name for cell in group])
    start = checkpoint.restore(folder, train.abstract_states(configs, seeds, dataset))
    if start is None:
        states = train.initial_states(configs, seeds, dataset, across=plan.across)
        if begun := source.source_of(group[0]):
            states = source.starting(states, group, plan.workdir, datasets[begun.config.data])
        start = checkpoint.Restored(0, states, [])
    step, history = start.step, start.history
    progress.skip(step * batch)
    progress.say(f"{title}: compiling" + (f", going on from step {step}" if step else ""))
    writers = [
        CellWriter(plan.workdir / "cells" / cell.name, cell, plan.command(cell), _of_run(history, i))
        for i, cell in enumerate(group)
    ]
    saved = time.monotonic()
    for at in train.fit(configs, seeds, dataset, across=plan.across, start=start):
        new_epochs, history = at.history[len(history) :], at.history
        for i, writer in enumerate(writers):
            for row in _of_run(new_epochs, i):
                writer.epoch(row)
        where = f"{title} · {_where(at, configs[0].train.epochs)}"
        progress.advance((at.step - step) * batch, where, keep=bool(new_epochs))
        step = at.step
        signum, hopeless = plan.stop(), bool(np.all(np.asarray(at.states.diverged) >= 0))
        if signum or time.monotonic() - saved > CHECKPOINT_SECONDS:
            checkpoint.save(folder, step, at.states, history)
            saved = time.monotonic()
        if signum:
            raise Interrupted(signum)
        if hopeless:
            progress.skip((at.total - step) * batch)
            break
    for writer in writers:
        writer.close()
    _finish(group, at, dataset, plan, folder)
    return at.compile_seconds


def _finish(group: list[Cell], at: train.Progress, dataset: data.Dataset, plan: Plan, folder: Path) -> None:
    """Read the test set, keep the parameters, and write all the program's results at once."""
    tested = evaluation.test([cell.config for cell in group], *at.states.judged, dataset, across=plan.across)
    diverged = np.asarray(at.states.diverged).tolist()
    results = {}
    for i, cell in enumerate(group):
        params, stats = jax.tree.map(lambda leaf, i=i: leaf[i], at.states.judged)
        rows = _of_run(at.history, i)
        speeds = [row["images_per_second"] for row in rows] or [math.nan]
        last = {name: value for name, value in (rows[-1] if rows else {}).items() if "_at_" not in name}
        result = last | {name: values[i] for name, values in tested.items()}
        if diverged[i] < 0:
            # Statistics first: who finds parameters finds all of the run.
            if stats:
                checkpoint.save_params(plan.workdir / "cells" / cell.name / "stats", stats)
            checkpoint.save_params(plan.workdir / "cells" / cell.name / "params", params)
        else:
            result |= dict.fromkeys(tested, math.nan)
        results[cell.name] = result | {
            "images_per_second": float(np.median(speeds)),
            "parameters": models.count_parameters(params),
            "diverged_step": diverged[i],
        }
    if max(diverged) >= 0:
        checkpoint.save(folder, at.step, at.states, at.history)
    records.write_json(folder / "results.json", results)
    settle(plan.workdir)


def _failure(workdir: Path, cell: Cell) -> str | None:
    """A line on a finished cell that diverged, else None."""
    step = records.load_cell(workdir / "cells" / cell.name).result["diverged_step"]
    if step < 0:
        return None
    states = [p.parent for p in workdir.glob("programs/*/results.json") if cell.name in json.loads(p.read_text())]
    return (
        f"{cell.name}: loss not finite at step {step:.0f}; lower train.learning_rate, or raise train.warmup."
        f" The state before it is in {', '.join(map(str, states))}"
    )


def _images(group: list[Cell], dataset: data.Dataset) -> int:
    settings = group[0].config
    steps = train.steps_per_epoch(settings, dataset.train) * settings.train.epochs
    return steps * settings.train.batch_size * len(group)


def _of_run(history: Sequence[dict[str, Any]], run: int) -> list[dict[str, Any]]:
    """One run's rows of a history whose metrics hold one value a run."""
    return [{n: v[run] if isinstance(v, list) else v for n, v in row.items()} for row in history]


def _where(at: train.Progress, epochs: int) -> str:
    """Epoch, latest metrics (mean over runs) and speed."""
    steps = at.total // epochs
    text = f"epoch {at.step / steps:.1f}/{epochs}"
    if at.history:
        last = at.history[-1]
        loss, error = np.mean(last["train_loss"]), np.mean(last["validation_error"])
        text += f" · train loss {loss:.4f}"
        text += "" if math.isnan(error) else f" · validation error {error:.2f} %"
    return f"{text} · {at.images_per_second:,.0f} images/s"


def _title(group: list[Cell], cells: Sequence[Cell]) -> str:
    """What sets this group apart from the others, and how many runs it holds."""
    flats = [config.flatten(cell.config) for cell in cells]
    own = config.flatten(group[0].config)
    shared = [config.flatten(cell.config) for cell in group]
    apart = [
        f"{path}={own[path]}"
        for path in own
        if any(flat[path] != own[path] for flat in flats) and all(flat[path] == own[path] for flat in shared)
    ]
    runs = f"{len(group)} runs"
    return f"{' '.join(apart)} × {runs}" if apart else runs


def _digest(names: list[str]) -> str:
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]
