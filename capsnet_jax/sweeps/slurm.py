"""A sweep's programs on other machines: one array job of tasks that share the workdir, through submitit.

Each task runs the command that was typed, with `--worker`: it trains programs that nobody else trains, each under its
own lock, and leaves when no program is left to take. The process that submits the job trains nothing: it counts the
records, and goes on when all runs have one. Without Slurm, the partition `local` starts the tasks on this machine.
"""

import time
from collections.abc import Collection, Mapping, Sequence

from capsnet_jax.sweeps import records
from capsnet_jax.sweeps.files import append_lines
from capsnet_jax.sweeps.follow import Follower
from capsnet_jax.sweeps.interrupt import Interrupted
from capsnet_jax.sweeps.lock import ProgramLock
from capsnet_jax.sweeps.plan import Plan, counted, group_by_program
from capsnet_jax.sweeps.progress import Progress
from capsnet_jax.sweeps.records import Record, Run
from capsnet_jax.sweeps.run import is_new, starts_from_diverged, to_train
from capsnet_jax.sweeps.submit import Job, Request, failure, submit, submitted
from capsnet_jax.sweeps.train import Datasets, count_images
from capsnet_jax.training.parallel import mesh_shape

MOST_TASKS = 16  # of a job whose tasks are not said
STOP_SECONDS = 1.0  # between looks for Ctrl-C,
RECORD_SECONDS = 3.0  # at the records,
QUEUE_SECONDS = 10.0  # and at the queue, which all users of a cluster share


class JobError(Exception):
    """A job ended before all runs were finished; the message names logs and the remedy."""


def train(
    runs: Sequence[Run], plan: Plan, datasets: Datasets, request: Request, command: Sequence[str], *, detach: bool
) -> bool:
    """Train every run that is not finished by a job, submitted here or by the same command before.

    Args:
        runs: what is to be there in the end.
        plan: how.
        datasets: from `run.load_and_check`.
        request: the job.
        command: what a task runs.
        detach: return as soon as the job is submitted.

    Returns:
        Whether all runs are finished.

    Raises:
        ConfigError: Slurm refuses the job.
        Interrupted: the job goes on, or is cancelled, as asked.
        JobError: the job is over, and some runs are not finished.
    """
    records.set_damaged_records_aside(plan.workdir)
    before = records.load_all(plan.workdir)
    missing, _, pending = to_train(runs, plan, before)
    wanted = list(dict.fromkeys([*missing, *pending]))
    if not wanted:
        return True
    groups = group_by_program(wanted)
    folder = plan.workdir.absolute() / "slurm"
    line = {"command": list(command), "partition": request.partition}
    job: Job | None = submitted(folder, line)
    if job:
        print(f"{job} goes on: the same command submitted it", flush=True)
    else:
        tasks = _choose_tasks(request, groups)
        job = submit(folder, request, tasks, command)
        append_lines(folder / "jobs.jsonl", [line | {"job": job.id, "tasks": tasks}])
        print(f"{job}: {counted(tasks, 'task')} for {counted(len(groups), 'program')}; logs in {folder}", flush=True)
    if detach:
        print(f"to look: {job.how_to_look}; to cancel: {job.how_to_cancel}; the same command without --detach waits")
        return False
    _wait(wanted, before, plan, datasets, request, job)
    return True


def _choose_tasks(request: Request, groups: Mapping[str, Sequence[Run]]) -> int:
    """Return how many tasks share the programs; say which tasks and devices would have nothing to do."""
    tasks = min(request.tasks or MOST_TASKS, len(groups))
    if request.tasks and tasks < request.tasks:
        print(f"{counted(tasks, 'task')} instead of {request.tasks}: there are no more programs")
    gpus = request.gpus or 1
    idle: dict[int, int] = {}
    for group in groups.values():
        rows, columns = mesh_shape(len(group), group[0].config.train.batch_size, gpus)
        if rows * columns < gpus:
            idle[gpus - rows * columns] = idle.get(gpus - rows * columns, 0) + 1
    for number, programs in idle.items():
        print(f"{number} of {gpus} GPUs of a task idle in {counted(programs, 'program')}: runs do not divide by them")
    return tasks


def _wait(
    wanted: Sequence[Run],
    before: Mapping[str, Record],
    plan: Plan,
    datasets: Datasets,
    request: Request,
    job: Job,
) -> None:
    """Count records until all runs are finished; tell of tasks that fail.

    Raises:
        Interrupted: after leaving or cancelling the job.
        JobError: the job is over before.
    """
    images = {run: count_images([run], datasets[run.config.data]) for run in wanted}
    follower, left, began = Follower(plan.workdir), set(wanted), time.monotonic()
    living: dict[int, str] | None = None
    failed: dict[int, str] = {}
    read, asked, waits = -1e9, -1e9, False
    with Progress(sum(images.values())) as progress:
        while True:
            now = time.monotonic()
            is_over = False
            if now - asked >= QUEUE_SECONDS:
                living, asked = job.living(), now
                others = _held_here(left, plan) if living == {} else None  # before records are read, which they write
                is_over = living == {} and not others
                if others and not waits:
                    progress.say(f"waiting for programs that {others} trains")
                    waits = True
            if is_over or now - read >= RECORD_SECONDS:  # what a task has written before it was over is seen
                finished, read = follower.read(), now
                done = {run for run in left if is_new(run, before, finished) or starts_from_diverged(run, finished)}
                left -= done
                where = f"{len(wanted) - len(left)} of {len(wanted)} runs finished · {_describe(living)}"
                progress.advance(sum(images[run] for run in done), where, now - began, keep=bool(done))
            if not left:
                break
            if living is not None:
                for index in range(len(job.tasks)):
                    if index not in living and index not in failed and (line := failure(job.tasks[index])):
                        failed[index] = line
                        progress.say(f"task {index} {line}")
            if is_over:
                raise JobError(
                    f"{job} is over, and {len(left)} of {counted(len(wanted), 'run')} not finished; "
                    + "".join(f"task {index} {line}; " for index, line in failed.items())
                    + "the same command submits them again"
                )
            if signum := plan.stop():
                if request.on_interrupt == "cancel":
                    job.cancel()
                    progress.say(f"{job} is cancelled; its tasks save what they train")
                else:
                    progress.say(f"{job} goes on; to cancel it: {job.how_to_cancel}")
                raise Interrupted(signum)
            time.sleep(STOP_SECONDS)
    job.cancel_waiting()


def _held_here(left: Collection[Run], plan: Plan) -> str | None:
    """Return which process of this machine trains one of the runs that are left: a task of an earlier command's."""
    locks = (ProgramLock(plan.workdir / "programs" / key / "lock") for key in group_by_program(list(left)))
    return next((lock.holder() for lock in locks if lock.is_held_here()), None)


def _describe(living: Mapping[int, str] | None) -> str:
    """Say what tasks do, as `2 tasks running, 1 waits (Resources)`."""
    if living is None:
        return "the queue does not answer"
    states = list(living.values())
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    return "tasks: " + (", ".join(f"{number} {state}" for state, number in counts.items()) or "none left")
