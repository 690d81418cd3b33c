import numpy as np
import pytest

from experiments import routing_iterations
from experiments.routing_iterations import changes_by_iteration
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


def shown_means(figure) -> list[float]:
    """The means at r = 1, 2, 3, of every series that has all three."""
    joined = [y for x, y in lines(figure) if len(x) == 3 and np.allclose(np.diff(x), 1)]
    return [y.tolist() for y in joined]


def means(found) -> list[float]:
    return [np.mean([r.result["test_error"] for r in found[i : i + 3]]) for i in (0, 3, 6)]


def test_the_claim_is_compared():
    assert [arm["routing.iterations"] for arm in routing_iterations.SWEEP] == [1, 3, 5]
    assert all(len(arm) == 1 for arm in routing_iterations.SWEEP)


def test_the_figures_show_every_iteration_count():
    found = records()
    drawn = routing_iterations.figures(found)
    assert list(drawn) == ["learning_curves", "error_against_iterations", "training_loss"]
    np.testing.assert_allclose(shown_means(drawn["error_against_iterations"]), [means(found)])
    for number in range(3):
        curve = np.mean([r.metrics["validation_error"] for r in found[3 * number : 3 * number + 3]], axis=0)
        assert any(y.shape == curve.shape and np.allclose(y, curve) for _, y in lines(drawn["learning_curves"]))


def test_another_swept_path_is_told_apart():
    slow, fast = records(1.0, train__learning_rate=0.1), records(3.0, train__learning_rate=0.2)
    drawn = routing_iterations.figures(slow + fast)
    assert list(drawn) == ["learning_curves", "error_against_iterations", "training_loss"]
    np.testing.assert_allclose(shown_means(drawn["error_against_iterations"]), [means(slow), means(fast)])


def test_what_was_probed_has_figures_of_its_own():
    drawn = routing_iterations.figures([probed(record) for record in records()])
    assert list(drawn)[3:] == ["train_test_grid", "changes-mnist"]
    one = [probed(record) for record in records() if record.settings["routing.iterations"] == 1]
    assert list(routing_iterations.figures(one))[2:] == ["train_test_grid"]


def probed_records(iterations=(1, 2, 3), datasets=("mnist",), seeds=3):
    return [
        probed(fake_record(seed, 6, routing__iterations=r, data__dataset=dataset))
        for dataset in datasets
        for r in iterations
        for seed in range(seeds)
    ]


def curves(axes):
    return {line.get_label(): (line.get_xdata(), line.get_ydata()) for line in axes.lines}


def test_a_panel_for_each_net_that_iterates_and_a_curve_for_some_epochs():
    figure = changes_by_iteration(probed_records())
    panels = np.array(figure.axes).reshape(3, 2)
    assert [axes.get_title() for axes in panels[0]] == ["trained with r = 2", "trained with r = 3"]
    assert [axes.get_ylabel().split("\n")[0] for axes in panels[:, 0]] == ["logits", "couplings", "class capsules"]
    for (row, column), axes in np.ndenumerate(panels):
        assert axes.get_yscale() == "log"
        drawn = curves(axes)
        shown = [name for name in drawn if name.startswith("epoch")]
        assert shown == ["epoch 1", "epoch 2", "epoch 4", "epoch 5", "epoch 6"]
        x, y = drawn["epoch 5"]
        assert list(x) == [2, 3, 4]
        # Seeds 0, 1, 2 are 1, 1.1 and 1.2 times as large: the mean is 1.1.
        np.testing.assert_allclose(y, [0.11 * np.exp(-t - 0.4) / 10**row for t in (2, 3, 4)])
        assert any(list(x) == [column + 2] * 2 for x, _ in drawn.values())  # where it was trained
        published = any(list(x) == [2, 5] and list(y) == [0.007, 1e-5] for x, y in drawn.values())
        assert published == (row == 0)
    assert "n = 3 seeds" in figure.get_supxlabel()


def test_an_epoch_has_one_colour_in_every_panel():
    short = [probed(fake_record(seed, 4, routing__iterations=2)) for seed in range(2)]
    long = [probed(fake_record(seed, 10, routing__iterations=3)) for seed in range(2)]
    figure = changes_by_iteration(short + long)
    colours = [
        {line.get_label(): line.get_color() for line in axes.lines if line.get_label().startswith("epoch")}
        for axes in figure.axes[:2]
    ]
    assert list(colours[0]) == ["epoch 1", "epoch 3"]
    assert list(colours[1]) == ["epoch 1", "epoch 3", "epoch 6", "epoch 8", "epoch 10"]
    assert colours[0].items() <= colours[1].items()
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(colours[1])


def test_what_an_older_record_lacks_has_no_row():
    found = probed_records()
    del found[-1].metrics["validation_coupling_change_at_2"]
    assert len(changes_by_iteration(found).axes) == 4


@pytest.mark.parametrize(
    "found", [probed_records((1,)), [fake_record(routing__iterations=3)]], ids=["r = 1", "not probed"]
)
def test_nothing_iterates(found):
    with pytest.raises(ValueError, match=r"eval\.max_routing_iterations=7"):
        changes_by_iteration(found)


def test_several_data_sets_are_several_figures():
    with pytest.raises(ValueError, match="one figure shows one data set; these are of mnist, fashion_mnist"):
        changes_by_iteration(probed_records(datasets=("mnist", "fashion_mnist")))


def test_a_setting_has_one_colour_in_all_curves():
    drawn = routing_iterations.figures(records())
    colours = {line.get_label(): line.get_color() for line in drawn["learning_curves"].axes[0].lines}
    some = drawn["training_loss"].axes[0].lines
    assert [line.get_label() for line in some] == ["r = 1 (n = 3)", "r = 3 (n = 3)"]
    assert all(line.get_color() == colours[line.get_label()] for line in some)


def test_what_does_not_route_has_learning_curves_alone():
    found = [fake_record(seed, 4, model__name="resnet18") for seed in range(2)]
    assert list(routing_iterations.figures(found)) == ["learning_curves"]


def told(figure) -> str:
    return figure.get_supxlabel().replace("\n", " ")


def test_routers_without_iterations_are_named_where_they_are_not_shown():
    learned = [fake_record(seed, 4, routing__name="learned") for seed in range(2)]
    drawn = routing_iterations.figures(records() + learned)
    assert "without iterations, so not shown: learned routing" in told(drawn["error_against_iterations"])
    assert "not shown" not in told(drawn["learning_curves"])
    assert "not shown" not in told(routing_iterations.figures(records())["error_against_iterations"])


def test_a_figure_of_one_setting_says_which_and_how_many_runs_it_leaves_out():
    with_, without = ([probed(r) for r in records(loss__reconstruction=value)] for value in (True, False))
    drawn = routing_iterations.figures(with_ + without[:6])
    for title in ("training_loss", "changes-mnist", "train_test_grid"):
        assert "shown: with reconstruction; not shown: 6 runs of other settings" in told(drawn[title])


def test_runs_of_one_iteration_alone_are_never_mixed():
    found = [
        probed(fake_record(seed, 4, routing__iterations=1, loss__reconstruction=value))
        for value in (True, False)
        for seed in range(2)
    ]
    drawn = routing_iterations.figures(found)
    assert "shown: with reconstruction; not shown: 2 runs" in told(drawn["train_test_grid"])


def test_changes_have_plain_ticks_over_every_range():
    figure = changes_by_iteration(probed_records())
    figure.draw_without_rendering()
    for axes in figure.axes[::2]:  # on the left; a row shares its axis
        labels = [tick.get_text() for tick in axes.get_yticklabels()]
        assert len(labels) >= 2
        assert not any("$" in label for label in labels)
