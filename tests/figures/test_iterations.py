import numpy as np
import pytest

from capsnet_jax.figures import changes_by_iteration, through_training
from tests.figures.synthetic import fake_record, probed


def records(iterations=(1, 2, 3), datasets=("mnist",), seeds=3):
    return [
        probed(fake_record(seed, 6, routing__iterations=r, data__dataset=dataset))
        for dataset in datasets
        for r in iterations
        for seed in range(seeds)
    ]


def curves(axes):
    return {line.get_label(): (line.get_xdata(), line.get_ydata()) for line in axes.lines}


def test_a_panel_for_each_net_that_iterates_and_a_curve_for_some_epochs():
    figure = changes_by_iteration(records())
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
    found = records()
    del found[-1].metrics["validation_coupling_change_at_2"]
    assert len(changes_by_iteration(found).axes) == 4


@pytest.mark.parametrize("found", [records((1,)), [fake_record(routing__iterations=3)]], ids=["r = 1", "not probed"])
def test_nothing_iterates(found):
    with pytest.raises(ValueError, match=r"routing\.probe=7"):
        changes_by_iteration(found)


def test_every_quantity_through_training():
    figure = through_training(records(), by=["routing.iterations"])
    panels = np.array(figure.axes).reshape(3, 5)
    assert [axes.get_ylabel() for axes in panels[:, 0]] == ["r = 1", "r = 2", "r = 3"]
    entropy, agreement, flips, error, dead = panels[1]
    np.testing.assert_allclose(curves(dead)["whole net"][1], 25.0)
    assert list(curves(entropy)) == list(curves(error)) == [f"iteration {t}" for t in (1, 2, 3, 4)]
    assert list(curves(agreement)) == [f"iteration {t}" for t in (1, 2, 3)]  # the last one's is not seen
    assert list(curves(flips)) == [f"iteration {t}" for t in (2, 3, 4)]
    np.testing.assert_allclose(curves(entropy)["iteration 3"][1], 1 - 0.2 * np.linspace(0.3, 1, 6))
    np.testing.assert_allclose(curves(flips)["iteration 2"][1], [5.5 * np.exp(-2 - e / 10) for e in range(6)])


def test_several_data_sets_are_several_figures():
    found = records(datasets=("mnist", "fashion_mnist"))
    with pytest.raises(ValueError, match="one figure shows one data set; these are of mnist, fashion_mnist"):
        through_training(found, by=["routing.iterations"])
    with pytest.raises(ValueError, match="one figure shows one data set; these are of mnist, fashion_mnist"):
        changes_by_iteration(found)
