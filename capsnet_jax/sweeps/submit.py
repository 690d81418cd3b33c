"""A job of tasks that all run one command: asked for by a line of text, submitted, looked at and cancelled.

submitit submits it to Slurm as one array job, or starts it on this machine.
Slurm's array jobs: https://slurm.schedmd.com/job_array.html. submitit: https://github.com/facebookincubator/submitit.
"""

import contextlib
import dataclasses
import importlib.util
import io
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from capsnet_jax.config import ConfigError
from capsnet_jax.sweeps.files import make_folder, read_lines
from capsnet_jax.sweeps.job import SAVE_SECONDS, Task, log_path

LOCAL = "local"
MINUTES = 60  # of a task whose time is not said: queues take short jobs early, and a task goes on where it was
REQUEUES = 100  # of a task whose time was over
WARNING_SECONDS = SAVE_SECONDS + 30  # before its time is over
WORDS = ("account", "qos")


@dataclasses.dataclass(frozen=True)
class Request:
    """What `--slurm` asks for; None is the partition's default.

    Attributes:
        partition: of the cluster; "local" is this machine.
        tasks: programs that are trained at the same time, at most.
        time: minutes that a task has until it is requeued.
        gpus: of each task.
        cpus: of each task.
        mem: gigabytes of each task.
        account: that pays.
        qos: quality of service.
        on_interrupt: what Ctrl-C in the waiting process does to the job, "leave" or "cancel".
    """

    partition: str
    tasks: int | None = None
    time: int | None = None
    gpus: int | None = None
    cpus: int | None = None
    mem: float | None = None
    account: str | None = None
    qos: str | None = None
    on_interrupt: str = "leave"

    @property
    def is_local(self) -> bool:
        """Whether tasks are processes of this machine."""
        return self.partition == LOCAL


def parse(text: str) -> Request:
    """Read `PARTITION[,key=value…]`, and look whether this machine can do it.

    Raises:
        ConfigError: the text is no such thing, submitit is missing, or Slurm is.
    """
    partition, *pairs = text.split(",")
    if not partition or "=" in partition:
        raise ConfigError(f"--slurm={text} begins with no partition; say --slurm=PARTITION,…, or --slurm=local,…")
    known = [field.name for field in dataclasses.fields(Request)][1:]
    values: dict[str, Any] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key not in known or not value:
            raise ConfigError(f"--slurm: {pair} is none of {'=, '.join(known)}=; name one of them with a value")
        if key in values:
            raise ConfigError(f"--slurm: {key} is given twice; leave out one")
        values[key] = _read(key, value)
    request = Request(partition, **values)
    unused = [key for key in ("time", "cpus", "mem", *WORDS) if request.is_local and key in values]
    if unused:
        raise ConfigError(f"--slurm=local does not use {unused[0]}; leave it out")
    if not request.is_local and shutil.which("sbatch") is None:
        raise ConfigError(f"--slurm={partition}: there is no sbatch on this machine; say --slurm=local to use it alone")
    if importlib.util.find_spec("submitit") is None:
        raise ConfigError("--slurm needs submitit: pip install -e '.[slurm]' brings it")
    return request


def _read(key: str, value: str) -> Any:
    """Return the value of a key.

    Raises:
        ConfigError: it is none.
    """
    if key == "on_interrupt":
        if value not in ("leave", "cancel"):
            raise ConfigError(f"--slurm: on_interrupt={value} is neither leave nor cancel")
        return value
    if key in WORDS:
        return value
    if key == "time":
        if not (match := re.fullmatch(r"(?:(\d+):)?(\d+)", value)) or not (minutes := _minutes(*match.groups())):
            raise ConfigError(f"--slurm: time={value} is no time; say minutes, or hours and minutes as 1:30")
        return minutes
    try:
        number = float(value) if key == "mem" else int(value)
    except ValueError:
        number = 0
    if not 0 < number < 1e6:
        what = "gigabytes, as 16" if key == "mem" else "a number from 1"
        raise ConfigError(f"--slurm: {key}={value} is no number; say {what}")
    return number


def _minutes(hours: str | None, minutes: str) -> int:
    return 60 * int(hours or 0) + int(minutes)


class ArrayJob:
    """An array job of Slurm."""

    def __init__(self, job_id: str, jobs: Sequence[Any]):
        self.id = job_id
        self.tasks = jobs
        self.how_to_look, self.how_to_cancel = f"squeue -j {job_id}", f"scancel {job_id}"

    def __str__(self) -> str:
        return f"job {self.id}"

    def living(self) -> dict[int, str] | None:
        """Return {task: what it does} of the tasks that are not over; None where Slurm does not answer."""
        line = ["squeue", "--noheader", "--array", f"--jobs={self.id}", "--format=%K|%T|%r"]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode:
            return {} if "Invalid job id" in done.stderr else None
        rows = [row.split("|") for row in done.stdout.splitlines()]
        return {
            int(index) if index.isdecimal() else 0: f"waits ({reason})" if state == "PENDING" else state.lower()
            for index, state, reason in rows
        }

    def cancel(self, *options: str) -> None:
        """End its tasks, all of them or some by options of scancel."""
        subprocess.run(["scancel", *options, self.id], capture_output=True, check=False)

    def cancel_waiting(self) -> None:
        """Take tasks that have nothing left to do out of the queue."""
        self.cancel("--state=PENDING")


class LocalJob:
    """Tasks that are processes of this machine; each has a controller, which is a child of this process."""

    def __init__(self, jobs: Sequence[Any]):
        self.id = " ".join(job.job_id for job in jobs)
        self.tasks = jobs
        self.how_to_look, self.how_to_cancel = f"ps -f {self.id}", f"kill {self.id}"

    def __str__(self) -> str:
        return f"job of {'process' if len(self.tasks) == 1 else 'processes'} {self.id}"

    def living(self) -> dict[int, str]:
        """Return {task: "running"} of the tasks that are not over."""
        return {index: "running" for index, job in enumerate(self.tasks) if not job.done()}

    def cancel(self) -> None:
        """Let each task save and end."""
        for index in self.living():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(self.tasks[index].job_id), signal.SIGTERM)

    def cancel_waiting(self) -> None:
        """Do nothing: no task waits."""


Job = ArrayJob | LocalJob


def submit(folder: Path, request: Request, tasks: int, command: Sequence[str]) -> ArrayJob | LocalJob:
    """Submit a job.

    Raises:
        ConfigError: Slurm refuses it.
    """
    import submitit

    make_folder(folder)
    minutes = 10**5 if request.is_local else request.time or MINUTES
    executor = submitit.AutoExecutor(folder, LOCAL if request.is_local else "slurm", slurm_max_num_timeout=REQUEUES)
    executor.update_parameters(name="capsnet_jax", timeout_min=minutes, gpus_per_node=request.gpus)
    if request.is_local:
        work = [Task(command, Path.cwd(), _devices(index, request.gpus)) for index in range(tasks)]
        with _on_their_own():
            return LocalJob(executor.submit_array(work))
    executor.update_parameters(
        cpus_per_task=request.cpus,
        mem_gb=request.mem,
        slurm_partition=request.partition,
        slurm_account=request.account,
        slurm_qos=request.qos,
        slurm_signal_delay_s=WARNING_SECONDS,
        slurm_array_parallelism=tasks,
        slurm_additional_parameters={"requeue": True},
    )
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit repeats what sbatch says
            jobs = executor.submit_array([Task(command, Path.cwd(), {})] * tasks)
    except submitit.core.utils.FailedJobError as error:
        reasons = re.findall(r"sbatch: error: (.*)", str(error)) or str(error).splitlines()
        raise ConfigError(f"sbatch refuses the job: {'; '.join(reasons)}; change --slurm") from error
    return ArrayJob(jobs[0].job_id.partition("_")[0], jobs)


def _devices(index: int, gpus: int | None) -> dict[str, str | None]:
    """Return the environment in which a task of this machine sees its own GPUs, or all where none were asked for."""
    name = "CUDA_VISIBLE_DEVICES"
    visible = os.environ.get(name)
    if gpus is None:
        return {name: visible}
    names = visible.split(",") if visible else [str(number) for number in range((index + 1) * gpus)]
    if len(names) < (index + 1) * gpus:
        raise ConfigError(f"--slurm=local: {name} has {len(names)} GPUs for {(index + 1) * gpus}; ask for fewer tasks")
    return {name: ",".join(names[index * gpus : (index + 1) * gpus])}


def submitted(folder: Path, line: Mapping[str, Any]) -> ArrayJob | None:
    """Return the job that the same command submitted to Slurm before, unless it is over."""
    from submitit.slurm.slurm import SlurmJob

    for old in reversed(read_lines(folder / "jobs.jsonl")):
        if line["partition"] != LOCAL and all(old.get(name) == line[name] for name in ("command", "partition")):
            names = [f"{old['job']}_{index}" for index in range(old["tasks"])] if old["tasks"] > 1 else [old["job"]]
            job = ArrayJob(old["job"], [SlurmJob(folder, name) for name in names])
            return None if job.living() == {} else job  # where Slurm does not answer, the job may go on
    return None


def failure(task: Any) -> str | None:
    """Say that a task which is over has failed, its log's path and last line; None where it ended well."""
    from submitit.core.utils import pickle_load

    with contextlib.suppress(Exception):  # of a task that was killed there is no result, or a part of one
        if pickle_load(task.paths.result_pickle)[0] == "success":
            return None
    logs = (log_path(task.paths.folder, task.job_id), task.paths.stderr)
    for path in logs:
        with contextlib.suppress(OSError):
            if lines := path.read_text(errors="replace").split("\n"):
                last = next((line for line in reversed(lines) if line.strip()), "")
                if last:
                    return f"failed, see {path}: {last.strip()}"
    return f"failed, and left no log in {task.paths.folder}"


@contextlib.contextmanager
def _on_their_own() -> Iterator[None]:
    """Let processes that are started meanwhile outlive this one: Ctrl-C, its terminal, the readers of its output."""
    handlers = {signum: signal.signal(signum, signal.SIG_IGN) for signum in (signal.SIGINT, signal.SIGHUP)}
    sys.stdout.flush()
    streams = {descriptor: os.dup(descriptor) for descriptor in (0, 1, 2)}
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        for descriptor in streams:
            os.dup2(nothing, descriptor)
        yield
    finally:
        for descriptor, copy in streams.items():
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(nothing)
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
