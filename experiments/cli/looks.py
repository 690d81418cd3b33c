"""Look and stop: at what there is, at settings and models, and at what a trained network makes of images."""

import ast
import contextlib
import os
from pathlib import Path
from typing import Any

from absl import flags

from capsnet_jax.config import ConfigError, check_word
from experiments import EXPERIMENTS
from experiments.cli.asked import (
    DEFAULT_EXPERIMENT,
    INSPECT_FLAGS,
    module_of,
    resolve_flags,
    single_values,
    source_of,
    workdir_of,
)
from experiments.cli.study import start_jax


def list_names(_: flags.FlagValues) -> None:
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
    file = Path(__file__).parents[1] / f"{module.rpartition('.')[2]}.py"
    return (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n")[0]


def settings(options: flags.FlagValues) -> None:
    """List the settings in force, each with what it means and takes."""
    from capsnet_jax import overrides

    asked = resolve_flags(module_of(options.experiment or DEFAULT_EXPERIMENT), options, source_of(options))
    print(overrides.describe_settings(asked.configs[0], asked.observed))
    if len(asked.configs) > 1:
        print(f"\n{len(asked.configs)} settings are compared, in {', '.join(asked.swept)}; these are the first one's.")


def describe(options: flags.FlagValues) -> None:
    """Describe models, each as the flags have it."""
    from capsnet_jax import overrides
    from capsnet_jax.data import dimensions
    from capsnet_jax.models import MODELS, summary

    single = single_values("--set", options.set)
    if "model.name" in single:
        raise ConfigError(f"--describe={options.describe} says the model; leave out --set model.name")
    dataset = options.dataset if options.dataset is not None else single.get("data.dataset")
    image = dimensions(dataset) if dataset is not None else (None, None)
    names = [name.strip() for name in options.describe.split(",")]
    for name in names:
        check_word("--describe", name, MODELS)
    outlines = {name: summary.outline(overrides.build({"model.name": name} | single), *image) for name in names}
    print(summary.side_by_side(outlines) if len(names) > 1 else summary.describe(names[0], outlines[names[0]]))


def predict(options: flags.FlagValues) -> None:
    """Say what a picture shows, or each picture of a folder."""
    from capsnet_jax.report.predict import predict
    from capsnet_jax.report.predict_folder import predict_folder

    start_jax()
    net, folder = _network(options)
    if os.path.isdir(os.path.expanduser(options.predict)):
        answers = predict_folder(options.predict, net, folder.parent, invert=options.invert, as_is=options.as_is)
        print(answers.text, flush=True)
        print(answers.save())
        return
    prediction = predict(options.predict, net, folder, invert=options.invert, as_is=options.as_is)
    print(prediction.text, flush=True)  # also if the figure cannot be saved
    print(prediction.save())


def inspect(options: flags.FlagValues) -> None:
    """Draw what a method shows of a network, or list methods, layers and units."""
    from capsnet_jax import figures
    from capsnet_jax.report import inspection

    start_jax()
    if options.inspect == "list":
        print(inspection.describe(_network_or_none(options)))
        return
    inspection.check_method(options.inspect)
    net, folder = _network(options)
    asked = inspection.Asked(*(getattr(options, name) for name in INSPECT_FLAGS))
    figure, name = inspection.inspect(options.inspect, net, asked)
    print(figures.save(figure, folder / f"inspect-{name}.{options.figure_format}"))


def export(options: flags.FlagValues) -> None:
    """Write the workdir's best run as a folder that can be taken elsewhere."""
    from capsnet_jax.report.export import export

    start_jax()
    print(export(_network(options)[0], options.export))


def explore(options: flags.FlagValues) -> None:
    """Write the page that runs the workdir's best CapsNets in the browser."""
    from capsnet_jax.report.explorer import write_explorer

    start_jax()
    print(write_explorer(workdir_of(options), options.experiment))


def course(options: flags.FlagValues) -> None:
    """Write the course; the first time, it trains two small nets."""
    from capsnet_jax.sweeps.interrupt import stop_requested
    from experiments.course import build

    start_jax()
    with stop_requested() as stop:
        print(build.write(build.WORKDIR if options.workdir is None else workdir_of(options), stop))


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
        return restore(workdir_of(options), experiment=options.experiment), workdir_of(options) / "figures"
    net = load_released(os.path.expanduser(options.model))
    return net, (Path("runs") / net.name if options.workdir is None else workdir_of(options)) / "figures"
