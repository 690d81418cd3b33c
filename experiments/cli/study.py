"""Train or measure what the flags ask for, and show what came out: tables, figures, reports."""

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags

from capsnet_jax.config import Config, ConfigError, Data, check_runs
from experiments import EXPERIMENTS
from experiments.cli.asked import (
    DEFAULT_EXPERIMENT,
    HOST_FLAGS,
    RUN_FLAGS,
    baseline_of,
    command_of,
    experiment_name,
    experiments_of,
    module_of,
    resolve_flags,
    source_of,
    workdir_of,
)

Explain = Callable[[Exception], tuple[int | None, str]]
Attempt = Callable[[], contextlib.AbstractContextManager[None]]


def measure(options: flags.FlagValues) -> None:
    """Measure what is not yet measured, then draw."""
    from capsnet_jax.sweeps.interrupt import stop_requested
    from capsnet_jax.sweeps.lock import exclusive

    name, workdir = options.experiment or DEFAULT_EXPERIMENT, workdir_of(options)
    experiment = module_of(name)
    asked = resolve_flags(experiment, options)
    _check_needs(experiment, asked.configs, None)
    with exclusive(workdir), stop_requested() as stop:
        experiment.measure(asked.configs, workdir, stop)
        _show(name, workdir, options, stop)


def train(options: flags.FlagValues, explain: Explain) -> None:
    """Train what is not yet trained, then draw; with the other processes of the job, if there are any."""
    from capsnet_jax.training.cluster import find_member

    alone = next((name for name in ("worker", "slurm") if options[name].value), None)
    if alone and (unused := [name for name in HOST_FLAGS if options[name].present and options.processes != 1]):
        raise ConfigError(f"--{alone} trains in processes of their own; leave out --{unused[0]}")
    member = None if alone else find_member(options.coordinator, options.processes, options.process)
    if member is None:
        return _train(options)
    from capsnet_jax.sweeps.output import hide_stdout
    from capsnet_jax.training.join import join

    hide_stdout(ours=member.process > 0)
    with join(member, explain) as hosts:
        _train(options, hosts)


def _train(options: flags.FlagValues, hosts: Any = None) -> None:
    """Train, then draw; of several processes, `hosts`, only the first gets as far as that."""
    from capsnet_jax.interpret.network import save_observation
    from capsnet_jax.interpret.observers import observer
    from capsnet_jax.sweeps import records, run, start_from
    from capsnet_jax.sweeps.interrupt import SAVING, check, stop_requested
    from capsnet_jax.sweeps.other_hosts import follow
    from capsnet_jax.sweeps.plan import Plan
    from capsnet_jax.training.hosts import ALONE

    hosts, request = hosts or ALONE, _slurm_request(options)
    name, workdir = options.experiment or DEFAULT_EXPERIMENT, workdir_of(options)
    experiment = module_of(name)
    source = source_of(options)
    asked = resolve_flags(experiment, options, source)
    check_runs(options.first_seed, options.seeds, len(asked.configs))
    devices = start_jax(None if request else options.devices, on_cpu=request is not None)
    if len(devices) > 1 and not request:
        processes = len({device.process_index for device in devices})
        print(f"on {len(devices)} devices{f' of {processes} processes' if processes > 1 else ''}", flush=True)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    runs = [records.Run(config, seed) for config in asked.configs for seed in seeds]

    def command(run: records.Run) -> str:
        return command_of(name, run.config, run.seed, asked)

    with stop_requested("stopping; again to leave at once" if request else SAVING) as own_stop:
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

            command_line = _worker_command(options, source)
            if not slurm.train(runs, plan, datasets, request, command_line, detach=options.detach):
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


def _worker_command(options: flags.FlagValues, source: Any) -> list[str]:
    """Return the command of a process that helps with what the flags ask for.

    Runs start from the `source` that is meant now, though its workdir may have a better run when a task begins.
    """
    names = [name for name in RUN_FLAGS if options[name].present and name not in ("slurm", "detach", "start_from")]
    words = [word for name in names for word in options[name].serialize().split("\n")]
    words += [f"--start_from={source.folder}"] if source else []
    return [sys.executable, str(Path(__file__).parents[2] / "launch.py"), *words, "--worker"]


def start_jax(most: int | None = None, *, on_cpu: bool = False) -> tuple[Any, ...]:
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


def _check_needs(experiment: ModuleType, configs: Sequence[Config], datasets: Mapping[Data, Any] | None) -> None:
    """Raise a ConfigError where an experiment could not draw what some config would train."""
    if hasattr(experiment, "requires"):
        for config in configs:
            if lacking := experiment.requires(config, datasets and datasets[config.data]):
                raise ConfigError(lacking)


def figures_only(options: flags.FlagValues) -> None:
    """Draw tables and figures again from the records."""
    from capsnet_jax.training.program_cache import enable_compilation_cache

    enable_compilation_cache()
    _show(experiment_name(options), workdir_of(options), options)


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

    experiment = module_of(name)
    if hasattr(experiment, "report"):
        text, measured = experiment.report(workdir)
        _print_table(text, name, workdir)
        write_text(workdir / f"{name}.csv", experiment.to_csv(measured))
        print(f"\n{workdir / f'{name}.csv'}")
        parts = {"": measured}
    else:
        parts = studies(_print_tables(name, experiment, workdir, baseline_of(options, experiment)))
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
            for suffix in dict.fromkeys(["png", options.figure_format]):  # reports show the PNGs
                with attempt():
                    print(figures.save(figure, workdir / "figures" / f"{file}.{suffix}"))
    with attempt():
        print(_write_html(_compose([workdir])))
    if errors:
        raise errors[0]


def _compose(workdirs: Sequence[Path]) -> dict[Path, list[Any]]:
    """Return the pages of each workdir, of all experiments that it has results of."""
    from capsnet_jax.report import pages

    composed = {}
    for workdir in workdirs:
        present = experiments_of(workdir)
        composed[workdir] = pages.compose(workdir, {name: module_of(name) for name in EXPERIMENTS if name in present})
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
    from capsnet_jax.report import pages, tables
    from capsnet_jax.report.render import to_text
    from capsnet_jax.sweeps import records

    results = tables.with_counts(records.load(workdir, name)[0], experiment)
    for table in pages.observed_tables(workdir, name, experiment, results):
        print(f"\n{to_text(table)}", flush=True)


def _print_table(text: str, name: str, workdir: Path) -> None:
    """Print what was found, at once: whatever fails later, it is told."""
    if not text:
        raise ConfigError(f"no finished run of {name} in {workdir}; run it first, or name its --workdir")
    print(f"\n{text}", flush=True)


def _finite(results: Sequence[Any]) -> list[Any]:
    return [record for record in results if not record.diverged]


def report(options: flags.FlagValues) -> None:
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
    composed = _compose([workdir_of(options)])
    for workdir, its_pages in composed.items():
        print(*pages.write(workdir, its_pages), sep="\n")
    print(_write_html(composed))


def merge(options: flags.FlagValues) -> None:
    """Take the finished runs of other workdirs into this one."""
    from capsnet_jax.sweeps.merge import merge

    if options.workdir is None:
        raise ConfigError("--merge needs the --workdir that is to hold the runs of the others")
    folders = [Path(os.path.expanduser(folder)) for folder in options.merge.split(",") if folder]
    merge(folders, workdir_of(options))
