"""What the flags ask for: an experiment, what it compares, its workdir; and the command of one run of it."""

import dataclasses
import importlib
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from absl import flags

from capsnet_jax.config import PRESETS, Config, ConfigError, Data, Eval, check_word
from experiments import EXPERIMENTS

DEFAULT_EXPERIMENT = "routing_iterations"

INSPECT_FLAGS = ("image", "index", "layer", "unit", "target")
MEASURE_FLAGS = ("experiment", "dataset", "preset", "set", "sweep", "workdir", "figure_format")
HOST_FLAGS = ("coordinator", "processes", "process")
SLURM_FLAGS = ("worker", "slurm", "detach")
RUN_FLAGS = (
    *(*MEASURE_FLAGS, "baseline", "seeds", "first_seed", "across", "devices", "rerun", "start_from"),
    *(*HOST_FLAGS, *SLURM_FLAGS),
)


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
    fixed = single_values("--set", [*dataset, *options.set])
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
    return Asked(configs, swept_here, resolved[0].observed, baseline_of(options, experiment))


def command_of(name: str, config: Config, seed: int, asked: Asked) -> str:
    """Return what to type to train one run alone. What the experiment says itself is said, too."""
    from capsnet_jax import overrides

    experiment = module_of(name)
    told = {*asked.swept, *experiment.CONFIG, *(path for arm in experiment.SWEEP for path in arm)}
    dataset = {"data.dataset": config.data.dataset}  # which has defaults of its own
    preset = overrides.resolve(PRESETS[config.preset] | {"preset": config.preset} | dataset).config
    defaults, settings = overrides.flatten(preset), overrides.flatten(config)
    if config.data.dataset != Data().dataset:
        del defaults["data.dataset"]
    words = ["python", "launch.py", f"--experiment={name}", f"--preset={config.preset}"]
    values = {p: v for p, v in settings.items() if p != "preset" and (v != defaults.get(p) or p in told)}
    observed = {f"eval.{n}": v for n, v in dataclasses.asdict(asked.observed).items()}
    values |= {p: v for p, v in observed.items() if v or p in told}
    for path, value in values.items():
        words += ["--set", f"{path}={overrides.format_value(value)}"]
    return shlex.join([*words, "--seeds=1", f"--first_seed={seed}", "--workdir=WORKDIR"])


def baseline_of(options: flags.FlagValues, experiment: ModuleType) -> dict[str, Any]:
    """Return the setting that --baseline names, or else the experiment."""
    return single_values("--baseline", options.baseline) or getattr(experiment, "BASELINE", {})


def single_values(flag: str, texts: Sequence[str]) -> dict[str, Any]:
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


def source_of(options: flags.FlagValues) -> Any:
    """Return the trained network that --start_from names; None where it is not given."""
    from capsnet_jax.sweeps import start_from

    if options.start_from is None:
        return None
    if os.path.realpath(os.path.expanduser(options.start_from)) == os.path.realpath(workdir_of(options)):
        raise ConfigError(
            "--start_from is the --workdir itself, whose best run changes; name one of its runs, DIR/runs/NAME"
        )
    return start_from.find(options.start_from)


def experiment_name(options: flags.FlagValues) -> str:
    """Return the experiment to draw: the one asked for, or the only one in the workdir."""
    if options.experiment is not None:
        return options.experiment
    workdir = workdir_of(options)
    present = experiments_of(workdir)
    if len(present) > 1:
        raise ConfigError(f"{workdir} holds runs of {', '.join(present)}; say which with --experiment")
    return present[0] if present else DEFAULT_EXPERIMENT


def experiments_of(workdir: Path) -> list[str]:
    """Return the experiments that a workdir has results of: those with runs, then those that measured."""
    from capsnet_jax.sweeps.records import experiments_in

    measured = [path.stem for path in sorted(workdir.glob("*.jsonl"))]
    return [name for name in dict.fromkeys([*experiments_in(workdir), *measured]) if name in EXPERIMENTS]


def module_of(name: str) -> ModuleType:
    """Return the module of an experiment, which is imported now."""
    check_word("--experiment", name, EXPERIMENTS)
    return importlib.import_module(EXPERIMENTS[name])


def workdir_of(options: flags.FlagValues) -> Path:
    """Return the workdir that the flags name, or else the experiment's own."""
    if options.workdir is None:
        return Path("runs") / (options.experiment or DEFAULT_EXPERIMENT)
    return Path(os.path.expanduser(options.workdir))
