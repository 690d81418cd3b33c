"""Carry out what the flags of launch.py ask for; a mistake becomes one line and an exit code."""

import ast
import contextlib
import dataclasses
import errno
import importlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from absl import flags

from capsnet_jax.config import PRESETS, Config, ConfigError, Data, Eval, check_runs, check_word
from experiments import EXPERIMENTS

DEFAULT_EXPERIMENT = "routing_iterations"

Attempt = Callable[[], contextlib.AbstractContextManager[None]]


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
    task, used = TASKS[tasks[0]] if tasks else (_run, RUN_FLAGS)
    what = f"--{tasks[0]}" if tasks else "training"
    if sys.flags.optimize > 1 and what in ("--list", "--report"):
        raise ConfigError(f"{what} prints docstrings, which PYTHONOPTIMIZE=2 takes away; unset it")
    if not tasks and hasattr(_load(options.experiment or DEFAULT_EXPERIMENT), "measure"):
        what, used = f"{options.experiment}, which trains nothing,", MEASURE_FLAGS
    if unused := [name for name in given if name not in (*tasks, *used)]:
        raise ConfigError(f"{what} does not use --{unused[0]}; leave it out")
    return task


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


def resolve_flags(experiment: ModuleType, options: flags.FlagValues, source: Any = None) -> Asked:
    """Resolve what an experiment compares under these flags.

    The preset comes first, then the experiment's CONFIG, then --dataset and --set. What --set or --sweep name is
    taken out of the experiment's SWEEP; a --sweep is then crossed with what remains of it. What a chosen model or
    router does not have makes no difference: arms that differ in nothing else become one. `source` is what all of them
    start from, by `--start_from`.

    Raises:
        ConfigError: a setting that cannot be used, or one of --set and --sweep that no arm has.
    """
    from capsnet_jax import overrides

    preset = PRESETS[options.preset] | {"preset": options.preset}
    base = preset | experiment.CONFIG
    if "train.epochs" in preset:  # a preset that says how long it trains is trained so long, also where a look is quick
        base |= {"train.epochs": preset["train.epochs"]}
    dataset = [] if options.dataset is None else [f"data.dataset={options.dataset}"]
    fixed = _single_values("--set", [*dataset, *options.set])
    varied = _parse("--sweep", options.sweep)
    if source is not None and "finetune.source" in (*fixed, *varied):
        raise ConfigError("--start_from says what runs start from; leave out finetune.source")
    fixed |= {} if source is None else {"finetune.source": source.setting}
    for path in [*fixed, *varied]:
        if path == "preset":
            raise ConfigError("preset is not a setting to change; use --preset")
        if path in varied and path.startswith("eval."):
            raise ConfigError(f"{path} changes no run, so it cannot be swept; use --set {path}=…")
        if path in varied and path in fixed:
            raise ConfigError(f"{path} is set and swept; leave out one of them")
    arms = overrides.sweep_over(experiment.SWEEP, {path: [value] for path, value in fixed.items()} | varied)
    resolved = [overrides.resolve(base | arm) for arm in arms]
    configs = list(dict.fromkeys(each.config for each in resolved))
    asked = [*fixed, *varied]
    overrides.refuse_unused([p for p in asked if all(p in each.unused for each in resolved)], configs)
    if source is not None and "finetune.reinitialize" not in asked:
        from capsnet_jax.sweeps import start_from

        configs = [start_from.adapt(config, source) for config in configs]
    flats = [overrides.flatten(config) for config in configs]
    swept = dict.fromkeys(path for arm in arms for path in arm if path not in fixed)
    swept_here = [path for path in swept if any(path in flat for flat in flats)]
    return Asked(configs, swept_here, resolved[0].observed, _baseline(options, experiment))


def _run(options: flags.FlagValues) -> None:
    """Train or measure what is not yet done, then draw; with the other processes of the job, if there are any."""
    from capsnet_jax.training.cluster import find_member

    alone = options.worker or options.slurm or hasattr(_load(options.experiment or DEFAULT_EXPERIMENT), "measure")
    member = None if alone else find_member(options.coordinator, options.processes, options.process)
    if member is None:
        return _work(options)
    from capsnet_jax.sweeps.output import hide_stdout
    from capsnet_jax.training.join import join

    hide_stdout(ours=member.process > 0)
    with join(member, _explain) as hosts:
        _work(options, hosts)


def _work(options: flags.FlagValues, hosts: Any = None) -> None:
    """Train or measure, then draw; of several processes, `hosts`, only the first gets as far as that."""
    from capsnet_jax.interpret.network import save_observation
    from capsnet_jax.interpret.observers import observer
    from capsnet_jax.sweeps import records, run, start_from
    from capsnet_jax.sweeps.interrupt import check, stop_requested
    from capsnet_jax.sweeps.lock import exclusive
    from capsnet_jax.sweeps.other_hosts import follow
    from capsnet_jax.sweeps.plan import Plan
    from capsnet_jax.training.hosts import ALONE

    hosts, request = hosts or ALONE, _slurm_request(options)
    name, workdir = options.experiment or DEFAULT_EXPERIMENT, _workdir(options)
    experiment = _load(name)
    source = _source(options)
    asked = resolve_flags(experiment, options, source)
    if hasattr(experiment, "measure"):
        _check_needs(experiment, asked.configs, None)
        with exclusive(workdir), stop_requested() as stop:
            experiment.measure(asked.configs, workdir, stop)
            _show(name, workdir, options, stop)
        return
    check_runs(options.first_seed, options.seeds, len(asked.configs))
    devices = _start_jax(None if request else options.devices, on_cpu=request is not None)
    if len(devices) > 1 and not request:
        processes = len({device.process_index for device in devices})
        print(f"on {len(devices)} devices{f' of {processes} processes' if processes > 1 else ''}", flush=True)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    runs = [records.Run(config, seed) for config in asked.configs for seed in seeds]

    def command(run: records.Run) -> str:
        return _command(name, run.config, run.seed, asked)

    with stop_requested() as own_stop:
        stop = hosts.heed(own_stop)
        datasets = run.load_and_check(runs)
        check(stop)
        _check_needs(experiment, asked.configs, datasets)
        for line in dict.fromkeys(start_from.describe(config, source) for config in asked.configs if source):
            print(line)
        if hosts.process == 0:
            records.note_experiment(workdir, name, runs, asked.swept)
        plan = Plan(
            workdir,
            options.across,
            command,
            stop,
            asked.observed,
            observer(asked.observed),
            rerun=options.rerun,
            devices=devices,
            wait=not options.worker,
            hosts=hosts,
        )
        if request:
            from capsnet_jax.sweeps import slurm

            if not slurm.train(runs, plan, datasets, request, _worker_command(options), detach=options.detach):
                return
        if hosts.process > 0:
            follow(runs, plan, datasets)
        diverged = None
        try:
            run.train_all(runs, plan, datasets)
        except run.Diverged as outcome:
            diverged = outcome
        if options.worker:
            if diverged:
                raise diverged
            return

        def observe(attempt: Attempt) -> None:
            for record in _finite(records.load(workdir, name)[0]) if hasattr(experiment, "observe") else []:
                check(stop)
                with attempt():
                    save_observation(record, name, experiment.observe)

        if name not in records.experiments_in(workdir):  # deleted meanwhile, and what came later made anew
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(workdir))
        _show(name, workdir, options, stop, observe)
        if diverged:
            raise diverged


def _slurm_request(options: flags.FlagValues) -> Any:
    """Return the job that --slurm asks for; None where it is not given."""
    if options.detach and options.slurm is None:
        raise ConfigError("--detach is for --slurm; leave it out, or say --slurm=PARTITION")
    if options.slurm is None:
        return None
    if options.worker:
        raise ConfigError("--slurm starts workers; leave out --worker")
    if options.rerun:
        raise ConfigError("--rerun would train anew in every task of --slurm; use another --workdir")
    from capsnet_jax.sweeps import submit

    return submit.parse(options.slurm)


def _worker_command(options: flags.FlagValues) -> list[str]:
    """Return the command of a process that helps with what the flags ask for."""
    names = [name for name in RUN_FLAGS if options[name].present and name not in ("slurm", "detach")]
    words = [word for name in names for word in options[name].serialize().split("\n")]
    return [sys.executable, str(Path(__file__).parents[1] / "launch.py"), *words, "--worker"]


def _start_jax(most: int | None = None, *, on_cpu: bool = False) -> tuple[Any, ...]:
    """Find the devices, at most so many, and the programs that earlier starts compiled.

    A process that leaves training to others works on the CPU: it takes no memory of a GPU.
    """
    import jax

    from capsnet_jax.training.environment import find_devices
    from capsnet_jax.training.program_cache import enable_compilation_cache

    if on_cpu:
        jax.config.update("jax_platforms", "cpu")
    devices = find_devices(most)
    enable_compilation_cache()
    return devices


def _source(options: flags.FlagValues) -> Any:
    """Return the trained network that --start_from names; None where it is not given."""
    from capsnet_jax.sweeps import start_from

    if options.start_from is None:
        return None
    if os.path.realpath(os.path.expanduser(options.start_from)) == os.path.realpath(_workdir(options)):
        raise ConfigError(
            "--start_from is the --workdir itself, whose best run changes; name one of its runs, DIR/runs/NAME"
        )
    return start_from.find(options.start_from)


def _check_needs(experiment: ModuleType, configs: Sequence[Config], datasets: Mapping[Data, Any] | None) -> None:
    """Raise a ConfigError where an experiment could not draw what some config would train."""
    if hasattr(experiment, "requires"):
        for config in configs:
            if lacking := experiment.requires(config, datasets and datasets[config.data]):
                raise ConfigError(lacking)


def _figures_only(options: flags.FlagValues) -> None:
    """Draw tables and figures again from the records."""
    from capsnet_jax.training.program_cache import enable_compilation_cache

    enable_compilation_cache()
    _show(_experiment_name(options), _workdir(options), options)


def _show(
    name: str,
    workdir: Path,
    options: flags.FlagValues,
    stop: Callable[[], int | None] = lambda: None,
    observe: Callable[[Attempt], None] = lambda attempt: None,
) -> None:
    """Print the tables of the workdir's records; then observe, and save the figures.

    The tables come first, so that what fails later does not cost them. What fails costs only itself: the rest is done,
    and then the first error is raised.
    """
    from capsnet_jax import figures
    from capsnet_jax.figures.grouping import studies
    from capsnet_jax.sweeps.files import write_text
    from capsnet_jax.sweeps.interrupt import check

    experiment = _load(name)
    if hasattr(experiment, "report"):
        text, measured = experiment.report(workdir)
        _print_table(text, name, workdir)
        write_text(workdir / f"{name}.csv", experiment.to_csv(measured))
        print(f"\n{workdir / f'{name}.csv'}")
        parts = {"": measured}
    else:
        parts = studies(_print_tables(name, experiment, workdir, _baseline(options, experiment)))
    errors: list[Exception] = []

    @contextlib.contextmanager
    def attempt() -> Iterator[None]:
        try:
            yield
        except Exception as error:
            errors.append(error)

    observe(attempt)
    with attempt():
        _print_observed(name, experiment, workdir)
    for study, members in parts.items():
        check(stop)
        drawn: dict[str, Any] = {}
        with attempt():
            drawn = experiment.figures(members) if members else {}
        for title, figure in drawn.items():
            check(stop)
            file = "-".join(word for word in (name, title, study) if word)
            with attempt():
                print(figures.save(figure, workdir / "figures" / f"{file}.{options.figure_format}"))
    with attempt():
        print(_write_html(_compose([workdir])))
    if errors:
        raise errors[0]


def _compose(workdirs: Sequence[Path]) -> dict[Path, list[Any]]:
    """Return the pages of each workdir, of all experiments that it has results of."""
    from capsnet_jax.report import pages
    from capsnet_jax.sweeps.records import experiments_in

    composed = {}
    for workdir in workdirs:
        present = {*experiments_in(workdir), *(path.stem for path in workdir.glob("*.jsonl"))}
        composed[workdir] = pages.compose(workdir, {name: _load(name) for name in EXPERIMENTS if name in present})
    return composed


def _write_html(composed: Mapping[Path, Sequence[Any]]) -> Path:
    """Write the report of workdirs."""
    from capsnet_jax.report import html

    return html.write_report(composed)


def _print_tables(name: str, experiment: ModuleType, workdir: Path, baseline: dict[str, Any]) -> list[Any]:
    """Print the tables of what was trained; return the runs to draw: one that diverged has a row, but no curve."""
    from capsnet_jax.report import tables
    from capsnet_jax.sweeps import records

    results, swept = records.load(workdir, name)
    results = tables.with_counts(results, experiment)
    _print_table(tables.as_text(results, swept, baseline) if results else "", name, workdir)
    path = workdir / f"{name}.csv"
    tables.write_csv(path, results, swept)
    print(f"\n{path}")
    return _finite(results)


def _print_observed(name: str, experiment: ModuleType, workdir: Path) -> None:
    """Print the tables of what was observed of an experiment's runs, if it makes any."""
    from capsnet_jax.report import pages
    from capsnet_jax.report.render import to_text
    from capsnet_jax.sweeps import records

    for table in pages.observed_tables(workdir, name, experiment, records.load(workdir, name)[0]):
        print(f"\n{to_text(table)}", flush=True)


def _print_table(text: str, name: str, workdir: Path) -> None:
    """Print what was found, at once: whatever fails later, it is told."""
    if not text:
        raise ConfigError(f"no finished run of {name} in {workdir}; run it first, or name its --workdir")
    print(f"\n{text}", flush=True)


def _finite(results: Sequence[Any]) -> list[Any]:
    return [record for record in results if not record.diverged]


def _report(options: flags.FlagValues) -> None:
    """Write the pages of every experiment of a workdir from its records, or one page of several workdirs."""
    from capsnet_jax.report import pages

    if options.report is not True:
        if options.workdir is not None:
            raise ConfigError(f"--report={options.report} names its workdirs; leave out --workdir")
        folders = options.report.split(",")
        if "" in folders:
            raise ConfigError(f"--report={options.report} names an empty workdir; leave out a comma")
        print(_write_html(_compose([Path(os.path.expanduser(folder)) for folder in folders])))
        return
    if options.workdir is None:
        raise ConfigError("--report needs the --workdir whose records it tells of; or name several: --report=DIR,DIR")
    composed = _compose([_workdir(options)])
    for workdir, its_pages in composed.items():
        print(*pages.write(workdir, its_pages), sep="\n")
    print(_write_html(composed))


def _merge(options: flags.FlagValues) -> None:
    """Take the finished runs of other workdirs into this one."""
    from capsnet_jax.sweeps.merge import merge

    if options.workdir is None:
        raise ConfigError("--merge needs the --workdir that is to hold the runs of the others")
    folders = [Path(os.path.expanduser(folder)) for folder in options.merge.split(",")]
    merge(folders, _workdir(options))


def _course(options: flags.FlagValues) -> None:
    """Write the course; the first time, it trains two small nets."""
    from capsnet_jax.sweeps.interrupt import stop_requested
    from experiments.course import build

    _start_jax()
    with stop_requested() as stop:
        print(build.write(build.WORKDIR if options.workdir is None else _workdir(options), stop))


def _predict(options: flags.FlagValues) -> None:
    """Say what a picture shows, or each picture of a folder."""
    from capsnet_jax.report.predict import predict
    from capsnet_jax.report.predict_folder import predict_folder

    _start_jax()
    net, folder = _network(options)
    if os.path.isdir(os.path.expanduser(options.predict)):
        answers = predict_folder(options.predict, net, folder.parent, invert=options.invert, as_is=options.as_is)
        print(answers.text, flush=True)
        print(answers.save())
        return
    prediction = predict(options.predict, net, folder, invert=options.invert, as_is=options.as_is)
    print(prediction.text, flush=True)  # also if the figure cannot be saved
    print(prediction.save())


def _export(options: flags.FlagValues) -> None:
    """Write the workdir's best run as a folder that can be taken elsewhere."""
    from capsnet_jax.report.export import export

    _start_jax()
    print(export(_network(options)[0], options.export))


def _explore(options: flags.FlagValues) -> None:
    """Write the page that runs the workdir's best CapsNets in the browser."""
    from capsnet_jax.report.explorer import write_explorer

    _start_jax()
    print(write_explorer(_workdir(options)))


def _inspect(options: flags.FlagValues) -> None:
    """Draw what a method shows of a network, or list methods, layers and units."""
    from capsnet_jax import figures
    from capsnet_jax.report import inspection

    _start_jax()
    if options.inspect == "list":
        print(inspection.describe(_network_or_none(options)))
        return
    inspection.check_method(options.inspect)
    net, folder = _network(options)
    asked = inspection.Asked(*(getattr(options, name) for name in INSPECT_FLAGS))
    figure, name = inspection.inspect(options.inspect, net, asked)
    print(figures.save(figure, folder / f"inspect-{name}.{options.figure_format}"))


def _network_or_none(options: flags.FlagValues) -> Any:
    """Return the network that is named; None where nothing is, and the default workdir holds no finished run."""
    named = (options.model, options.workdir, options.experiment)
    with contextlib.nullcontext() if any(named) else contextlib.suppress(ConfigError):
        return _network(options)[0]
    return None


def _network(options: flags.FlagValues) -> tuple[Any, Path]:
    """Return the network that --model or --workdir names, and the folder of its pictures."""
    from capsnet_jax.interpret.network import load_released, restore

    if options.model is None:
        return restore(_workdir(options)), _workdir(options) / "figures"
    net = load_released(os.path.expanduser(options.model))
    return net, (Path("runs") / net.name if options.workdir is None else _workdir(options)) / "figures"


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

    asked = resolve_flags(_load(options.experiment or DEFAULT_EXPERIMENT), options, _source(options))
    print(overrides.describe_settings(asked.configs[0], asked.observed))
    if len(asked.configs) > 1:
        print(f"\n{len(asked.configs)} settings are compared, in {', '.join(asked.swept)}; these are the first one's.")


def _command(name: str, config: Config, seed: int, asked: Asked) -> str:
    """Return what to type to train one run alone."""
    from capsnet_jax import overrides

    dataset = {"data.dataset": config.data.dataset}  # which has defaults of its own
    preset = overrides.resolve(PRESETS[config.preset] | {"preset": config.preset} | dataset).config
    defaults, settings = overrides.flatten(preset), overrides.flatten(config)
    if config.data.dataset != Data().dataset:
        del defaults["data.dataset"]
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
    parsed = _parse(flag, texts)
    for path, values in parsed.items():
        if len(values) > 1:
            text = f"{path}={','.join(values)}"
            remedy = f"compare them with --sweep {text}" if flag == "--set" else "name one"
            raise ConfigError(f"{flag} {text} gives {len(values)} values; {remedy}")
    return {path: values[0] for path, values in parsed.items()}


def _parse(flag: str, texts: Sequence[str]) -> dict[str, list[str]]:
    """Return {path: the texts of its values} of a flag that repeats, each path once."""
    from capsnet_jax import overrides

    parsed: dict[str, list[str]] = {}
    for text in texts:
        path, values = overrides.parse_setting(text)
        if path in parsed:
            remedy = f"give all values at once: {path}=…,…" if flag == "--sweep" else "leave out one"
            raise ConfigError(f"{path} is given twice; {remedy}")
        parsed[path] = values
    return parsed


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
    if options.workdir is None:
        return Path("runs") / (options.experiment or DEFAULT_EXPERIMENT)
    return Path(os.path.expanduser(options.workdir))


def _list(_: flags.FlagValues) -> None:
    """Print what there is."""
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
    print("\n".join([*lines, "Any other tfds image-classification set is named as tfds names it."]))


def _question(module: str) -> str:
    """Return the first line of an experiment's docstring, without importing it."""
    file = Path(__file__).with_name(f"{module.rpartition('.')[2]}.py")
    return (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n")[0]


INSPECT_FLAGS = ("image", "index", "layer", "unit", "target")

# Each task that is not training: its function, and the flags that it uses.
TASKS: dict[str, tuple[Callable[[flags.FlagValues], None], tuple[str, ...]]] = {
    "list": (_list, ()),
    "settings": (_settings, ("experiment", "dataset", "preset", "set", "sweep", "baseline", "start_from")),
    "describe": (_describe, ("dataset", "set")),
    "predict": (_predict, ("experiment", "workdir", "model", "invert", "as_is")),
    "inspect": (_inspect, ("experiment", "workdir", "model", *INSPECT_FLAGS, "figure_format")),
    "export": (_export, ("experiment", "workdir")),
    "explore": (_explore, ("experiment", "workdir")),
    "report": (_report, ("workdir",)),
    "merge": (_merge, ("workdir",)),
    "course": (_course, ("workdir",)),
    "figures_only": (_figures_only, ("experiment", "workdir", "baseline", "figure_format")),
}
MEASURE_FLAGS = ("experiment", "dataset", "preset", "set", "sweep", "workdir", "figure_format")
HOST_FLAGS = ("coordinator", "processes", "process")
SLURM_FLAGS = ("worker", "slurm", "detach")
RUN_FLAGS = (
    *(*MEASURE_FLAGS, "baseline", "seeds", "first_seed", "across", "devices", "rerun", "start_from"),
    *(*HOST_FLAGS, *SLURM_FLAGS),
)
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
