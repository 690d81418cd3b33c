"""What the flags of launch.py ask for, carried out; a mistake becomes one line and an exit code."""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags

from capsnet_jax import config
from capsnet_jax.config import Config, ConfigError
from capsnet_jax.overrides import parse_setting, spell, sweep_over
from experiments import EXPERIMENTS


def main(options: flags.FlagValues) -> int:
    """Do what the flags ask.

    Returns:
        The exit code: 0, 1 when runs diverged, 2 for a mistake in what was asked (one line on stderr), 128 + signal
        when a signal stopped the run, which the same command continues.
    """
    if options.list:
        print(_what_there_is())
        return 0
    if options.settings:
        print(_settings())
        return 0
    try:
        return _task(options)
    except ConfigError as mistake:
        return _complain(mistake)


def _task(options: flags.FlagValues) -> int:
    """The tasks that need the whole package, which takes a second to import."""
    from capsnet_jax import data
    from capsnet_jax.bench.process import WorkerError
    from capsnet_jax.models import summary as describe
    from capsnet_jax.sweeps import checkpoint, interrupt, lock
    from capsnet_jax.sweeps import run as sweep

    try:
        if options.describe is not None:
            print(describe.describe(options.describe))
        elif options.predict is not None:
            return _predict(Path(options.predict), _workdir(options), options.invert)
        elif options.figures_only:
            _draw(options.experiment, _experiment(options), _workdir(options))
        else:
            _run(options)
    except (data.DataError, lock.LockedError, checkpoint.CheckpointError) as mistake:
        return _complain(mistake)
    except (sweep.Diverged, WorkerError) as outcome:
        return _complain(outcome, 1)
    except interrupt.Interrupted as signal:
        return _complain(signal, signal.exit_code)
    return 0


def _predict(picture: Path, workdir: Path, invert: bool) -> int:
    """Say what a picture shows. Only this task and figures import matplotlib."""
    from capsnet_jax.report import predict

    try:
        text, figure = predict.predict(picture, workdir, invert=invert)
    except predict.PredictError as mistake:
        return _complain(mistake)
    print(f"{text}\n{figure}")
    return 0


def _run(options: flags.FlagValues) -> None:
    """Train or measure what is not yet done, then draw."""
    from capsnet_jax.interpret import restore as trained
    from capsnet_jax.sweeps import records
    from capsnet_jax.sweeps import run as sweep
    from capsnet_jax.sweeps.interrupt import stop_requested
    from capsnet_jax.sweeps.lock import exclusive
    from capsnet_jax.training.compile import keep_compiled

    name, experiment, workdir = options.experiment, _experiment(options), _workdir(options)
    settings, swept = settings_of(experiment, options)
    if hasattr(experiment, "measure"):
        with exclusive(workdir), stop_requested() as stop:
            experiment.measure(settings, workdir, stop)
            _draw(name, experiment, workdir)
        return
    keep_compiled()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    cells = [records.Cell(setting, seed) for setting in settings for seed in seeds]

    def command(cell: records.Cell) -> str:
        return _command(name, cell.config, cell.seed, swept)

    with exclusive(workdir), stop_requested() as stop:
        records.note_experiment(workdir, name, cells, swept)
        try:
            sweep.run(cells, sweep.Plan(workdir, options.across, command, stop))
        except sweep.Diverged:
            _draw(name, experiment, workdir)
            raise
        if hasattr(experiment, "observe"):
            for record in _finite(records.load(workdir, name)[0]):
                trained.observe(record, name, experiment.observe)
        _draw(name, experiment, workdir)


def settings_of(experiment: ModuleType, options: flags.FlagValues) -> tuple[list[Config], list[str]]:
    """The configs that an experiment compares under these flags, and the paths that it sweeps.

    The preset comes first, then the experiment's CONFIG, then --dataset and --set. What --set or --sweep name is
    taken out of the experiment's SWEEP; a --sweep is then crossed with what remains of it.

    Raises:
        ConfigError: a setting that cannot be used.
    """
    base = config.override(config.from_preset(options.preset), experiment.CONFIG)
    if options.dataset is not None:
        base = config.override(base, {"data.dataset": options.dataset})
    fixed, varied = {}, {}
    for text in options.set:
        path, values = parse_setting(text)
        if len(values) > 1:
            raise ConfigError(f"--set {text} gives {len(values)} values; compare them with --sweep {text}")
        fixed[path] = values[0]
    for text in options.sweep:
        path, values = parse_setting(text)
        varied[path] = values
    if "preset" in fixed | varied:
        raise ConfigError("preset is not a setting to change; use --preset")
    fixed = {path: value for path, value in fixed.items() if path not in varied}
    arms = sweep_over(experiment.SWEEP, {path: [value] for path, value in fixed.items()} | varied)
    swept = dict.fromkeys([*(path for arm in arms for path in arm if path not in fixed)])
    settings = [config.override(base, arm) for arm in arms]
    return list(dict.fromkeys(settings)), list(swept)  # a value that is given twice is one setting


def _draw(name: str, experiment: ModuleType, workdir: Path) -> None:
    """Table and figures from the workdir's records."""
    from capsnet_jax import figures

    text, found = experiment.report(workdir) if hasattr(experiment, "report") else _report(name, experiment, workdir)
    if not text:
        raise ConfigError(f"no finished run of {name} in {workdir}; run it first, or name its --workdir")
    print(f"\n{text}")
    for title, figure in (experiment.figures(found) if found else {}).items():
        print(figures.save(figure, workdir / "figures" / f"{name}-{title}.png"))


def _report(name: str, experiment: ModuleType, workdir: Path) -> tuple[str, list[Any]]:
    """The tables of what was trained, and the runs to draw: one that diverged has a row, but no curve."""
    from capsnet_jax.report import tables
    from capsnet_jax.sweeps import records

    found, swept = records.load(workdir, name)
    if not found:
        return "", []
    if hasattr(experiment, "count"):
        found = [dataclasses.replace(record, result=record.result | experiment.count(record)) for record in found]
    table = workdir / f"{name}.csv"
    records.write_csv(table, found, swept)
    paired, best = tables.paired(found, swept), tables.best(found, swept)
    parts = [
        f"{tables.summary(found, swept)}\n(mean ± 95 % interval over seeds)",
        paired and f"{paired}\n(test error less that of the first setting on the same data, mean ± 95 % interval)",
        best,
        str(table),
    ]
    return "\n\n".join(part for part in parts if part), _finite(found)


def _finite(found: list[Any]) -> list[Any]:
    return [record for record in found if record.result["diverged_step"] < 0]


def _command(name: str, settings: Config, seed: int, swept: Sequence[str]) -> str:
    """What to type to run one cell alone."""
    preset = config.flatten(config.from_preset(settings.preset))
    own = {path: value for path, value in config.flatten(settings).items() if path != "preset"}
    words = ["python", "launch.py", f"--experiment={name}", f"--preset={settings.preset}"]
    for path, value in own.items():
        if value != preset[path] or path in swept:
            words += ["--set", f"{path}={spell(value)}"]
    return shlex.join([*words, "--seeds=1", f"--first_seed={seed}", "--workdir=WORKDIR"])


def _experiment(options: flags.FlagValues) -> ModuleType:
    config.check_word("--experiment", options.experiment, EXPERIMENTS)
    return EXPERIMENTS[options.experiment]


def _workdir(options: flags.FlagValues) -> Path:
    return Path(options.workdir or Path("runs") / options.experiment)


def _what_there_is() -> str:
    from capsnet_jax.data import DATASETS
    from capsnet_jax.models import MODELS
    from capsnet_jax.routing import ROUTERS

    def first_line(thing: Any) -> str:
        return (getattr(thing, "func", thing).__doc__ or "").strip().split("\n")[0]

    parts = {
        "experiments": {name: first_line(module) for name, module in EXPERIMENTS.items()},
        "models": {name: first_line(model) for name, model in MODELS.items()},
        "routers": {name: first_line(router) for name, router in ROUTERS.items()},
        "data sets": {name: known.description for name, known in DATASETS.items()},
    }
    lines = []
    for title, entries in parts.items():
        lines += [title, *(f"  {name:<20} {text}" for name, text in entries.items()), ""]
    return "\n".join([*lines, "Any other tfds image-classification set is named as tfds names it."])


def _settings() -> str:
    lines = []
    for path, field in config.paths().items():
        takes = config.takes(path)
        lines.append(f"{path + '=' + spell(field.default):<34} {field.metadata['doc']} ({takes})")
    return "\n".join(lines)


def _complain(reason: Exception, code: int = 2) -> int:
    print(reason, file=sys.stderr)
    return code
