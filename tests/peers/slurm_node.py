"""A Slurm of one node on this machine, from the system's packages (Debian's slurm-wlm and munge), while it is used.

    python -m tests.peers.slurm_node COMMAND …      a command beside it; without one, sinfo

It needs neither systemd nor control groups, so it runs in a container. Its daemons, keys, state and logs lie in a
folder of its own; a Slurm that the system has is left alone. It has two CPUs, whatever the machine has. A job that
is requeued starts again after `cred_expire`, 20 s here and 120 s by default.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
START_SECONDS = 60.0
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=20
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=1,sched_interval=2
SwitchType=switch/none
ReturnToService=2
MaxArraySize=1001
JobRequeue=1
KillWait=5
MessageTimeout=30
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """The programs that this machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]


@contextlib.contextmanager
def slurm_node() -> Iterator[dict[str, str]]:
    """Starts the daemons; yields the environment in which `sbatch` and its like use them, and stops them in the end.

    Raises:
        RuntimeError: the node did not become idle; the message has the end of the daemons' logs.
    """
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(mode=0o755)
    (folder / "munge/key").write_bytes(secrets.token_bytes(128))
    (folder / "munge/key").chmod(0o400)
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()}
    (folder / "slurm.conf").write_text(
        CONFIG.format(
            folder=folder,
            host=socket.gethostname().partition(".")[0],
            user=_user(),
            controller=_free_port(),
            daemon=_free_port(),
        )
    )
    folder.chmod(0o755)
    options = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munge = [f"--{option}={folder / 'munge' / name}" for option, name in options.items()]
    daemons = [
        ["munged", "--foreground", "--force", "--num-threads=2", *munge],
        ["slurmctld", "-D", "-i"],
        ["slurmd", "-D"],
    ]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for line in daemons:
            log = (folder / f"{line[0]}.out").open("wb")
            running.append(subprocess.Popen(line, env=environment, stdout=log, stderr=log))
            log.close()
            if line[0] == "munged":
                _wait(lambda: (folder / "munge/socket").exists(), folder)
        _wait(lambda: "idle" in _ask(environment, "sinfo", "--noheader", "--format=%t"), folder)
        yield environment
    finally:
        _ask(environment, "scancel", "--full", "--signal=KILL", f"--user={_user()}")
        for process in reversed(running):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _ask(environment: Mapping[str, str], *command: str) -> str:
    """What a command prints; "" where it fails."""
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout


def _wait(ready: Callable[[], bool], folder: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while not ready():
        if time.monotonic() > end:
            logs = [path.read_text(errors="replace")[-2000:] for path in folder.glob("*.*") if path.suffix != ".conf"]
            raise RuntimeError("Slurm did not start:\n" + "\n".join(logs))
        time.sleep(0.2)


def _user() -> str:
    return subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()


def _path() -> str:
    """The search path, with the folders of daemons."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


if __name__ == "__main__":
    with slurm_node() as names:
        sys.exit(subprocess.run(sys.argv[1:] or ["sinfo"], env=names, check=False).returncode)
