import ast
import importlib
import inspect
import itertools
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from capsnet_jax import overrides
from capsnet_jax.config import ConfigError, Eval
from experiments import EXPERIMENTS, cli, conv_baselines, routing_iterations, routing_vs_backprop
from experiments.cli.asked import command_of, resolve_flags
from tests import tiny

FIGURES = Path(cli.__file__).parents[1] / "results" / "figures"
MODULES = {name: importlib.import_module(path) for name, path in EXPERIMENTS.items()}


def options(preset="small", dataset=None, set=(), sweep=(), baseline=()):
    return SimpleNamespace(preset=preset, dataset=dataset, set=list(set), sweep=list(sweep), baseline=list(baseline))


def asked(experiment, **given):
    return resolve_flags(experiment, options(**given))


def compared(experiment, **given):
    """The swept paths and each config's values of them."""
    configs, swept, *_ = asked(experiment, **given)
    return swept, [tuple(overrides.flatten(config).get(path) for path in swept) for config in configs]


def test_the_experiments_own_sweep():
    assert compared(routing_iterations) == (["routing.iterations"], [(1,), (3,), (5,)])


def test_the_preset_comes_before_set():
    small = asked(routing_iterations)
    paper = asked(routing_iterations, preset="paper")
    changed = asked(routing_iterations, preset="paper", set=["train.epochs=7"])
    assert small.configs[0] == overrides.from_preset("small", {"routing.iterations": 1, "train.epochs": 5})
    assert small.observed == Eval(max_routing_iterations=7)
    assert (paper.configs[0].preset, paper.configs[0].model.name) == ("paper", "capsnet")
    assert changed.configs[0] == overrides.override(paper.configs[0], {"train.epochs": 7})


def test_the_experiments_config_comes_between():
    experiment = SimpleNamespace(CONFIG={"train.epochs": 4, "train.batch_size": 8}, SWEEP=[{}])
    [own] = asked(experiment, preset="paper").configs
    [changed] = asked(experiment, preset="paper", set=["train.epochs=7"]).configs
    [small] = asked(experiment, preset="small").configs
    assert (small.train.epochs, small.train.batch_size, small.model.name) == (4, 8, "capsnet_small")
    # A preset that says how long it trains is trained so long.
    assert (own.train.epochs, own.train.batch_size, own.model.name) == (15, 8, "capsnet")
    assert (changed.train.epochs, changed.train.batch_size) == (7, 8)


def test_dataset_and_set_say_the_same():
    by_flag = asked(routing_iterations, dataset="kmnist").configs[0]
    assert by_flag == asked(routing_iterations, set=["data.dataset=kmnist"]).configs[0]
    assert by_flag.data.dataset == "kmnist"


def test_a_data_set_has_defaults_of_its_own():
    """They come before what the flags say, and what makes a run alone asks for that run."""
    own, changed = (
        asked(routing_iterations, dataset="affnist", set=given) for given in ([], ["max_shift=2", "max_rotation=5"])
    )
    assert [each.configs[0].data.max_shift for each in (asked(routing_iterations), own, changed)] == [2, 6, 2]
    assert asked(routing_iterations, dataset="multi_mnist").configs[0].data.max_shift == 4
    for each in (own, changed):
        words = shlex.split(command_of("routing_iterations", each.configs[0], 3, each))
        given = [value for flag, value in itertools.pairwise(words) if flag == "--set"]
        assert asked(routing_iterations, set=given).configs == [each.configs[0]]


def test_a_setting_by_its_short_name():
    assert asked(routing_iterations, set=["epochs=7", "lr=0.1"]) == asked(
        routing_iterations, set=["train.epochs=7", "train.learning_rate=0.1"]
    )


def test_set_on_a_swept_path_fixes_it():
    [config], swept, *_ = asked(routing_iterations, set=["routing.iterations=5"])
    assert (config.routing.settings.iterations, swept) == (5, [])


def test_sweep_on_a_swept_path_replaces_it():
    assert compared(routing_iterations, sweep=["routing.iterations=2,7"]) == (["routing.iterations"], [(2,), (7,)])


def test_sweep_on_another_path_is_crossed_where_it_makes_a_difference():
    """One iteration has no gradient to stop."""
    swept, values = compared(routing_iterations, sweep=["routing.gradient=full,stop"])
    assert swept == ["routing.iterations", "routing.gradient"]
    assert values == [(1, None), *((r, gradient) for r in (3, 5) for gradient in ("full", "stop"))]


def test_two_sweeps_are_every_combination():
    swept, values = compared(
        routing_iterations, sweep=["routing.iterations=1,2", "train.learning_rate=0.1,0.2"], set=["train.epochs=2"]
    )
    assert swept == ["routing.iterations", "train.learning_rate"]
    assert values == [(1, 0.1), (1, 0.2), (2, 0.1), (2, 0.2)]


def test_arms_that_a_set_makes_equal_become_one():
    swept, values = compared(
        routing_vs_backprop, set=["routing.name=dynamic", "routing.iterations=3", "train.frozen=none"]
    )
    assert (swept, values) == (["routing.gradient"], [("full",), ("stop",)])


def test_routers_are_compared_at_equal_other_settings():
    _, values = compared(routing_iterations, sweep=["routing.name=dynamic,uniform"])
    assert values == [(1, "dynamic"), (None, "uniform"), (3, "dynamic"), (5, "dynamic")]


@pytest.mark.parametrize("values", ["routing.iterations=1,1", "train.learning_rate=0.001,1e-3"])
def test_a_value_given_twice_is_run_once(values):
    """Two runs of one name would write into one folder."""
    configs = asked(routing_iterations, sweep=[values]).configs
    assert len(configs) == len(set(configs))


@pytest.mark.parametrize("flag", ["set", "sweep"])
def test_the_preset_has_a_flag_of_its_own(flag):
    with pytest.raises(ConfigError, match="use --preset"):
        asked(routing_iterations, **{flag: ["preset=paper"]})


def test_a_setting_that_no_arm_has_is_refused():
    with pytest.raises(ConfigError, match=r"^resnet18 has no routing\.iterations; it does not route$"):
        asked(routing_iterations, set=["model.name=resnet18", "routing.iterations=2"])


def test_what_is_observed_is_set_and_not_swept():
    assert asked(routing_iterations, set=["eval.max_routing_iterations=2"]).observed == Eval(max_routing_iterations=2)
    with pytest.raises(ConfigError, match=r"eval\.max_routing_iterations changes no run"):
        asked(routing_iterations, sweep=["eval.max_routing_iterations=2,3"])


def test_the_baseline_is_the_flags_or_the_experiments():
    assert asked(routing_iterations).baseline == {}
    assert asked(conv_baselines).baseline == {"model.name": "capsnet_small", "routing.iterations": 3}
    assert asked(conv_baselines, baseline=["model.name=cnn_small"]).baseline == {"model.name": "cnn_small"}


# How many settings each experiment compares, and how many with another net, which has no routing.
COUNTS = {
    "routing_iterations": (3, 1),
    "routing_vs_backprop": (7, 3),  # what is frozen still differs
    "routing_diagnostics": (3, 1),
    "loss_scale": (8, 1),
    "capsule_dimensions": (1, 1),
    "conv_baselines": (7, 2),  # two learning rates
    "invariance": (3, 1),
    "transfer_cases": (36, 36),
    "ilsvrc_evolution": (1, 1),
    "sweep_demo": (23, 3),  # three learning rates
}


@pytest.mark.parametrize("name", COUNTS)
def test_how_many_settings_are_compared(name):
    assert len(asked(MODULES[name]).configs) == COUNTS[name][0]
    assert len(asked(MODULES[name], set=["model.name=resnet18"]).configs) == COUNTS[name][1]


@pytest.mark.parametrize("experiment", sorted(EXPERIMENTS))
@pytest.mark.parametrize("preset", ["small", "paper"])
def test_the_command_of_a_run_asks_for_that_run(experiment, preset):
    """What its record tells to type gives the same config, for every setting of every experiment."""
    given = options(preset, "kmnist", ["train.weight_decay=0.125"], ["train.min_learning_rate=1e-7,0.1"])
    check_commands(experiment, preset, resolve_flags(MODULES[experiment], given))


@pytest.mark.parametrize("experiment", sorted(EXPERIMENTS))
def test_a_value_that_is_the_presets_but_not_the_experiments_is_in_the_command(experiment):
    observed = {f"eval.{name}": value for name, value in vars(Eval()).items()}
    defaults = overrides.flatten(overrides.from_preset("small")) | observed
    named = {path for part in (MODULES[experiment].CONFIG, *MODULES[experiment].SWEEP) for path in part}
    back = [f"{path}={overrides.format_value(defaults[path])}" for path in sorted(named & defaults.keys())]
    check_commands(experiment, "small", asked(MODULES[experiment], set=back))


def check_commands(experiment, preset, found):
    for config in found.configs:
        words = shlex.split(command_of(experiment, config, 7, found))
        assert words[:4] == ["python", "launch.py", f"--experiment={experiment}", f"--preset={preset}"]
        assert words[-3:] == ["--seeds=1", "--first_seed=7", "--workdir=WORKDIR"]
        changes = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        alone = asked(MODULES[experiment], preset=preset, set=changes)
        assert (alone.configs, alone.observed) == ([config], found.observed)


@pytest.mark.parametrize("experiment", sorted(EXPERIMENTS))
def test_every_experiment_has_the_three_names(experiment):
    module = MODULES[experiment]
    resolved = [overrides.resolve(module.CONFIG | arm) for arm in module.SWEEP]
    assert [each.unused for each in resolved] == [[]] * len(resolved)  # an arm names only what makes a difference
    assert len({each.config for each in resolved}) == len(resolved) >= 1
    # One setting is no comparison, but can be measured or looked into.
    assert len(resolved) > 1 or hasattr(module, "measure") or hasattr(module, "observe")
    assert f"--experiment={experiment}" in module.__doc__
    assert callable(module.figures)


@pytest.mark.parametrize("experiment", sorted(EXPERIMENTS))
def test_the_commands_of_the_docstring_can_be_run(experiment, monkeypatch, capsys):
    """Every command is resolved as far as its configs; nothing is trained."""
    text = MODULES[experiment].__doc__.replace("\\\n", "")
    commands = [line.split() for line in text.splitlines() if line.strip().startswith("python launch.py")]
    assert commands
    found = []
    tiny.replace_work(monkeypatch, lambda flags: found.append(resolve_flags(MODULES[experiment], flags)))
    for _, _, *flags in commands:
        assert tiny.call(capsys, *flags)[0] == 0
    assert all(each.configs for each in found)
    assert len(found) == len(commands)


@pytest.mark.parametrize("experiment", sorted(EXPERIMENTS))
def test_imports_stand_at_the_top(experiment):
    tree = ast.parse(inspect.getsource(MODULES[experiment]))
    inside = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert all(node in tree.body for node in inside)


@pytest.mark.parametrize(
    "experiment",
    [
        name
        for name, module in MODULES.items()
        if hasattr(module, "CAPTIONS")
        and (FIGURES.parent / f"{name}.md").exists()  # what has no results has no figures
    ],
)
def test_every_caption_is_of_a_figure(experiment):
    titles = [path.stem.removeprefix(f"{experiment}-") for path in FIGURES.glob(f"{experiment}-*.png")]
    assert [key for key in MODULES[experiment].CAPTIONS if not any(f"{t}-".startswith(f"{key}-") for t in titles)] == []
