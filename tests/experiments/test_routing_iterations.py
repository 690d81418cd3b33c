import numpy as np

from experiments import routing_iterations
from tests.figures.synthetic import fake_record, probed

FLOORS = {1: 0.8, 2: 0.7, 3: 0.6}


def records(scale=1.0, **more):
    return [
        fake_record(seed, 4, scale * floor, routing__iterations=r, **more)
        for r, floor in FLOORS.items()
        for seed in range(3)
    ]


def lines(figure) -> list[tuple[tuple, np.ndarray]]:
    found = [line for axes in figure.axes for line in axes.get_lines()]
    return [(tuple(line.get_xdata()), np.asarray(line.get_ydata(), float)) for line in found]


def means(found) -> list[float]:
    return [np.mean([r.result["test_error"] for r in found[i : i + 3]]) for i in (0, 3, 6)]


def test_the_claim_is_compared():
    assert [arm["routing.iterations"] for arm in routing_iterations.SWEEP] == [1, 2, 3, 5, 7]
    assert all(len(arm) == 1 for arm in routing_iterations.SWEEP)


def test_the_figures_show_every_iteration_count():
    found = records()
    drawn = routing_iterations.figures(found)
    assert list(drawn) == ["learning_curves", "error_against_iterations", "training_loss"]
    assert any(x == (1, 2, 3) and np.allclose(y, means(found)) for x, y in lines(drawn["error_against_iterations"]))
    for number in range(3):
        curve = np.mean([r.metrics["validation_error"] for r in found[3 * number : 3 * number + 3]], axis=0)
        assert any(y.shape == curve.shape and np.allclose(y, curve) for _, y in lines(drawn["learning_curves"]))


def test_another_swept_path_is_told_apart():
    slow, fast = records(1.0, train__learning_rate=0.1), records(3.0, train__learning_rate=0.2)
    drawn = routing_iterations.figures(slow + fast)
    assert list(drawn) == ["learning_curves", "error_against_iterations", "training_loss"]
    for found in (slow, fast):
        assert any(x == (1, 2, 3) and np.allclose(y, means(found)) for x, y in lines(drawn["error_against_iterations"]))


def test_what_was_probed_has_figures_of_its_own():
    drawn = routing_iterations.figures([probed(record) for record in records()])
    assert list(drawn)[3:] == ["changes-mnist", "train_test_grid"]
    one = [probed(record) for record in records() if record.settings["routing.iterations"] == 1]
    assert list(routing_iterations.figures(one))[2:] == ["train_test_grid"]
