"""Train the runs of one program side by side: checkpoints, events, progress, and a record for each run in the end."""

import dataclasses
import datetime
import errno
import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from capsnet_jax import data, models
from capsnet_jax.config import Config, Data, Eval
from capsnet_jax.overrides import flatten
from capsnet_jax.sweeps import checkpoint, records
from capsnet_jax.sweeps.code import code_of, digest_of
from capsnet_jax.sweeps.events import GroupEvents, select_run
from capsnet_jax.sweeps.interrupt import Interrupted, check
from capsnet_jax.sweeps.plan import Plan
from capsnet_jax.sweeps.pretrain import initialize
from capsnet_jax.sweeps.progress import Progress
from capsnet_jax.sweeps.records import Record, Run
from capsnet_jax.training import evaluation
from capsnet_jax.training.fit import FitProgress, abstract_states, fit, initial_states
from capsnet_jax.training.hosts import Hosts
from capsnet_jax.training.limits import check_limits
from capsnet_jax.training.parallel import RUNS, make_mesh
from capsnet_jax.training.step import steps_per_epoch

CHECKPOINT_SECONDS = 30.0

Datasets = Mapping[Data, data.Dataset]


def train_together(
    group: list[Run], plan: Plan, datasets: Datasets, progress: Progress, name: str, folder: Path
) -> float:
    """Train runs side by side, from their checkpoint if there is one, and record them.

    Args:
        group: runs of one structure.
        plan: how.
        datasets: the data set of each `config.data`.
        progress: what a person sees.
        name: of the group, for the progress.
        folder: of the program; checkpoints are in it.

    Returns:
        The seconds that compiling took.

    Raises:
        Interrupted: after saving.
        OutOfMemoryError: they do not fit into memory side by side.
    """
    check(plan.stop)
    dataset = datasets[group[0].config.data]
    progress.begin(count_images(group, dataset), group[0].config.train.epochs, name)
    configs, seeds = [run.config for run in group], [run.seed for run in group]
    batch = configs[0].train.batch_size * len(group)
    checkpoints = checkpoint_folder(folder, [run.name for run in group])
    task, like = describe_task(group, plan), abstract_states(configs, seeds, dataset)
    code = task["code"]
    marks = marks_of(code, configs)
    one_run = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), like.params)
    devices = plan.devices or jax.local_devices()[:1]
    mesh = make_mesh(len(group), configs[0].train.batch_size, devices)
    plan.hosts.agree(task)
    hosts = plan.hosts.among(mesh)
    own_mesh = None if hosts.others else mesh
    idle = len(devices) - (1 if mesh is None else mesh.size)
    rows = 1 if mesh is None or jax.default_backend() == "cpu" else mesh.shape[RUNS]  # that have memory of their own
    check_limits(configs[0], len(group) // rows, dataset, one_run)
    start = checkpoint.restore(checkpoints, like, code=marks)
    if start is None:
        states = initial_states(configs, seeds, dataset, parallel=plan.parallel, mesh=own_mesh)
        states = initialize(states, group, plan.workdir, datasets)
        start = checkpoint.Restored(0, states, [])
    step, history = start.step, start.history
    hosts.agree([step, history])
    start = start._replace(state=hosts.broadcast(start.state))
    progress.skip(step * batch)
    notes = [f"going on from step {step}"] if step else []
    notes += [f"{idle} of {len(devices)} devices idle: runs and batches do not divide by them"] if idle else []
    progress.say(", ".join([f"{name}: compiling", *notes]))
    folders = [records.run_folder(plan.workdir, run.name) for run in group]
    events = GroupEvents(folders, configs, seeds, dataset, history, parallel=plan.parallel, mesh=own_mesh)
    saved = time.monotonic()
    for at in fit_group(group, plan, dataset, mesh, start, hosts):
        events.update(at)
        new_epoch, history = len(at.history) > len(history), at.history
        where = f"{name} · {_where(at, configs[0].train.epochs)}"
        progress.advance((at.step - step) * batch, where, at.training_seconds, at.evaluation_seconds, keep=new_epoch)
        step = at.step
        signum, all_diverged = plan.stop(), bool(np.all(np.asarray(at.states.diverged) >= 0))
        saves = bool(signum) or time.monotonic() - saved > CHECKPOINT_SECONDS
        hosts.agree([saves, bool(signum), all_diverged])
        if saves:
            checkpoint.save(checkpoints, step, hosts.gather(at.states), history, code=marks)
            saved = time.monotonic()
        if signum:
            raise Interrupted(signum)
        if all_diverged:
            progress.skip((at.total - step) * batch)
            break
    tested = test_group(configs, at, plan, dataset, mesh, hosts)
    at = at._replace(states=hosts.gather(at.states))
    if np.any(np.asarray(at.states.diverged) >= 0):
        checkpoint.save(checkpoints, at.step, at.states, at.history, code=marks)
    _finish(group, at, tested, plan, code, events)
    return at.compile_seconds


def marks_of(code: dict[str, str], configs: Sequence[Config]) -> dict[str, str]:
    """Return what a checkpoint must have been made by to be gone on with: the same code, and the same settings."""
    return code | {"settings": digest_of([sorted(flatten(config).items()) for config in configs])}


def fit_group(
    group: Sequence[Run],
    plan: Plan,
    dataset: data.Dataset,
    mesh: Mesh | None,
    start: tuple[int, Any, list[dict[str, Any]]],
    hosts: Hosts,
) -> Iterator[FitProgress]:
    """Fit runs side by side as a plan says; every process that has devices of the mesh does, with the same `start`."""
    return fit(
        [run.config for run in group],
        [run.seed for run in group],
        dataset,
        parallel=plan.parallel,
        mesh=mesh,
        start=start,
        observe_fn=plan.observe_fn,
        test_each_epoch=plan.observed.test_each_epoch,
        hosts=hosts,
    )


def test_group(
    configs: list[Config], at: FitProgress, plan: Plan, dataset: data.Dataset, mesh: Mesh | None, hosts: Hosts
) -> tuple[dict[str, list[float]], np.ndarray]:
    """Read the test set in the end; every process that has devices of the mesh does."""
    return evaluation.read_test_set(
        configs,
        *at.states.eval_params,
        dataset,
        parallel=plan.parallel,
        mesh=mesh,
        observe_fn=plan.observe_fn,
        hosts=hosts,
    )


def describe_task(group: Sequence[Run], plan: Plan) -> dict[str, Any]:
    """Return what all processes of a job must have alike, as JSON says it."""
    task = {
        "runs": [run.name for run in group],
        "code": code_of(group[0].config),
        "eval": dataclasses.asdict(plan.observed),
        "across": plan.parallel,
        "devices": len(plan.devices),
    }
    return dict(json.loads(json.dumps(task)))


def _finish(
    group: list[Run],
    at: FitProgress,
    on_test_set: tuple[dict[str, list[float]], np.ndarray],
    plan: Plan,
    code: dict[str, str],
    events: GroupEvents,
) -> None:
    """Save the parameters, and append all the group's records at once; of what diverged there are no results."""
    tested, wrong = on_test_set
    diverged = np.asarray(at.states.diverged).tolist()
    # A run that goes on may be asked for more than it was before; what is not of all epochs was not observed.
    observed = plan.observed if not at.history or at.history[0].keys() >= at.history[-1].keys() else Eval()
    finished = []
    for i, run in enumerate(group):
        params, stats = jax.tree.map(lambda leaf, i=i: leaf[i], at.states.eval_params)
        rows = select_run(at.history, i)
        speeds = [row["images_per_second"] for row in rows] or [math.nan]
        last = {name: value for name, value in (rows[-1] if rows else {}).items() if "_at_" not in name}
        result = last | {name: values[i] for name, values in tested.items()} | by_selection(rows)
        path = records.params_path(plan.workdir, run.name)
        if diverged[i] < 0:
            checkpoint.save_params(path, params, stats)
        else:
            path.unlink(missing_ok=True)  # an earlier training's
            result = {name: value if name == "epoch" else math.nan for name, value in result.items()}
        result |= {
            "images_per_second": float(np.median(speeds)),
            "memory_mb": at.memory / 1e6,
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
                code=code,
                observed=dataclasses.asdict(observed),
                recorded=datetime.datetime.now(datetime.UTC).isoformat(),
                wrong=wrong[i] if diverged[i] < 0 else None,
            )
        )
    for record in finished:  # of a workdir that was deleted meanwhile there would be records without parameters
        path = records.params_path(plan.workdir, record.name)
        if not (record.diverged or path.exists()):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    records.append(finished, plan.workdir)
    events.finish(at, [record.result for record in finished])


def by_selection(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the test errors of the epoch of least validation error and of the epoch of least test error.

    The first only where images are held out; the second is what choosing on the test set would claim. Of equal epochs
    the first counts. Nothing of a run that diverged, or whose epochs were not all tested.
    """
    errors = [row.get("test_error_at_epoch", math.nan) for row in rows]
    if not rows or any(map(math.isnan, errors)):
        return {}
    picked = {"test_error_picked_on_test": min(errors)}
    if math.isnan(rows[-1]["validation_error"]):
        return picked
    chosen = min(rows, key=lambda row: row["validation_error"])
    return {"test_error_by_validation": chosen["test_error_at_epoch"]} | picked


def checkpoint_folder(program: Path, names: Sequence[str]) -> Path:
    """Return the folder of the checkpoints of runs that are trained together."""
    return program / hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()[:16]


def count_images(group: Sequence[Run], dataset: data.Dataset) -> int:
    """Count the images that runs are trained on, in all epochs."""
    settings = group[0].config.train
    steps = steps_per_epoch(group[0].config, dataset.train) * settings.epochs
    return steps * settings.batch_size * len(group)


def _where(at: FitProgress, epochs: int) -> str:
    """Say epoch, latest metrics (mean over runs) and speed."""
    steps = at.total // epochs
    text = f"epoch {at.step / steps:.1f}/{epochs}"
    if at.history:
        last = at.history[-1]
        loss, error = np.mean(last["train_loss"]), np.mean(last["validation_error"])
        text += f" · train loss {loss:.4f}"
        text += "" if math.isnan(error) else f" · validation error {error:.2f} %"
    return f"{text} · training at {at.images_per_second:,.0f} images/s"
