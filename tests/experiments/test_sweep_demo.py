import jax

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
