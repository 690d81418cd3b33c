"""Which processes make one job: what flags say, and where they do not, what started the processes."""

import importlib.util
import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from capsnet_jax.config import ConfigError


class Launcher(NamedTuple):
    """What starts the processes of a job.

    Attributes:
        title: its name.
        jax_name: JAX's name for it.
        processes: the variable that counts the job's processes, or lists their machines; "" where only its server
            knows.
        process: the variable that numbers this process.
        on_machine: the variable that numbers this process among those of its machine; "" if it has the machine alone.
        share: the variable that counts a machine's processes: as a number, or as 2(x3),1 of all machines.
    """

    title: str
    jax_name: str
    processes: str
    process: str
    on_machine: str = ""
    share: str = ""


# Slurm counts a step's tasks: a batch script that starts one process is not meant, whatever it was allotted.
LAUNCHERS = (
    Launcher("Slurm", "slurm", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"),
    Launcher(
        "Open MPI",
        "ompi",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    Launcher("a TPU", "gketpu", "TPU_WORKER_HOSTNAMES", "TPU_WORKER_ID"),
    Launcher("Kubernetes", "k8s", "", "JOB_COMPLETION_INDEX"),
)


class Member(NamedTuple):
    """One process of a job.

    Attributes:
        coordinator: HOST:PORT where process 0 listens.
        processes: how many make the job.
        process: which this is, from 0.
        devices: those of the machine that it is to use, by their numbers; None: all.
    """

    coordinator: str
    processes: int
    process: int
    devices: tuple[int, ...] | None = None


def find_member(
    coordinator: str | None, processes: int | None, process: int | None, environ: Mapping[str, str] = os.environ
) -> Member | None:
    """Return which process of which job this is; None where it is a job alone.

    Args:
        coordinator: the flag's HOST:PORT.
        processes: the flag's number; 1 has nothing to do with others, whatever started it.
        process: the flag's number.
        environ: tells what the flags do not.

    Raises:
        ConfigError: a number that cannot be, or one that nobody tells.
    """
    launcher, unasked = find_launcher(environ), (coordinator, processes, process) == (None, None, None)
    if processes == 1 or (launcher is None and unasked):
        return None
    if unasked and launcher and not launcher.processes and importlib.util.find_spec("kubernetes") is None:
        return None  # its server cannot be asked
    devices = _own_devices(launcher, environ) if launcher and process is None else None
    if launcher is not None:
        processes = _count(launcher, environ) if processes is None else processes
        process = int(environ[launcher.process]) if process is None else process
        if coordinator is None or processes is None:
            coordinator, processes = _ask_jax(launcher, coordinator, processes, process)
        if processes == 1:
            return None
    values = {"--coordinator=HOST:PORT": coordinator, "--processes=N": processes, "--process=I": process}
    if missing := [flag for flag, value in values.items() if value is None]:
        who = f"{launcher.title} does not tell it" if launcher else "nothing here tells it"
        raise ConfigError(f"several processes of one job need {missing[0]}; {who}")
    assert coordinator is not None
    assert processes is not None
    assert process is not None
    if process >= processes:
        raise ConfigError(f"--process={process} of --processes={processes}: count from 0 to {processes - 1}")
    host, colon, port = coordinator.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 2**16):
        raise ConfigError(f"--coordinator={coordinator} is not HOST:PORT, as node1:1234")
    return Member(coordinator, processes, process, devices)


def find_launcher(environ: Mapping[str, str]) -> Launcher | None:
    """Return what started several processes as one job; None where nothing says so."""
    for launcher in LAUNCHERS:
        if launcher.process not in environ:
            continue
        if launcher.processes:
            if (_count(launcher, environ) or 1) > 1:
                return launcher
        elif "KUBERNETES_SERVICE_HOST" in environ:
            return launcher
    return None


def _own_devices(launcher: Launcher, environ: Mapping[str, str]) -> tuple[int, ...] | None:
    """Return the device of a process that shares its machine with others; None where it may take all that it sees."""
    local = environ.get(launcher.on_machine)
    sees_one = "," not in environ.get("CUDA_VISIBLE_DEVICES", ",")
    counts = [int(text) for text in re.findall(r"\d+", re.sub(r"\(x\d+\)", "", environ.get(launcher.share, "")))]
    is_alone = counts != [] and max(counts) == 1
    return None if local is None or sees_one or is_alone else (int(local),)


def _count(launcher: Launcher, environ: Mapping[str, str]) -> int | None:
    """Return how many processes the job has, by the environment."""
    text = environ.get(launcher.processes, "")
    if text.isdecimal():
        return int(text)
    return len(text.split(",")) if text else None


def _ask_jax(
    launcher: Launcher, coordinator: str | None, processes: int | None, process: int
) -> tuple[str | None, int | None]:
    """Return where process 0 is and how many there are, as JAX finds out; what it does not find stays as it is."""
    from jax._src.clusters import ClusterEnv

    try:
        cluster = next(known for known in ClusterEnv._cluster_types if known.name == launcher.jax_name)
        if not cluster.is_env_present():
            return coordinator, processes
        coordinator = coordinator or cluster.get_coordinator_address(timeout_secs=60, override_coordinator_port=None)
        return coordinator, processes or cluster.get_process_count()
    except Exception as error:
        reason = " ".join(str(error).split()) or repr(error)
        raise ConfigError(
            f"{launcher.title} does not tell who makes this job ({reason}); say so by --coordinator=HOST:PORT"
            " --processes=N, or leave the others alone by --processes=1"
        ) from error
