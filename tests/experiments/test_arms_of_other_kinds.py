"""Figures of studies to which the user's own sweep adds runs of another kind."""

from capsnet_jax.figures.grouping import paths_within
from experiments import em_iterations, squashings
from tests.figures.synthetic import fake_record


def test_a_net_without_iterations_is_an_arm_among_those_with_them():
    nets = [{"model.name": "matrix_capsnet", "routing.name": "em", "routing.iterations": r} for r in (1, 3)]
    nets.append({"model.name": "cnn_small", "routing.name": None})
    paths = [{path.replace(".", "__"): value for path, value in net.items()} for net in nets]
    drawn = em_iterations.figures([fake_record(seed, **path) for path in paths for seed in range(2)])
    assert set(drawn) >= {"error_against_iterations", "learning_curves"}
    alone = em_iterations.figures([fake_record(seed, **paths[-1]) for seed in range(2)])
    assert "error_against_iterations" not in alone


def test_a_numbers_own_floor_is_no_series():
    """In a grid of floors each is one, and all of it can be drawn."""
    own, grid = [(1, 0.03), (3, 3.0)], [(1, 0.03), (1, 3.0), (3, 0.03), (3, 3.0)]
    for pairs, paths in ((own, []), (grid, ["routing.variance_floor"])):
        nets = [{"routing__iterations": r, "routing__variance_floor": floor} for r, floor in pairs]
        records = [fake_record(seed, **net) for net in nets for seed in range(2)]
        assert paths_within(records, ["routing.iterations"]) == paths
        assert "differences" in em_iterations.figures(records)


def test_primary_capsules_may_be_squashed_otherwise_than_their_parents():
    settings = [{"model__squash": primary, "routing__squash": "sabour"} for primary in ("sabour", "half")]
    records = [fake_record(seed, routing__name="dynamic", **setting) for setting in settings for seed in range(2)]
    assert "test_error" in squashings.figures(records)
