import itertools

import jax
import numpy as np
import pytest

from capsnet_jax import overrides
from experiments import sweep_demo
from tests.figures.synthetic import fake_record


def records():
    found = [
        fake_record(seed, 2, 1 + 0.1 * number, **{path.replace(".", "__"): value for path, value in arm.items()})
        for number, arm in enumerate(sweep_demo.SWEEP)
        for seed in range(2)
    ]
    for record in found:
        record.result["validation_error"] = record.result["test_error"]
    return found


def test_all_settings_share_one_program():
    configs = [overrides.from_preset("small", arm) for arm in sweep_demo.SWEEP]
    assert len({jax.tree.structure(config) for config in configs}) == 1
    assert len(set(configs)) == 23


def test_a_map_of_the_grid_and_a_figure_of_each_other_number():
    drawn = sweep_demo.figures(records())
    paths = ["learning_rate", "temperature", "weight_scale", "m_plus", "m_minus", "reconstruction_weight"]
    assert set(drawn) == {"rate_and_temperature", *paths}
    grid = drawn["rate_and_temperature"].axes[0]
    assert len(grid.texts) == 15
    assert not any(text.get_text() == "–" for text in grid.texts)
    for path in paths[2:]:  # around the middle of the grid, which has the usual value
        assert len(drawn[path].axes[0].get_xticks()) == 3, path


def shown(drawn):
    """How many means all figures have marks or cells for."""
    cells = len(drawn["rate_and_temperature"].axes[0].texts) if "rate_and_temperature" in drawn else 0
    return cells, {title: len(f.axes[0].containers) for title, f in drawn.items() if title != "rate_and_temperature"}


def subset(*numbers):
    return [record for record in records() if record.settings in [sweep_demo.SWEEP[n] | EXTRA for n in numbers]]


EXTRA = {"data.dataset": "mnist", "routing.name": "dynamic"}


@pytest.mark.parametrize("path", ["train.optimizer", "model.flag"])
def test_what_is_no_number_is_drawn_as_rows(path):
    found = records()[:2] + records()[:2]
    for number, record in enumerate(found):
        record.settings = record.settings | {path: [True, False][number // 2] if "flag" in path else "ab"[number // 2]}
    drawn = sweep_demo.figures(found)
    assert list(drawn) == ["other_arms"]
    assert len(drawn["other_arms"].axes[0].get_yticks()) == 2


def test_one_arm_or_two_are_drawn_and_the_missing_are_counted():
    check([(0,), (22,), (3, 9), (2, 16), (19, 20), *(tuple(range(start, 23)) for start in (1, 8, 15, 20))])


@pytest.mark.slow
def test_parts_of_the_arms_at_random():
    rng = np.random.default_rng(0)
    check([tuple(np.flatnonzero(rng.random(23) < rng.random())) for _ in range(150)])
    check(itertools.combinations(range(23), 2))


def check(parts):
    for numbers in parts:
        if not numbers:
            continue
        drawn = sweep_demo.figures(subset(*numbers))
        cells, marks = shown(drawn)
        assert cells + sum(marks.values()) >= len(numbers), numbers
        for figure in drawn.values():
            text = figure.get_supxlabel().replace("\n", " ")
            assert f"no run of {23 - len(numbers)} of the experiment's 23 arms" in text or len(numbers) > 20
