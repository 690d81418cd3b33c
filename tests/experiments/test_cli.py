import dataclasses
import shlex
from types import SimpleNamespace

import pytest

from capsnet_jax import config
from capsnet_jax.config import Config, ConfigError
from experiments import EXPERIMENTS, command, routing_iterations, routing_vs_backprop


def options(preset="small", dataset=None, set=(), sweep=()):
    return SimpleNamespace(preset=preset, dataset=dataset, set=list(set), sweep=list(sweep))


def compared(experiment, **given):
    """The swept paths and each setting's values of them."""
    settings, swept = command.settings_of(experiment, options(**given))
    return swept, [tuple(config.flatten(setting)[path] for path in swept) for setting in settings]


def test_the_experiments_own_sweep():
    assert compared(routing_iterations) == (["routing.iterations"], [(1,), (2,), (3,), (5,), (7,)])


def test_the_preset_comes_before_set():
    [small, *_], _ = command.settings_of(routing_iterations, options())
    [paper, *_], _ = command.settings_of(routing_iterations, options(preset="paper"))
    [changed, *_], _ = command.settings_of(routing_iterations, options(preset="paper", set=["train.epochs=7"]))
    own = {"preset": "small", "routing.iterations": 1, "routing.probe": 7}
    assert small == config.override(Config(), config.PRESETS["small"] | own)
    assert (paper.preset, paper.model.name, paper.train.epochs) == ("paper", "capsnet", 15)
    assert changed == config.override(paper, {"train.epochs": 7})


def test_the_experiments_config_comes_between():
    experiment = SimpleNamespace(CONFIG={"train.epochs": 4, "train.batch_size": 8}, SWEEP=[{}])
    [own], _ = command.settings_of(experiment, options(preset="paper"))
    [changed], _ = command.settings_of(experiment, options(preset="paper", set=["train.epochs=7"]))
    assert (own.train.epochs, own.train.batch_size, own.model.name) == (4, 8, "capsnet")
    assert (changed.train.epochs, changed.train.batch_size) == (7, 8)


def test_dataset_and_set_say_the_same():
    [by_flag, *_], _ = command.settings_of(routing_iterations, options(dataset="kmnist"))
    [by_set, *_], _ = command.settings_of(routing_iterations, options(set=["data.dataset=kmnist"]))
    assert by_flag == by_set
    assert by_flag.data.dataset == "kmnist"


def test_set_on_a_swept_path_fixes_it():
    [setting], swept = command.settings_of(routing_iterations, options(set=["routing.iterations=5"]))
    assert (setting.routing.iterations, swept) == (5, [])


def test_sweep_on_a_swept_path_replaces_it():
    assert compared(routing_iterations, sweep=["routing.iterations=2,7"]) == (["routing.iterations"], [(2,), (7,)])


def test_sweep_on_another_path_is_crossed():
    swept, values = compared(routing_iterations, sweep=["routing.gradient=full,stop"])
    assert swept == ["routing.iterations", "routing.gradient"]
    assert values == [(r, gradient) for r in (1, 2, 3, 5, 7) for gradient in ("full", "stop")]


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
    _, values = compared(routing_vs_backprop, sweep=["routing.name=dynamic,uniform"], set=["train.frozen=none"])
    iterations_and_gradients = [(3, "full"), (3, "stop"), (1, "full")]
    assert values == [(r, g, name) for r, g in iterations_and_gradients for name in ("dynamic", "uniform")]


@pytest.mark.parametrize("values", ["routing.iterations=1,1", "train.learning_rate=0.001,1e-3"])
def test_a_value_given_twice_is_run_once(values):
    """Two cells of one name would write into one folder."""
    settings, _ = command.settings_of(routing_iterations, options(sweep=[values]))
    assert len(settings) == len(set(settings))


@pytest.mark.parametrize("flag", ["set", "sweep"])
def test_the_preset_has_a_flag_of_its_own(flag):
    with pytest.raises(ConfigError, match="use --preset"):
        command.settings_of(routing_iterations, options(**{flag: ["preset=paper"]}))


@pytest.mark.parametrize("experiment", sorted(EXPERIMENTS))
@pytest.mark.parametrize("preset", ["small", "paper"])
def test_the_command_of_a_cell_asks_for_that_cell(experiment, preset):
    """What record.json tells to type gives the same config, for every setting of every experiment."""
    given = options(preset, "kmnist", ["model.decoder=8x9", "loss.reconstruction=true"], ["train.floor=1e-7,0.1"])
    settings, swept = command.settings_of(EXPERIMENTS[experiment], given)
    for setting in settings:
        words = shlex.split(command._command(experiment, setting, 7, swept))
        assert words[:4] == ["python", "launch.py", f"--experiment={experiment}", f"--preset={preset}"]
        assert words[-3:] == ["--seeds=1", "--first_seed=7", "--workdir=WORKDIR"]
        changes = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        [alone], _ = command.settings_of(EXPERIMENTS[experiment], options(preset, set=changes))
        assert alone == setting


@pytest.mark.parametrize("experiment", sorted(EXPERIMENTS))
def test_every_experiment_has_the_three_names(experiment):
    module = EXPERIMENTS[experiment]
    start = config.override(Config(), module.CONFIG)
    settings = [config.override(start, arm) for arm in module.SWEEP]
    assert len(set(settings)) == len(settings) >= 1
    # One setting is no comparison, but can be measured or looked into.
    assert len(settings) > 1 or hasattr(module, "measure") or hasattr(module, "observe")
    assert len({frozenset(arm) for arm in module.SWEEP}) == 1  # the arms differ in values, not in what they set
    assert all(dataclasses.is_dataclass(setting) for setting in settings)
    assert f"--experiment={experiment}" in module.__doc__
    assert callable(module.figures)
