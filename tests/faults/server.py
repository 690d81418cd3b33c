"""Runs launch.py's commands, many from one start: what each imports is imported once, and a command is a fork.

    python -m tests.faults.server                 a request a line on stdin; its exit code on stdout
    python -m tests.faults.server '{"arguments": ["--list"]}'     one request, in this very process

A request is JSON: `arguments` of launch.py; `out` and `err`, files; `fault`, the arguments of `inject.Calls`; `record`,
a file for what `disk.Disk` sees; `seconds`, after which the process dies as by a kill; `files`, how many it may open.
"""

import atexit
import json
import os
import resource
import signal
import sys

from absl import app

import launch
from capsnet_jax import figures
from capsnet_jax.report import pages, predict
from capsnet_jax.sweeps import run, train
from experiments import cli, routing_iterations
from tests.faults import inject
from tests.faults.disk import Disk

IMPORTED = (figures, pages, predict, run, cli, routing_iterations)


def become(request: dict) -> None:
    """Make this process the one that is to run the command."""
    for descriptor, name in ((1, "out"), (2, "err")):
        if name in request:
            os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    train.CHECKPOINT_SECONDS = -1.0  # everything is saved
    signal.setitimer(signal.ITIMER_REAL, request.get("seconds", 300))  # its signal ends a process at once
    if limit := request.get("files"):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    disk = None
    if record := request.get("record"):
        disk = Disk.continued(record)
        atexit.register(disk.save)
    if fault := request.get("fault"):
        inject.install(inject.Calls(**fault, disk=disk))
    sys.argv = ["launch.py", *request["arguments"]]


def serve() -> None:
    """Fork for each request and tell how it ended; returns in the forked process, as the command that it is to run."""
    with os.fdopen(os.dup(1), "w") as answers:
        for line in sys.stdin:
            pid = os.fork()
            if pid == 0:
                become(json.loads(line))
                return
            answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")
            answers.flush()
    sys.exit()


if __name__ == "__main__":
    if sys.argv[1:]:
        become(json.loads(sys.argv[1]))
    else:
        serve()
    app.run(launch.main, flags_parser=launch.parse)
