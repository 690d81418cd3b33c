"""What `--slurm` may say, and what a task does; jobs that run are in test_slurm.py."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import submitit

from capsnet_jax import overrides
from capsnet_jax.config import ConfigError
from capsnet_jax.sweeps import slurm
from capsnet_jax.sweeps.files import append_lines
from capsnet_jax.sweeps.interrupt import Interrupted
from capsnet_jax.sweeps.job import Task, TaskError, log_path
from capsnet_jax.sweeps.plan import Plan, group_by_program
from capsnet_jax.sweeps.records import Run
from capsnet_jax.sweeps.submit import ArrayJob, Request, parse, submit, submitted
from tests import tiny

# Saves for half a second when it is asked to end, and goes on at the number that it saved.
CHILD = """
import pathlib, signal, sys, time
saved = pathlib.Path(sys.argv[1])
start = int(saved.read_text()) if saved.exists() else 0
def stop(*_):
    time.sleep(0.5)
    saved.write_text(str(start + 1))
    print("saved", flush=True)
    sys.exit(129)
signal.signal(signal.SIGHUP, stop)
print("from", start, flush=True)
time.sleep(0 if start else 60)
"""


def test_a_request():
    assert parse("local") == Request("local")
    assert parse("local,tasks=2,gpus=1,on_interrupt=cancel") == Request("local", tasks=2, gpus=1, on_interrupt="cancel")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (",tasks=2", "begins with no partition"),
        ("tasks=2", "begins with no partition"),
        ("local,nodes=2", "nodes=2 is none of tasks=, time=, gpus=, cpus=, mem=, account=, qos=, on_interrupt="),
        ("local,tasks", "tasks is none of"),
        ("local,tasks=", "tasks= is none of"),
        ("local,tasks=0", "tasks=0 is no number; say a number from 1"),
        ("local,tasks=two", "tasks=two is no number"),
        ("local,tasks=2,tasks=3", "tasks is given twice"),
        ("local,time=1h", "time=1h is no time; say minutes, or hours and minutes as 1:30"),
        ("local,time=0", "time=0 is no time"),
        ("local,mem=nan", "mem=nan is no number; say gigabytes, as 16"),
        ("local,mem=4", "--slurm=local does not use mem"),
        ("local,time=1:30", "--slurm=local does not use time"),
        ("local,on_interrupt=stop", "on_interrupt=stop is neither leave nor cancel"),
    ],
)
def test_mistakes_are_refused(text, message):
    with pytest.raises(ConfigError) as refusal:
        parse(text)
    assert message in str(refusal.value)


def test_a_partition_needs_slurm(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="there is no sbatch on this machine; say --slurm=local"):
        parse("gpu,tasks=2")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--detach"], "--detach is for --slurm"),
        (["--slurm=local", "--worker"], "leave out --worker"),
        (["--slurm=local", "--rerun"], "--rerun would train anew in every task"),
        (["--figures_only", "--slurm=local"], "--figures_only does not use --slurm"),
        (["--experiment=throughput", "--slurm=local"], "does not use --slurm"),
    ],
)
def test_flags_that_do_not_go_together(flags, message, capsys, tmp_path):
    code, _, error = tiny.call(capsys, *flags, f"--workdir={tmp_path / 'new'}")
    assert (code, error.count("\n")) == (2, 1)
    assert message in error
    assert not (tmp_path / "new").exists()


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """Makes an `sbatch` that does what a line of shell says."""

    def make(line: str) -> None:
        for name, text in (("sbatch", line), ("srun", "true")):
            (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return make


def test_what_slurm_is_asked_for(sbatch, tmp_path):
    sbatch(f"cp $1 {tmp_path}/asked; echo Submitted batch job 42")
    request = parse("gpu,time=1:30,gpus=2,cpus=4,mem=16,account=lab,qos=low")
    job = submit(tmp_path / "slurm", request, 3, ["true"])
    assert (job.id, job.how_to_cancel) == ("42", "scancel 42")
    assert [task.job_id for task in job.tasks] == ["42_0", "42_1", "42_2"]
    lines = (tmp_path / "asked").read_text().splitlines()
    asked = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
    assert asked >= {
        *("partition=gpu", "time=90", "gpus-per-node=2", "cpus-per-task=4", "mem=16GB", "account=lab", "qos=low"),
        *("array=0-2%3", "signal=USR2@90", "requeue"),
    }


def test_what_slurm_refuses_is_one_line(sbatch, tmp_path, capfd):
    sbatch("echo 'sbatch: error: invalid partition specified: gpu' >&2; exit 1")
    with pytest.raises(ConfigError) as refusal:
        submit(tmp_path / "slurm", parse("gpu"), 2, ["true"])
    assert str(refusal.value) == "sbatch refuses the job: invalid partition specified: gpu; change --slurm"
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def job(tmp_path, monkeypatch) -> Path:
    """The environment of a task that submitit has started; its folder."""
    for name, value in {"EXECUTOR": "local", "FOLDER": str(tmp_path), "LOCAL_JOB_ID": "7"}.items():
        monkeypatch.setenv(f"SUBMITIT_{name}", value)
    handler = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, handler)


def test_a_task_runs_its_command(job):
    code = "import os, sys; print(os.getcwd(), os.environ['GIVEN'], 'TAKEN' in os.environ); sys.exit(int(sys.argv[1]))"
    os.environ["TAKEN"] = "1"
    environment = {"GIVEN": "yes", "TAKEN": None}
    for exit_code in ("0", "1"):  # 1: runs diverged, which their records tell
        Task([sys.executable, "-c", code, exit_code], job, environment)()
    with pytest.raises(TaskError, match="exit code 3"):
        Task([sys.executable, "-c", code, "3"], job, environment)()
    assert log_path(job, "7").read_text() == f"{job} yes False\n" * 3


def test_a_preempted_task_saves_and_goes_on(job):
    """As submitit does it: the handler of a signal calls `checkpoint`, and what that returns is called next time."""
    task = Task([sys.executable, "-c", CHILD, str(job / "saved")], job, {})

    class Preempted(Exception):  # noqa: N818
        pass

    again = []

    def preempt(*_: object) -> None:
        again.append(task.checkpoint())
        raise Preempted

    def send() -> None:
        while not (log_path(job, "7").exists() and "from" in log_path(job, "7").read_text()):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, preempt)
    try:
        threading.Thread(target=send, daemon=True).start()
        began = time.monotonic()
        with pytest.raises(Preempted):
            task()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert time.monotonic() - began < 30  # and not the minute after which the child is killed
    again[0].result()
    assert log_path(job, "7").read_text() == "from 0\nsaved\nfrom 1\n"


class Job(ArrayJob):
    """Tasks that end one after the other, as their files tell; nothing is submitted."""

    def __init__(self, folder: Path, states: list[dict[int, str] | None]):
        super().__init__("7", [submitit.slurm.slurm.SlurmJob(folder, f"7_{index}") for index in range(2)])
        self.states, self.cancelled = states, 0

    def living(self) -> dict[int, str] | None:
        return self.states.pop(0)

    def cancel(self, *options: str) -> None:
        self.cancelled += 1


def wait_for(job: Job, folder: Path, monkeypatch: pytest.MonkeyPatch, stop: int | None = None, **request: str) -> None:
    for name in ("STOP_SECONDS", "RECORD_SECONDS", "QUEUE_SECONDS"):
        monkeypatch.setattr(slurm, name, 0.0)
    monkeypatch.setattr(slurm, "count_images", lambda *_: 100)
    run = Run(overrides.build({}), 0)
    plan = Plan(folder, "auto", lambda _: "", lambda: stop)
    slurm._wait([run], {}, plan, {run.config.data: None}, Request("gpu", **request), job)


@pytest.mark.parametrize(("living", "goes_on"), [({0: "running"}, True), (None, True), ({}, False)])
def test_a_job_is_submitted_again_only_when_it_is_known_to_be_over(living, goes_on, tmp_path, monkeypatch):
    line = {"command": ["a"], "partition": "gpu"}
    append_lines(tmp_path / "jobs.jsonl", [line | {"job": "7", "tasks": 2}])
    monkeypatch.setattr(ArrayJob, "living", lambda job: living)
    job = submitted(tmp_path, line)
    assert (str(job) == "job 7") if goes_on else (job is None)


def test_what_became_of_tasks_is_told(tmp_path, monkeypatch, capsys):
    """One ended well and trained nothing, one was killed; a queue that does not answer is no end."""
    job = Job(tmp_path, [{0: "running", 1: "waits (Resources)"}, None, {1: "running"}, {}])
    submitit.core.utils.cloudpickle_dump(("success", None), job.tasks[0].paths.result_pickle)
    log_path(tmp_path, "7_1").write_text("[1/1] compiling\nno space left\n\n")
    with pytest.raises(slurm.JobError) as refusal:
        wait_for(job, tmp_path, monkeypatch)
    line = f"task 1 failed, see {log_path(tmp_path, '7_1')}: no space left"
    assert str(refusal.value) == (
        f"job 7 is over, and 1 of 1 run not finished; {line}; the same command submits them again"
    )
    assert line in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("wish", "line"),
    [
        ("leave", "job 7 goes on; to cancel it: scancel 7"),
        ("cancel", "job 7 is cancelled; its tasks save what they train"),
    ],
)
def test_interrupted(wish, line, tmp_path, monkeypatch, capsys):
    job = Job(tmp_path, [{0: "running", 1: "running"}])
    with pytest.raises(Interrupted):
        wait_for(job, tmp_path, monkeypatch, stop=signal.SIGINT, on_interrupt=wish)
    assert line in capsys.readouterr().out.splitlines()
    assert job.cancelled == (wish == "cancel")


HOLDER = """
import pathlib, sys, time
from capsnet_jax.sweeps.lock import ProgramLock
lock = ProgramLock(pathlib.Path(sys.argv[1]))
lock.acquire()
print("locked", flush=True)
time.sleep(60)
"""


def test_a_task_that_an_earlier_command_started_is_waited_for(tmp_path, monkeypatch, capsys):
    """It trains what is left: this command's own tasks find nothing free, and end."""
    [key] = group_by_program([Run(overrides.build({}), 0)])
    line = [sys.executable, "-c", HOLDER, tmp_path / "programs" / key / "lock"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as earlier:
        assert earlier.stdout.readline() == "locked\n"
        looks = 0

        class Over(Job):
            def living(self) -> dict[int, str]:
                nonlocal looks
                looks += 1
                if looks == 3:
                    earlier.kill()
                    earlier.wait()
                return {}

        with pytest.raises(slurm.JobError):
            wait_for(Over(tmp_path, []), tmp_path, monkeypatch)
    assert looks == 3
    assert capsys.readouterr().out.count(f"waiting for programs that process {earlier.pid} trains\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells a process of its parent's end")
@pytest.mark.parametrize("killed", ["task", "controller"])
def test_a_command_whose_task_or_controller_is_killed_saves(killed, job):
    task = [sys.executable, "-c", "import sys; from capsnet_jax.sweeps.job import Task; Task(sys.argv[1:], '.', {})()"]
    controller = [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])"] * (
        killed == "controller"
    )
    with subprocess.Popen([*controller, *task, sys.executable, "-c", CHILD, str(job / "saved")]) as parent:
        end = time.monotonic() + 60
        while not (log_path(job, "7").exists() and "from" in log_path(job, "7").read_text()):
            assert time.monotonic() < end
            time.sleep(0.05)
        parent.kill()
    while not (job / "saved").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
