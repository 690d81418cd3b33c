import numpy as np
import pytest

from capsnet_jax.figures import net_speeds, speed_ratios
from tests.bench import rows
from tests.bench.rows import frame


def test_marks_are_at_the_medians_and_bars_reach_from_least_to_greatest():
    figure = speed_ratios(frame(rows.net("resnet50") + rows.net("alexnet_single", scale=0.5)))
    training, inference = figure.axes
    assert [axes.get_xlabel().split(":")[0] for axes in figure.axes] == ["training", "inference"]
    assert [label.get_text() for label in training.get_yticklabels()] == ["alexnet_single", "resnet50"]
    for axes in (training, inference):
        own, last = axes.containers
        for container, middle, bars in (
            (own, [1.0, 2.0], [[1.0, 1.375], [2.0, 2.75]]),
            (last, [1.2, 2.4], [[0.6875, 1.25], [1.375, 2.5]]),
        ):
            points, _, (reach,) = container.lines
            np.testing.assert_allclose(np.asarray(points.get_xdata(), float), middle)
            assert [round(y) for y in points.get_ydata()] == [0, 1]
            np.testing.assert_allclose([segment[:, 0] for segment in reach.get_segments()], bars)
        assert [text.get_text() for text in axes.texts] == ["1.00", "2.00"]  # of the layout that was faster
        assert axes.get_xscale() == "log"


def test_the_caption_tells_machine_sizes_and_rounds():
    text = speed_ratios(frame(rows.net())).get_supxlabel().replace("\n", " ")
    assert text.startswith("here; 224×224×3 images, batch 8; in turns, median of n = 3 rounds")


def test_a_phase_or_a_layout_that_was_not_measured_is_not_drawn():
    found = [r for r in rows.net() if r["quantity"] == "inference" and r["subject"] != "torchvision"]
    [axes] = speed_ratios(frame(found)).axes
    assert axes.get_xlabel().startswith("inference")
    assert [text.get_text() for text in axes.texts] == ["2.40"]


def test_nothing_to_draw():
    for found in ([], [row for row in rows.net() if row["subject"] == "capsnet_jax"]):
        with pytest.raises(ValueError, match="no measurement"):
            speed_ratios(frame(found))


def test_the_faster_layout_is_chosen_in_every_round():
    speeds = net_speeds(frame(rows.net("resnet50"))).loc["resnet50"]
    training = speeds.loc["training"]
    assert training["theirs"].to_list() == [5.0, 8.0, 6.0]  # 5 and 4, 4 and 8, 6 and 5
    assert training["ratio torchvision"].to_list() == [2.0, 2.75, 2.0]
    assert training["ratio torchvision_channels_last"].to_list() == [2.5, 1.375, 2.4]
    assert training["ratio theirs"].to_list() == [2.0, 1.375, 2.0]
    assert speeds.loc["inference"]["ratio theirs"].to_list() == [2.0, 1.375, 2.0]


def test_nets_come_in_the_order_of_their_list():
    found = frame(rows.net("resnet18") + rows.net("alexnet_single") + rows.net("vgg_d_bn"))
    assert list(net_speeds(found).index.unique("net")) == ["alexnet_single", "vgg_d_bn", "resnet18"]


def test_settings_of_one_net_have_names_of_their_own():
    found = rows.net("resnet18") + rows.net("resnet18", "train.batch_size=1", 0.5) + rows.net("resnet34")
    told = net_speeds(frame(found)).groupby(["net", "phase"])["ratio theirs"].median().unstack()["training"]
    assert told.to_dict() == {"resnet18": 2.0, "resnet18 train.batch_size=1": 1.0, "resnet34": 2.0}


def test_without_torchvision_there_are_no_ratios():
    alone = [row for row in rows.net("resnet18") if row["subject"] == "capsnet_jax"]
    speeds = net_speeds(frame(alone))
    assert speeds["capsnet_jax"].notna().all()
    assert speeds["ratio theirs"].isna().all()
