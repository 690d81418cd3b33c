"""Run an experiment, or ask what there is.

python launch.py                          the default experiment on embedded data
python launch.py --list                   experiments, models, routers, data sets
python launch.py --describe=capsnet       a model's layers, parameters and FLOPs
python launch.py --predict=digit.png      what the workdir's best run says of a picture
python launch.py --export=FOLDER          that run, to be taken elsewhere
python launch.py --explore                a page that runs its best CapsNets in the browser
python launch.py --inspect=list           what can be seen inside of it
"""

import logging
import os
import shlex
import signal
import sys
import traceback

from absl import app, flags
from absl import logging as absl_logging


class _BoolOrText(flags.ArgumentParser):
    """A flag that may stand alone, or have a value."""

    def parse(self, argument: str | bool) -> str | bool:
        """Return whether the flag is given alone, or its value."""
        return {"true": True, "false": False}.get(argument, argument) if isinstance(argument, str) else argument


FLAGS = flags.FLAGS
flags.DEFINE_string("experiment", None, "which one; see --list (default routing_iterations)")
flags.DEFINE_string("dataset", None, "data set by name; see --list (the same as --set data.dataset=…)")
flags.DEFINE_enum("preset", "small", ["small", "paper", "sabour2017", "released"], "where settings start from")
flags.DEFINE_integer("seeds", 3, "runs of each setting, with seeds 0, 1, 2 …", lower_bound=1)
flags.DEFINE_integer("first_seed", 0, "count seeds from here", lower_bound=0)
flags.DEFINE_multi_string("set", [], "path=value: change a setting; repeats", short_name="s")
flags.DEFINE_multi_string("sweep", [], "path=value,value,…: compare settings; repeats, and then every combination")
flags.DEFINE_multi_string("baseline", [], "path=value: the setting that differences are taken from; repeats")
flags.DEFINE_string(
    "start_from", None, "runs start from this network: a folder of --export, a workdir, or a run's folder"
)
flags.DEFINE_string("workdir", None, "where records go (default runs/EXPERIMENT)")
flags.DEFINE_enum("across", "auto", ["auto", "map", "vmap"], "how runs share a program; changes speed only")
flags.DEFINE_integer("devices", None, "use no more of this machine's devices (default all)", lower_bound=1)
flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where several processes train together")
flags.DEFINE_integer("processes", None, "how many train together; 1: this one alone, in any case", lower_bound=1)
flags.DEFINE_integer("process", None, "which of them this is, from 0", lower_bound=0)
flags.DEFINE_bool("figures_only", False, "redraw tables and figures from the workdir's records")
flags.DEFINE_bool("rerun", False, "train anew what is finished already")
flags.DEFINE_flag(
    flags.Flag(
        _BoolOrText(),
        flags.ArgumentSerializer(),
        "report",
        False,
        "write README.md, a page for each experiment and report.html of the workdir; =DIR,DIR: one report of several",
        boolean=True,
    )
)
flags.DEFINE_string(
    "slurm", None, "PARTITION,tasks=N,time=MINUTES,gpus=N,…: train on a Slurm cluster; local: in tasks of this machine"
)
flags.DEFINE_bool("detach", False, "with --slurm: do not wait for the job")
flags.DEFINE_bool("worker", False, "train what no other process trains, then leave without waiting or drawing")
flags.DEFINE_string("merge", None, "DIR,DIR: take the finished runs of other workdirs into --workdir, and stop")
flags.DEFINE_bool("course", False, "write course.html, the slides with what our code makes of them, and stop")
flags.DEFINE_bool("list", False, "what there is, and stop")
flags.DEFINE_bool("settings", False, "every setting with the value in force, what it takes and means, and stop")
flags.DEFINE_string("describe", None, "a model to describe, or several joined by commas, and stop")
flags.DEFINE_string(
    "predict", None, "a picture, or a folder of them, to classify with the workdir's best run or --model, and stop"
)
flags.DEFINE_string(
    "export", None, "a new folder to write the workdir's best run into, to be taken elsewhere, and stop"
)
flags.DEFINE_string(
    "inspect", None, "list, or what to show of the workdir's best run or --model, as grad_cam, and stop"
)
flags.DEFINE_bool("explore", False, "write explorer.html: the workdir's best CapsNets, to draw for in the browser")
flags.DEFINE_string("image", None, "with --inspect: a picture; otherwise a test image, or a sample photograph")
flags.DEFINE_integer("index", None, "with --inspect: which test image, from 0")
flags.DEFINE_string("layer", None, "with --inspect: a layer, by its name in --inspect=list")
flags.DEFINE_string("unit", None, "with --inspect: a layer's unit, from 0, as 3, or row, column and channel, as 5,6,3")
flags.DEFINE_string("target", None, "with --inspect: a class, by its name or number; otherwise the net's own choice")
flags.DEFINE_string("model", None, "with --predict, --inspect: squeezenet, a file of weights, or a folder of --export")
flags.DEFINE_bool("invert", False, "with --predict: the picture is dark on light; of a digit that is found out")
flags.DEFINE_bool("as_is", False, "with --predict: only scale the picture; find, crop and centre no digit in it")
flags.DEFINE_enum("figure_format", "png", ["png", "svg", "pdf"], "what figures are saved as, beside PNGs")


def prepare_process() -> None:
    """Make the process what a long run needs, before anything large is imported."""
    for descriptor in (0, 1, 2):  # one that is closed would be given to the next file that is opened
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not in the background, where it is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends this at once, but where a run catches it and saves
    os.environ.pop("MPLBACKEND", None)  # a notebook's is not there in its child processes; our figures are files
    take_large_pages()


def take_large_pages() -> None:
    """Restart this process with memory in pages of 2 MB; glibc reads this setting only when a process starts.

    ResNet-18's step on a CPU then takes 0.47 s instead of 0.53. With pages of 4 kB the system clears 400 MB at every
    call of a program, and looks up many more addresses. A variable that is set already stays as it is.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def main(_: list[str]) -> None:
    """Hand the flags on."""
    absl_logging.set_verbosity(absl_logging.WARNING)  # app.run lets through what libraries say about themselves
    absl_logging.get_absl_handler().setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # without a home directory it warns at length
    try:
        from capsnet_jax.training.environment import drop_jax_settings, mistake

        if wrong := mistake():
            sys.exit(_refuse(wrong))
        if dropped := drop_jax_settings():
            print(f"{', '.join(dropped)} not heeded: a run's settings say all that determines it", file=sys.stderr)
        from capsnet_jax.sweeps.output import protect_output

        output_failure = protect_output()
        from experiments import cli

        code = cli.main(FLAGS)
        if code == 0 and (error := output_failure()):
            code = _refuse(f"standard output: {error.strerror}; what was asked is done, but not all was printed", 3)
    except Exception:
        traceback.print_exc()
        code = 4  # a fault of ours
    sys.exit(code)


def parse(arguments: list[str]) -> list[str]:
    """Parse flags; a mistake in them is one line and exit code 2."""
    try:
        rest = FLAGS(arguments)
    except SystemExit:  # absl has answered --help, and would exit with 1, as if that had been a mistake
        sys.exit(0)
    except flags.Error as error:
        sys.exit(_refuse(f"{error}; see python launch.py --help"))
    if len(rest) > 1:
        sys.exit(_refuse(f"{shlex.join(rest[1:])} is not a flag; see python launch.py --help"))
    return rest


def _refuse(message: str, code: int = 2) -> int:
    print(" ".join(message.split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    prepare_process()
    app.run(main, flags_parser=parse)
