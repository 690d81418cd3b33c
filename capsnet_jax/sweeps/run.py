"""Settings × seeds in the fewest programs: programs one after the other, runs of a program side by side.

Several processes may work in one workdir. Each program is locked while it is trained, so what one process trains no
other does; what is locked elsewhere is waited for, and found finished.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from capsnet_jax import data, models
from capsnet_jax.config import Data
from capsnet_jax.overrides import flatten
from capsnet_jax.sweeps import checkpoint, records
from capsnet_jax.sweeps.code import code_of, differing_files
from capsnet_jax.sweeps.events import EventWriter
from capsnet_jax.sweeps.interrupt import Interrupted
from capsnet_jax.sweeps.lock import ProgramLock
from capsnet_jax.sweeps.plan import Plan, check, group_by_program, load_data, title
from capsnet_jax.sweeps.pretrain import initialize_from_pretrained, pretraining_run, pretraining_runs
from capsnet_jax.sweeps.progress import Progress
from capsnet_jax.sweeps.records import Record, Run
from capsnet_jax.training import evaluation
from capsnet_jax.training.fit import FitProgress, abstract_states, fit, initial_states
from capsnet_jax.training.parallel import resolve
from capsnet_jax.training.step import steps_per_epoch

CHECKPOINT_SECONDS = 30.0
WAIT_SECONDS = 1.0  # between looks at programs that other processes train

Datasets = Mapping[Data, data.Dataset]


class Diverged(Exception):  # noqa: N818 - what happened to some runs; the others are fine
    """Runs whose loss was no longer finite; the message has a line for each, with its step and the remedy."""


def load_and_check(runs: Sequence[Run]) -> Datasets:
    """Load the data sets of runs, and look for mistakes before anything is written or trained.

    Raises:
        ConfigError, DataError: a run cannot be trained.
    """
    used = dict.fromkeys(run.config.data for run in [*runs, *pretraining_runs(runs)])
    datasets = {settings: load_data(settings) for settings in used}
    check(runs, datasets)
    return datasets


def train_all(runs: Sequence[Run], plan: Plan, datasets: Datasets) -> None:
    """Train every run that is not finished, and leave its record in the workdir.

    Args:
        runs: what is to be there in the end.
        plan: how.
        datasets: from `load_and_check`.

    Raises:
        Interrupted: after saving; the same call continues.
        Diverged: after all other runs are finished.
    """
    plan = dataclasses.replace(plan, parallel=resolve(plan.parallel))
    before = records.load_all(plan.workdir)
    pending = [run for run in runs if plan.rerun or not is_finished(run, before.get(run.name))]
    sources = pretraining_runs(pending)
    # A record may have come without its parameters: such a source is trained again, to the same result.
    missing = [
        run for run in sources if not has_params(plan.workdir, run) or not is_finished(run, before.get(run.name))
    ]
    _train(missing, sources, dataclasses.replace(plan, rerun=True), datasets, before)
    _tell_finished(runs, pending, before, plan)
    _train(pending, runs, plan, datasets, before)
    after = records.load_all(plan.workdir)
    if failures := [_failure(plan.workdir, after[run.name]) for run in runs if after[run.name].diverged]:
        raise Diverged("\n".join(failures))


def is_finished(run: Run, record: Record | None) -> bool:
    """Whether a run need not be trained: it has a record, and the code that made it is the same where it matters."""
    return record is not None and record.code == code_of(run.config)


def has_params(workdir: Path, run: Run) -> bool:
    """Whether a run's parameters are there."""
    return (records.run_folder(workdir, run.name) / "params.safetensors").exists()


def _tell_finished(runs: Sequence[Run], pending: Sequence[Run], before: Mapping[str, Record], plan: Plan) -> None:
    """Say which runs are finished already, of which revision, and which are trained anew and why."""
    done = [before[run.name] for run in runs if run not in set(pending)]
    if done:
        revisions = ", ".join(dict.fromkeys(record.revision for record in done))
        print(
            f"{len(done)} of {len(runs)} runs are finished already (code of revision {revisions}); --rerun trains anew"
        )
    stale = [(run, before[run.name]) for run in pending if run.name in before and not plan.rerun]
    if stale:
        files = {name for run, old in stale for name in differing_files(old.code, code_of(run.config))}
        revisions = ", ".join(dict.fromkeys(old.revision for _, old in stale))
        print(
            f"{len(stale)} finished runs are of other code (revision {revisions}) and are trained anew:"
            f" {', '.join(sorted(files)[:5])}{' …' if len(files) > 5 else ''} changed since"
        )
    asked = dataclasses.asdict(plan.observed)
    if blind := [r for r in done if any(v and r.observed.get(n, 0) < v for n, v in asked.items())]:
        names = ", ".join(f"eval.{name}={value}" for name, value in asked.items() if value)
        print(f"{len(blind)} finished runs were trained without {names}; --rerun trains them anew with it")


def _train(
    runs: Sequence[Run], among: Sequence[Run], plan: Plan, datasets: Datasets, before: Mapping[str, Record]
) -> None:
    """Train runs, those of `among` that are pending, program after program; wait for what another process trains."""
    groups = group_by_program(runs)
    if not groups:
        return
    waiting, compile_seconds, announced = list(groups), 0.0, False
    total = sum(_images(group, datasets[group[0].config.data]) for group in groups.values())
    with Progress(total) as progress:
        while waiting:
            for key in list(waiting):
                lock = ProgramLock(plan.workdir / "programs" / key / "lock")
                if not lock.acquire():
                    continue
                try:
                    number = f"[{len(groups) - len(waiting) + 1}/{len(groups)}]"
                    name = f"{number} {title(groups[key], among)}"
                    compile_seconds += _train_program(key, groups[key], plan, datasets, before, progress, name)
                finally:
                    lock.release()
                waiting.remove(key)
                break
            else:
                if not announced:
                    progress.say(f"waiting for {len(waiting)} programs that {lock.holder()} trains")
                    announced = True
                if signum := plan.stop():
                    raise Interrupted(signum)
                time.sleep(WAIT_SECONDS)
        progress.say(f"{len(runs)} runs in {len(groups)} compiled training programs ({compile_seconds:.1f} s)")


def _train_program(
    key: str,
    group: Sequence[Run],
    plan: Plan,
    datasets: Datasets,
    before: Mapping[str, Record],
    progress: Progress,
    name: str,
) -> float:
    """Train the runs of one program that nobody has finished meanwhile; returns the seconds of compiling.

    Groups that began earlier and were cut go on as they were, so that their checkpoints fit; the others make one more.
    """
    now = records.load_all(plan.workdir)

    def is_new(run: Run) -> bool:
        record = now.get(run.name)
        if record is None or not is_finished(run, record):
            return False
        return not (plan.rerun and run.name in before and record.recorded == before[run.name].recorded)

    folder = plan.workdir / "programs" / key
    todo = {run.name: run for run in group if not is_new(run)}
    done = len(group) - len(todo)
    progress.skip(done * _images(group[:1], datasets[group[0].config.data]))
    parts: list[list[Run]] = []
    for names in records.registered_groups(plan.workdir, key):
        if set(names) <= todo.keys() and _checkpoints(folder, names).exists():
            parts.append([todo.pop(name) for name in names])
    if todo:
        parts.append(list(todo.values()))
        records.register_group(plan.workdir, key, list(todo))
    compiling = sum(_train_together(part, plan, datasets, progress, name, folder) for part in parts)
    _remove_finished(plan.workdir, folder)
    return compiling


def _train_together(
    group: list[Run], plan: Plan, datasets: Datasets, progress: Progress, name: str, folder: Path
) -> float:
    """Train runs side by side to their results; returns the seconds of compiling."""
    dataset = datasets[group[0].config.data]
    configs, seeds = [run.config for run in group], [run.seed for run in group]
    batch = configs[0].train.batch_size * len(group)
    checkpoints = _checkpoints(folder, [run.name for run in group])
    start = checkpoint.restore(checkpoints, abstract_states(configs, seeds, dataset))
    if start is None:
        states = initial_states(configs, seeds, dataset, parallel=plan.parallel)
        if source := pretraining_run(group[0]):
            states = initialize_from_pretrained(states, group, plan.workdir, datasets[source.config.data])
        start = checkpoint.Restored(0, states, [])
    step, history = start.step, start.history
    progress.begin(_images(group, dataset), name)
    progress.skip(step * batch)
    progress.say(f"{name}: compiling" + (f", going on from step {step}" if step else ""))
    with contextlib.ExitStack() as stack:
        folders = [records.run_folder(plan.workdir, run.name) for run in group]
        writers = [stack.enter_context(EventWriter(f, select_run(history, i))) for i, f in enumerate(folders)]
        saved = time.monotonic()
        for at in fit(configs, seeds, dataset, parallel=plan.parallel, start=start, observe_fn=plan.observe_fn):
            new_epochs, history = at.history[len(history) :], at.history
            for i, writer in enumerate(writers):
                for row in select_run(new_epochs, i):
                    writer.epoch(row)
            where = f"{name} · {_where(at, configs[0].train.epochs)}"
            compiling = at.compile_seconds if step == start.step else 0.0
            progress.advance((at.step - step) * batch, where, keep=bool(new_epochs), compiling=compiling)
            step = at.step
            signum, all_diverged = plan.stop(), bool(np.all(np.asarray(at.states.diverged) >= 0))
            if signum or time.monotonic() - saved > CHECKPOINT_SECONDS:
                checkpoint.save(checkpoints, step, at.states, history)
                saved = time.monotonic()
            if signum:
                raise Interrupted(signum)
            if all_diverged:
                progress.skip((at.total - step) * batch)
                break
    _finish(group, at, dataset, plan, checkpoints)
    return at.compile_seconds


def _finish(group: list[Run], at: FitProgress, dataset: data.Dataset, plan: Plan, checkpoints: Path) -> None:
    """Read the test set, save the parameters, and append all the group's records at once."""
    configs = [run.config for run in group]
    tested, wrong = evaluation.read_test_set(
        configs, *at.states.eval_params, dataset, parallel=plan.parallel, observe_fn=plan.observe_fn
    )
    diverged = np.asarray(at.states.diverged).tolist()
    finished = []
    for i, run in enumerate(group):
        params, stats = jax.tree.map(lambda leaf, i=i: leaf[i], at.states.eval_params)
        rows = select_run(at.history, i)
        speeds = [row["images_per_second"] for row in rows] or [math.nan]
        last = {name: value for name, value in (rows[-1] if rows else {}).items() if "_at_" not in name}
        result = last | {name: values[i] for name, values in tested.items()}
        if diverged[i] < 0:
            folder = records.run_folder(plan.workdir, run.name)
            checkpoint.save_params(folder / "params.safetensors", params, stats)
        else:
            result |= dict.fromkeys(tested, math.nan)
        result |= {
            "images_per_second": float(np.median(speeds)),
            "parameters": models.count_parameters(params),
            "diverged_step": diverged[i],
        }
        finished.append(
            Record(
                name=run.name,
                settings=flatten(run.config),
                seed=run.seed,
                metrics=records.to_columns(rows),
                result=result,
                workdir=plan.workdir,
                command=plan.command(run),
                environment=records.environment(),
                code=code_of(run.config),
                observed=dataclasses.asdict(plan.observed),
                recorded=datetime.datetime.now(datetime.UTC).isoformat(),
                wrong=wrong[i] if diverged[i] < 0 else None,
            )
        )
    if max(diverged) >= 0:
        checkpoint.save(checkpoints, at.step, at.states, at.history)
    records.append(finished, plan.workdir)


def _remove_finished(workdir: Path, folder: Path) -> None:
    """Remove the checkpoints of groups that are finished, unless a run of theirs diverged."""
    finished = records.load_all(workdir)
    for names in records.registered_groups(workdir, folder.name):
        results = [finished.get(name) for name in names]
        if all(record is not None and not record.diverged for record in results):
            shutil.rmtree(_checkpoints(folder, names), ignore_errors=True)


def _failure(workdir: Path, record: Record) -> str:
    """Say at which step a run diverged, and where the state before it is."""
    line = f"{record.name}: loss not finite at step {record.result['diverged_step']:.0f};"
    line += " lower train.learning_rate, or raise train.warmup."
    states = [
        folder
        for program in (workdir / "programs").glob("*")
        for names in records.registered_groups(workdir, program.name)
        if record.name in names and (folder := _checkpoints(program, names)).exists()
    ]
    return line + (f" The state before it is in {', '.join(map(str, states))}" if states else "")


def _checkpoints(program: Path, names: Sequence[str]) -> Path:
    """Return the folder of the checkpoints of runs that are trained together."""
    return program / hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()[:16]


def _images(group: Sequence[Run], dataset: data.Dataset) -> int:
    """Count the images that runs are trained on, in all epochs."""
    settings = group[0].config.train
    steps = steps_per_epoch(group[0].config, dataset.train) * settings.epochs
    return steps * settings.batch_size * len(group)


def select_run(history: Sequence[dict[str, Any]], run: int) -> list[dict[str, Any]]:
    """Return one run's rows of a history whose metrics hold one value a run."""
    return [{n: v[run] if isinstance(v, list) else v for n, v in row.items()} for row in history]


def _where(at: FitProgress, epochs: int) -> str:
    """Say epoch, latest metrics (mean over runs) and speed."""
    steps = at.total // epochs
    text = f"epoch {at.step / steps:.1f}/{epochs}"
    if at.history:
        last = at.history[-1]
        loss, error = np.mean(last["train_loss"]), np.mean(last["validation_error"])
        text += f" · train loss {loss:.4f}"
        text += "" if math.isnan(error) else f" · validation error {error:.2f} %"
    return f"{text} · {at.images_per_second:,.0f} images/s"
