"""The experiments that compare routers, squashes and iterations on one bench."""

import dataclasses

import pytest

from capsnet_jax import overrides
from capsnet_jax.config import PRESETS
from capsnet_jax.routing import ROUTERS
from experiments import em_iterations, multi_mnist, quarter_percent, released_recipe, routers, squashings
from tests.figures.synthetic import fake_record

FIGURES = {
    routers: ["test_error", "differences", "entropy", "variation", "learning_curves"],
    squashings: ["test_error", "differences", "entropy", "learning_curves"],
    em_iterations: ["error_against_iterations", "differences", "learning_curves"],
    multi_mnist: ["test_error", "differences", "learning_curves"],
    released_recipe: ["test_error", "differences", "learning_curves"],
    quarter_percent: ["test_error", "differences", "learning_curves"],
}


def records(module, arms=None):
    made = []
    for number, arm in enumerate(module.SWEEP if arms is None else arms):
        for seed in range(2):
            settings = {path.replace(".", "__"): value for path, value in arm.items()}
            record = fake_record(seed, 3, 0.5 + 0.1 * number, **settings)
            if not arm.get("model.name", "capsnet").startswith("cnn"):
                record.result |= {"test_coupling_entropy": 0.9, "test_coupling_variation": 0.1 * seed}
            else:
                del record.settings["routing.name"]
            made.append(record)
    return made


@pytest.mark.parametrize("module", FIGURES, ids=lambda module: module.__name__)
def test_every_arm_has_a_row(module):
    drawn = module.figures(records(module))
    assert list(drawn) == FIGURES[module]
    first = next(iter(drawn.values()))
    if module is em_iterations:  # its first figure has a place for each number of iterations, and one has two rates
        assert [label.get_text() for label in first.axes[0].get_xticklabels()] == ["1", "2", "3", "5"]
        assert len(drawn["differences"].axes[0].get_yticks()) == len(module.SWEEP) - 1
    else:
        assert len(first.axes[0].get_yticks()) == len(module.SWEEP)
    assert all("no run of" not in figure.get_supxlabel() for figure in drawn.values())


@pytest.mark.parametrize("module", FIGURES, ids=lambda module: module.__name__)
def test_one_arm_alone_has_no_differences(module):
    drawn = module.figures(records(module, module.SWEEP[-1:]))
    assert "differences" not in drawn
    assert "learning_curves" in drawn


def test_every_router_is_on_the_bench():
    assert {arm["routing.name"] for arm in routers.SWEEP if "routing.name" in arm} == set(ROUTERS)


def test_the_released_recipe_loses_one_ingredient_at_a_time():
    whole, *less, none = released_recipe.SWEEP
    assert all(released_recipe.CONFIG[path] == value for path, value in whole.items())
    lost = [[path for path in whole if arm[path] != whole[path]] for arm in less]
    assert lost == [[path] for path in whole]
    assert not any(none[path] == whole[path] for path in whole)


def test_the_released_net_is_trained_for_300000_steps_and_then_with_one_change_at_a_time():
    config = quarter_percent.CONFIG
    assert config["train.epochs"] * 60000 == 300_000 * 128
    whole, *others = quarter_percent.SWEEP
    changed = [[path for path in whole if arm.get(path) != whole[path]] for arm in others]
    assert changed == [*([path] for path in quarter_percent.CHANGES), ["routing.name", "routing.bias"]]
    trained = overrides.resolve(PRESETS["small"] | config | whole).config  # as the command resolves it
    released = overrides.from_preset("released", {"data.dataset": "mnist"})
    assert dataclasses.replace(trained, preset="released") == released
    steps = quarter_percent.CHANGES["train.ema_epochs"] * 60000 / 128
    assert 1 - 1 / steps == pytest.approx(0.999, abs=1e-5)
