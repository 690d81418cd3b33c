"""Carry out what the flags of launch.py ask for; a mistake becomes one line and an exit code.

asked.py says what is asked for, study.py trains or measures it and shows what came out, looks.py only looks.
"""

import errno
import sys
from collections.abc import Callable

from absl import flags

from capsnet_jax.config import ConfigError
from experiments.cli import looks, study
from experiments.cli.asked import DEFAULT_EXPERIMENT, INSPECT_FLAGS, MEASURE_FLAGS, RUN_FLAGS, module_of


def main(options: flags.FlagValues) -> int:
    """Do what the flags ask.

    Returns:
        The exit code, after one line on stderr where it is not 0: 1 when runs diverged, 2 for a mistake in what was
        asked, 3 when the machine or a file failed, 128 + signal when a signal stopped the run, which the same command
        continues.
    """
    try:
        task = _choose_task(options)
        task(options)
        sys.stdout.flush()
        return 0
    except Exception as error:
        code, line = _explain(error)
        if code is None:  # a fault of ours
            raise
        print(" ".join(line.splitlines()), file=sys.stderr)  # a file's name may have several
        return code


def _choose_task(options: flags.FlagValues) -> Callable[[flags.FlagValues], None]:
    """Return the task that the flags ask for.

    Raises:
        ConfigError: several tasks, a flag that the task does not use, or one that is given but empty.
    """
    given = [name for name in ALL_FLAGS if options[name].present and options[name].value is not False]
    tasks = [name for name in given if name in TASKS]
    if len(tasks) > 1:
        raise ConfigError(f"--{tasks[0]} and --{tasks[1]} are two tasks; ask for one at a time")
    if empty := [name for name in given if options[name].value == ""]:
        raise ConfigError(f"--{empty[0]} is empty; give it a value, or leave it out")
    task, used = TASKS[tasks[0]] if tasks else (_train, RUN_FLAGS)
    what = f"--{tasks[0]}" if tasks else "training"
    if sys.flags.optimize > 1 and what in ("--list", "--report"):
        raise ConfigError(f"{what} prints docstrings, which PYTHONOPTIMIZE=2 takes away; unset it")
    if not tasks and hasattr(module_of(options.experiment or DEFAULT_EXPERIMENT), "measure"):
        what, task, used = f"{options.experiment}, which trains nothing,", study.measure, MEASURE_FLAGS
    if unused := [name for name in given if name not in (*tasks, *used)]:
        raise ConfigError(f"{what} does not use --{unused[0]}; leave it out")
    return task


def _train(options: flags.FlagValues) -> None:
    study.train(options, _explain)


def _explain(error: Exception) -> tuple[int | None, str]:
    """Return the exit code of what ended a task, and the line that tells it; None where it is a fault of ours."""
    if isinstance(error, ConfigError):  # most mistakes: the line does not wait for the whole package
        return 2, str(error)
    from capsnet_jax.bench.process import WorkerError
    from capsnet_jax.data import DataError
    from capsnet_jax.sweeps.checkpoint import CheckpointError
    from capsnet_jax.sweeps.interrupt import Interrupted
    from capsnet_jax.sweeps.lock import LockedError
    from capsnet_jax.sweeps.run import Diverged
    from capsnet_jax.sweeps.slurm import JobError
    from capsnet_jax.training.join import HostError
    from capsnet_jax.training.limits import OutOfMemoryError, told_as_out_of_memory

    error = told_as_out_of_memory(error) or error
    line = str(error)
    if isinstance(error, Diverged):
        return 1, line
    if isinstance(error, DataError):
        return 2, line
    if isinstance(error, LockedError | CheckpointError | WorkerError | HostError | OutOfMemoryError | JobError):
        return 3, line
    if isinstance(error, Interrupted):
        return error.exit_code, line
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        remedy = REMEDIES.get(error.errno or 0, "mend that, or use another workdir")
        return 3, f"{where}{error.strerror or error}; {remedy}; what is finished is kept, the same command continues"
    return None, line


# Each task that is not training: its function, and the flags that it uses.
TASKS: dict[str, tuple[Callable[[flags.FlagValues], None], tuple[str, ...]]] = {
    "list": (looks.list_names, ()),
    "settings": (looks.settings, ("experiment", "dataset", "preset", "set", "sweep", "baseline", "start_from")),
    "describe": (looks.describe, ("dataset", "set")),
    "predict": (looks.predict, ("experiment", "workdir", "model", "invert", "as_is")),
    "inspect": (looks.inspect, ("experiment", "workdir", "model", *INSPECT_FLAGS, "figure_format")),
    "export": (looks.export, ("experiment", "workdir")),
    "explore": (looks.explore, ("experiment", "workdir")),
    "report": (study.report, ("workdir",)),
    "merge": (study.merge, ("workdir",)),
    "course": (looks.course, ("workdir",)),
    "figures_only": (study.figures_only, ("experiment", "workdir", "baseline", "figure_format")),
}
ALL_FLAGS = (*TASKS, *RUN_FLAGS, *INSPECT_FLAGS, "model", "invert", "as_is")

REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EACCES: "allow it, or use another workdir",
    errno.EPERM: "allow it, or use another workdir",
    errno.EROFS: "make it writable, or use another workdir",
    errno.EMFILE: "raise the limit by `ulimit -n`",
    errno.ENOENT: "was it deleted?",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ENOTDIR: "name a folder",
    errno.EEXIST: "name another folder",
    errno.EISDIR: "name a file",
}
