"""Carry out what the flags of launch.py ask for; a mistake becomes one line and an exit code."""

import ast
import dataclasses
import importlib
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from absl import flags

from capsnet_jax.config import PRESETS, Config, ConfigError, Eval, check_word
from experiments import EXPERIMENTS

DEFAULT_EXPERIMENT = "routing_iterations"


class Asked(NamedTuple):
    """What an experiment compares under some flags.

    Attributes:
        configs: the settings, each once.
        swept: the paths that it sweeps.
        observed: what is observed beside errors.
        baseline: {path: value} of the setting that differences are taken from; {} where none is named.
    """

    configs: list[Config]
    swept: list[str]
    observed: Eval
    baseline: dict[str, Any]


def main(options: flags.FlagValues) -> int:
    """Do what the flags ask.

    Returns:
        The exit code: 0, 1 when runs diverged, 2 for a mistake in what was asked (one line on stderr), 128 + signal
        when a signal stopped the run, which the same command continues.
    """
    try:
        code = _task(options)
        sys.stdout.flush()
    except ConfigError as mistake:
        return _complain(mistake)
    except BrokenPipeError:  # the reader, as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes what is left when it exits
        return 0
    return code


def _task(options: flags.FlagValues) -> int:
    """Carry out one task; each imports what it needs, for the whole package takes seconds."""
    if options.list:
        print(_what_there_is())
        return 0
    from capsnet_jax.bench.process import WorkerError
    from capsnet_jax.data import DataError
    from capsnet_jax.sweeps.checkpoint import CheckpointError
    from capsnet_jax.sweeps.files import DamagedFileError
    from capsnet_jax.sweeps.interrupt import Interrupted
    from capsnet_jax.sweeps.lock import LockedError
    from capsnet_jax.sweeps.run import Diverged

    try:
        if options.settings:
            _settings(options)
        elif options.describe is not None:
            _describe(options)
        elif options.predict is not None:
            _predict(options)
        elif options.report:
            _report(options)
        elif options.figures_only:
            name = _experiment_name(options)
            _draw(name, _workdir(options), _baseline(options, _load(name)))
        else:
            _run(options)
    except (DataError, LockedError, CheckpointError, DamagedFileError) as mistake:
        return _complain(mistake)
    except BrokenPipeError:
        raise
    except OSError as mistake:
        return _complain(f"{mistake}: make room, or use another workdir")
    except (Diverged, WorkerError) as outcome:
        return _complain(outcome, 1)
    except Interrupted as signal:
        return _complain(signal, signal.exit_code)
    return 0


def resolve_flags(experiment: ModuleType, options: flags.FlagValues) -> Asked:
    """Resolve what an experiment compares under these flags.

    The preset comes first, then the experiment's CONFIG, then --dataset and --set. What --set or --sweep name is
    taken out of the experiment's SWEEP; a --sweep is then crossed with what remains of it. What a chosen model or
    router does not have makes no difference: arms that differ in nothing else become one.

    Raises:
        ConfigError: a setting that cannot be used, or one of --set and --sweep that no arm has.
    """
    from capsnet_jax import overrides

    preset = PRESETS[options.preset] | {"preset": options.preset}
    base = preset | experiment.CONFIG
    if "train.epochs" in preset:  # a preset that says how long it trains is trained so long, also where a look is quick
        base |= {"train.epochs": preset["train.epochs"]}
    if options.dataset is not None:
        base |= {"data.dataset": options.dataset}
    fixed = _single_values("--set", options.set)
    varied: dict[str, list[Any]] = {}
    for text in options.sweep:
        path, values = overrides.parse_setting(text)
        varied[path] = values
    for path in [*fixed, *varied]:
        if path == "preset":
            raise ConfigError("preset is not a setting to change; use --preset")
        if path in varied and path.startswith("eval."):
            raise ConfigError(f"{path} changes no run, so it cannot be swept; use --set {path}=…")
    fixed = {path: value for path, value in fixed.items() if path not in varied}
    arms = overrides.sweep_over(experiment.SWEEP, {path: [value] for path, value in fixed.items()} | varied)
    resolved = [overrides.resolve(base | arm) for arm in arms]
    configs = list(dict.fromkeys(each.config for each in resolved))
    asked = [*fixed, *varied]
    overrides.refuse_unused([p for p in asked if all(p in each.unused for each in resolved)], configs)
    flats = [overrides.flatten(config) for config in configs]
    swept = dict.fromkeys(path for arm in arms for path in arm if path not in fixed)
    swept_here = [path for path in swept if any(path in flat for flat in flats)]
    return Asked(configs, swept_here, resolved[0].observed, _baseline(options, experiment))


def _run(options: flags.FlagValues) -> None:
    """Train or measure what is not yet done, then draw."""
    from capsnet_jax.interpret import restore
    from capsnet_jax.interpret.routing_diagnostics import observe_routing
    from capsnet_jax.sweeps import records, run
    from capsnet_jax.sweeps.interrupt import stop_requested
    from capsnet_jax.sweeps.lock import exclusive
    from capsnet_jax.sweeps.plan import Plan
    from capsnet_jax.training.compile import enable_compilation_cache

    name, workdir = options.experiment or DEFAULT_EXPERIMENT, _workdir(options)
    experiment = _load(name)
    asked = resolve_flags(experiment, options)
    if hasattr(experiment, "measure"):
        with exclusive(workdir), stop_requested() as stop:
            experiment.measure(asked.configs, workdir, stop)
            _draw(name, workdir, asked.baseline)
        return
    enable_compilation_cache()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    runs = [records.Run(config, seed) for config in asked.configs for seed in seeds]

    def command(run: records.Run) -> str:
        return _command(name, run.config, run.seed, asked)

    with stop_requested() as stop:
        datasets = run.load_and_check(runs)
        records.note_experiment(workdir, name, runs, asked.swept)
        observe_fn = observe_routing(asked.observed.max_routing_iterations)
        plan = Plan(workdir, options.across, command, stop, asked.observed, observe_fn, options.rerun)
        try:
            run.train_all(runs, plan, datasets)
        except run.Diverged:
            _draw(name, workdir, asked.baseline)
            raise
        if hasattr(experiment, "observe"):
            for record in _finite(records.load(workdir, name)[0]):
                restore.save_observation(record, name, experiment.observe)
        _draw(name, workdir, asked.baseline)


def _draw(name: str, workdir: Path, baseline: dict[str, Any]) -> None:
    """Print the table and save the figures of the workdir's records."""
    from capsnet_jax import figures
    from capsnet_jax.figures.grouping import studies

    experiment = _load(name)
    if hasattr(experiment, "report"):
        text, measured = experiment.report(workdir)
        parts = {"": measured}
    else:
        text, results = _tables(name, experiment, workdir, baseline)
        parts = studies(results)
    if not text:
        raise ConfigError(f"no finished run of {name} in {workdir}; run it first, or name its --workdir")
    print(f"\n{text}")
    for study, members in parts.items():
        for title, figure in (experiment.figures(members) if members else {}).items():
            file = "-".join(word for word in (name, title, study) if word)
            print(figures.save(figure, workdir / "figures" / f"{file}.png"))


def _tables(name: str, experiment: ModuleType, workdir: Path, baseline: dict[str, Any]) -> tuple[str, list[Any]]:
    """Return the tables of what was trained, and the runs to draw: one that diverged has a row, but no curve."""
    from capsnet_jax.report import tables
    from capsnet_jax.sweeps import records

    results, swept = records.load(workdir, name)
    if not results:
        return "", []
    results = tables.with_counts(results, experiment)
    path = workdir / f"{name}.csv"
    tables.write_csv(path, results, swept)
    return f"{tables.as_text(results, swept, baseline)}\n\n{path}", _finite(results)


def _finite(results: Sequence[Any]) -> list[Any]:
    return [record for record in results if not record.diverged]


def _report(options: flags.FlagValues) -> None:
    """Write the pages of every experiment of a workdir from its records."""
    from capsnet_jax.report import pages

    if options.workdir is None:
        raise ConfigError("--report needs the --workdir whose records it tells of")
    for path in pages.write(Path(options.workdir), {name: _load(name) for name in EXPERIMENTS}):
        print(path)


def _predict(options: flags.FlagValues) -> None:
    """Say what a picture shows."""
    from capsnet_jax.report.predict import predict

    prediction = predict(options.predict, _workdir(options), invert=options.invert, as_is=options.as_is)
    print(prediction.text, flush=True)  # also if the figure cannot be saved
    print(prediction.save())


def _describe(options: flags.FlagValues) -> None:
    """Describe models, each as the flags have it."""
    from capsnet_jax import overrides
    from capsnet_jax.data import dimensions
    from capsnet_jax.models import MODELS, summary

    single = _single_values("--set", options.set)
    if "model.name" in single:
        raise ConfigError(f"--describe={options.describe} says the model; leave out --set model.name")
    image = dimensions(options.dataset) if options.dataset is not None else (None, None)
    names = [name.strip() for name in options.describe.split(",")]
    for name in names:
        check_word("--describe", name, MODELS)
    outlines = {name: summary.outline(overrides.build({"model.name": name} | single), *image) for name in names}
    print(summary.side_by_side(outlines) if len(names) > 1 else summary.describe(names[0], outlines[names[0]]))


def _settings(options: flags.FlagValues) -> None:
    """List the settings in force, each with what it means and takes."""
    from capsnet_jax import overrides

    asked = resolve_flags(_load(options.experiment or DEFAULT_EXPERIMENT), options)
    print(overrides.describe_settings(asked.configs[0], asked.observed))
    if len(asked.configs) > 1:
        print(f"\n{len(asked.configs)} settings are compared, in {', '.join(asked.swept)}; these are the first one's.")


def _command(name: str, config: Config, seed: int, asked: Asked) -> str:
    """Return what to type to train one run alone."""
    from capsnet_jax import overrides

    preset = overrides.resolve(PRESETS[config.preset] | {"preset": config.preset}).config
    defaults, settings = overrides.flatten(preset), overrides.flatten(config)
    words = ["python", "launch.py", f"--experiment={name}", f"--preset={config.preset}"]
    values = {p: v for p, v in settings.items() if p != "preset" and (v != defaults.get(p) or p in asked.swept)}
    values |= {f"eval.{n}": v for n, v in dataclasses.asdict(asked.observed).items() if v}
    for path, value in values.items():
        words += ["--set", f"{path}={overrides.format_value(value)}"]
    return shlex.join([*words, "--seeds=1", f"--first_seed={seed}", "--workdir=WORKDIR"])


def _baseline(options: flags.FlagValues, experiment: ModuleType) -> dict[str, Any]:
    """Return the setting that --baseline names, or else the experiment."""
    return _single_values("--baseline", options.baseline) or getattr(experiment, "BASELINE", {})


def _single_values(flag: str, texts: Sequence[str]) -> dict[str, Any]:
    """Return {path: the text of its value} of a flag that takes one value a path."""
    from capsnet_jax import overrides

    single = {}
    for text in texts:
        path, values = overrides.parse_setting(text)
        if len(values) > 1:
            remedy = f"compare them with --sweep {text}" if flag == "--set" else "name one"
            raise ConfigError(f"{flag} {text} gives {len(values)} values; {remedy}")
        single[path] = values[0]
    return single


def _experiment_name(options: flags.FlagValues) -> str:
    """Return the experiment to draw: the one asked for, or the only one in the workdir."""
    from capsnet_jax.sweeps.records import experiments_in

    if options.experiment is not None:
        return options.experiment
    workdir = _workdir(options)
    present = [name for name in experiments_in(workdir) if name in EXPERIMENTS]
    if len(present) > 1:
        raise ConfigError(f"{workdir} holds runs of {', '.join(present)}; say which with --experiment")
    return present[0] if present else DEFAULT_EXPERIMENT


def _load(name: str) -> ModuleType:
    check_word("--experiment", name, EXPERIMENTS)
    return importlib.import_module(EXPERIMENTS[name])


def _workdir(options: flags.FlagValues) -> Path:
    return Path(options.workdir or Path("runs") / (options.experiment or DEFAULT_EXPERIMENT))


def _what_there_is() -> str:
    from capsnet_jax.data import DATASETS
    from capsnet_jax.models import MODELS
    from capsnet_jax.routing import ROUTERS

    def first_line(thing: Any) -> str:
        return (getattr(thing, "func", thing).__doc__ or "").strip().split("\n")[0]

    parts = {
        "experiments": {name: _question(module) for name, module in EXPERIMENTS.items()},
        "models": {name: first_line(model.module) for name, model in MODELS.items()},
        "routers": {name: first_line(router.route or router.fixed) for name, router in ROUTERS.items()},
        "data sets": {name: known.description for name, known in DATASETS.items()},
    }
    lines = []
    for title, entries in parts.items():
        lines += [title, *(f"  {name:<20} {text}" for name, text in entries.items()), ""]
    return "\n".join([*lines, "Any other tfds image-classification set is named as tfds names it."])


def _question(module: str) -> str:
    """Return the first line of an experiment's docstring, without importing it."""
    file = Path(__file__).with_name(f"{module.rpartition('.')[2]}.py")
    return (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n")[0]


def _complain(reason: object, code: int = 2) -> int:
    print(reason, file=sys.stderr)
    return code
