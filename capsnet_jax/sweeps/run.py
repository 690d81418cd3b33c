"""Settings × seeds in the fewest programs: programs one after the other, runs of a program side by side.

Several processes may work in one workdir. Each program is locked while it is trained, so no other process trains it.
A process waits for the programs that others have locked, and then uses their records.
"""

import dataclasses
import datetime
import errno
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from capsnet_jax.sweeps import records
from capsnet_jax.sweeps.checkpoint import is_damaged
from capsnet_jax.sweeps.code import code_of
from capsnet_jax.sweeps.files import remove_abandoned
from capsnet_jax.sweeps.finished import is_finished, tell_finished
from capsnet_jax.sweeps.follow import Follower
from capsnet_jax.sweeps.interrupt import check as stop_if_asked
from capsnet_jax.sweeps.lock import ProgramLock
from capsnet_jax.sweeps.plan import Plan, check, counted, group_by_program, load_data, title
from capsnet_jax.sweeps.pretrain import pretraining_run, pretraining_runs
from capsnet_jax.sweeps.progress import Progress
from capsnet_jax.sweeps.records import Record, Run, params_path
from capsnet_jax.sweeps.train import Datasets, checkpoint_folder, count_images, train_together
from capsnet_jax.training.parallel import resolve

WAIT_SECONDS = 1.0  # between looks at programs that other processes train


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
        FileNotFoundError: the workdir was deleted meanwhile.
        Interrupted: after saving; the same call continues.
        Diverged: after all other runs are finished.
    """
    plan = dataclasses.replace(plan, parallel=resolve(plan.parallel))
    records.environment()  # of the code that this process has imported; it may change on the disk while it trains
    for group in group_by_program([*runs, *pretraining_runs(runs)]).values():
        code_of(group[0].config)
    records.set_damaged_records_aside(plan.workdir)
    remove_abandoned(plan.workdir)
    before = records.load_all(plan.workdir)
    missing, sources, pending = to_train(runs, plan, before)
    _train(missing, sources, dataclasses.replace(plan, wait=True), datasets, before)
    between = records.load_all(plan.workdir) if missing else before
    lost = {run for run in pending if starts_from_diverged(run, between)}
    tell_finished(runs, pending, before, plan)
    _train([run for run in pending if run not in lost], runs, plan, datasets, before)
    after = records.load_all(plan.workdir)
    runs = [run for run in runs if run not in lost and (plan.wait or run.name in after)]
    if gone := [run for run in runs if run.name not in after]:
        raise FileNotFoundError(
            errno.ENOENT, f"{counted(len(gone), 'record')} just written are gone", str(plan.workdir)
        )
    _remove_leftovers([*runs, *pretraining_runs(runs)], plan.workdir, after)
    failed = [*pretraining_runs(lost), *(run for run in runs if after[run.name].diverged)]
    if failures := [_failure(plan.workdir, after[run.name]) for run in failed]:
        if lost:
            failures.append(f"Not trained, as what they start from diverged: {counted(len(lost), 'run')}.")
        raise Diverged("\n".join(failures))


def to_train(runs: Sequence[Run], plan: Plan, before: Mapping[str, Record]) -> tuple[list[Run], list[Run], list[Run]]:
    """Return the runs that are to be trained first, all that the others start from, and those of `runs` to train."""

    def is_complete(run: Run) -> bool:
        return is_finished(run, before.get(run.name)) and not is_damaged(params_path(plan.workdir, run.name))

    pending = [run for run in runs if plan.rerun or not is_complete(run)]
    sources = pretraining_runs(pending)
    # A record may have come without its parameters: such a source is trained again, to the same result.
    missing = [
        run
        for run in sources
        if not is_complete(run) or not (before[run.name].diverged or params_path(plan.workdir, run.name).exists())
    ]
    return missing, sources, pending


def starts_from_diverged(run: Run, finished: Mapping[str, Record]) -> bool:
    """Whether a run cannot be trained, as what it starts from diverged."""
    source = pretraining_run(run)
    record = finished.get(source.name) if source else None
    return source is not None and record is not None and record.diverged and is_finished(source, record)


def _train(
    runs: Sequence[Run], all_runs: Sequence[Run], plan: Plan, datasets: Datasets, before: Mapping[str, Record]
) -> None:
    """Train runs, the pending ones of `all_runs`, program after program; then wait for what other processes train."""
    groups = group_by_program(runs)
    if not groups:
        return
    waiting, compile_seconds, announced = list(groups), 0.0, False
    total = sum(count_images(group, datasets[group[0].config.data]) for group in groups.values())
    follower = Follower(plan.workdir)
    with Progress(total) as progress:
        while waiting:
            stop_if_asked(plan.stop)
            for key in list(waiting):
                lock = ProgramLock(plan.workdir / "programs" / key / "lock")
                if not lock.acquire():
                    continue
                try:
                    number = f"[{len(groups) - len(waiting) + 1}/{len(groups)}]"
                    name = f"{number} {title(groups[key], all_runs)}"
                    progress.programs_left = len(waiting) - 1
                    compile_seconds += _train_program(
                        key, groups[key], plan, datasets, before, follower, progress, name
                    )
                finally:
                    lock.release()
                waiting.remove(key)
                break
            else:
                if not plan.wait:
                    progress.say(f"{counted(len(waiting), 'program')} left to other processes")
                    break
                if not announced:
                    progress.say(f"waiting for {counted(len(waiting), 'program')} that {lock.holder()} trains")
                    announced = True
                time.sleep(WAIT_SECONDS)
        if not plan.wait:  # others have trained some of them
            return
        programs = counted(len(groups), "compiled training program")
        progress.say(f"{counted(len(runs), 'run')} in {programs} ({compile_seconds:.1f} s)")


def _train_program(
    key: str,
    group: Sequence[Run],
    plan: Plan,
    datasets: Datasets,
    before: Mapping[str, Record],
    follower: Follower,
    progress: Progress,
    name: str,
) -> float:
    """Train the runs of one program that nobody has finished meanwhile; returns the seconds of compiling.

    Groups that began earlier and were cut go on as they were, so that their checkpoints fit; the others make one more.
    """
    now = follower.read()
    folder = plan.workdir / "programs" / key
    if plan.rerun:  # what a run that diverged left would be gone on with
        _remove_finished(plan.workdir, folder, now, diverged_too=True)
    todo = {run.name: run for run in group if not is_new(run, before, now)}
    done = len(group) - len(todo)
    progress.skip(done * count_images(group[:1], datasets[group[0].config.data]))
    if not todo:
        return 0.0
    parts: list[list[Run]] = []
    for names in records.registered_groups(plan.workdir, key):
        if set(names) <= todo.keys() and checkpoint_folder(folder, names).exists():
            parts.append([todo.pop(name) for name in names])
    if todo:
        parts.append(list(todo.values()))
        records.register_group(plan.workdir, key, list(todo))
    compiling = sum(train_together(part, plan, datasets, progress, name, folder) for part in parts)
    _remove_finished(plan.workdir, folder, follower.read())
    return compiling


def is_new(run: Run, before: Mapping[str, Record], now: Mapping[str, Record]) -> bool:
    """Whether a run was finished since `before` was read."""
    record, old = now.get(run.name), before.get(run.name)
    if record is None or (old is not None and record.recorded == old.recorded):
        return False
    return is_finished(run, record)


def _remove_leftovers(runs: Sequence[Run], workdir: Path, finished: Mapping[str, Record]) -> None:
    """Remove the checkpoints of finished runs whose process was killed before it removed them."""
    for key in group_by_program(runs):
        folder = workdir / "programs" / key
        lock = ProgramLock(folder / "lock")
        has_checkpoints = any(path.is_dir() for path in folder.glob("*"))
        if has_checkpoints and lock.acquire():
            try:
                _remove_finished(workdir, folder, finished)
            finally:
                lock.release()


def _remove_finished(
    workdir: Path, folder: Path, finished: Mapping[str, Record], *, diverged_too: bool = False
) -> None:
    """Remove the checkpoints of groups that are finished, unless a run of theirs diverged.

    Checkpoints that are newer than the group's records are of runs that are trained anew.
    """
    for names in records.registered_groups(workdir, folder.name):
        checkpoints, results = checkpoint_folder(folder, names), [finished.get(name) for name in names]
        if checkpoints.exists() and all(
            record is not None
            and (diverged_too or not record.diverged)
            and _seconds(record.recorded) > checkpoints.stat().st_mtime
            for record in results
        ):
            shutil.rmtree(checkpoints, ignore_errors=True)


def _seconds(recorded: str) -> float:
    """Return when a run was finished in seconds of Unix time; 0 where that is not known."""
    return datetime.datetime.fromisoformat(recorded).timestamp() if recorded else 0.0


def _failure(workdir: Path, record: Record) -> str:
    """Say at which step a run diverged, and where the state before it is."""
    line = f"{record.name}: loss not finite at step {record.result['diverged_step']:.0f};"
    line += " lower train.learning_rate, or raise train.warmup."
    states = [
        folder
        for program in (workdir / "programs").glob("*")
        for names in records.registered_groups(workdir, program.name)
        if record.name in names and (folder := checkpoint_folder(program, names)).exists()
    ]
    return line + (f" The state before it is in {', '.join(map(str, states))}" if states else "")
