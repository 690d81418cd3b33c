import pytest

from capsnet_jax.bench import net_ratios
from capsnet_jax.bench.ratios import Spread
from tests.bench import rows


def test_the_faster_layout_is_chosen_in_every_round():
    training, inference = net_ratios.compare(rows.net("resnet50"))
    assert (training.label, training.phase, inference.phase) == ("resnet50", "training", "inference")
    assert training.ours == Spread(11.0, 10.0, 12.0, 3)
    assert training.theirs == Spread(6.0, 5.0, 8.0, 3)  # 5 and 4, 4 and 8, 6 and 5
    assert training.ratios["torchvision"] == Spread(2.0, 2.0, 2.75, 3)
    assert training.ratios["torchvision_channels_last"] == Spread(2.4, 1.375, 2.5, 3)
    assert training.ratio == Spread(2.0, 1.375, 2.0, 3)
    assert inference.ratio == Spread(2.0, 1.375, 2.0, 3)


def test_networks_come_in_the_order_of_their_list():
    found = rows.net("resnet18") + rows.net("alexnet_single") + rows.net("vgg_d_bn")
    assert list(net_ratios.labels(found).values()) == ["alexnet_single", "vgg_d_bn", "resnet18"]


def test_settings_of_one_network_have_names_of_their_own():
    found = rows.net("resnet18") + rows.net("resnet18", "train.batch_size=1", 0.5) + rows.net("resnet34")
    told = {each.label: each.ratio.median for each in net_ratios.compare(found) if each.phase == "training"}
    assert told == {"resnet18 data.shift=0": 2.0, "resnet18 data.shift=0 train.batch_size=1": 1.0, "resnet34": 2.0}


def test_the_summary_tells_medians_ratios_and_their_mean():
    text = net_ratios.summary(rows.net("resnet18") + rows.net("resnet34", scale=4.0))
    first, second, *means = text.splitlines()[2:]
    assert first.split()[:3] == ["resnet18", "11", "6"]
    assert "2 (1.38 to 2, n = 3)" in first
    assert second.split()[:3] == ["resnet34", "44", "6"]
    assert means == [f"{phase}: 4, geometric mean of 2 ratios" for phase in ("training", "inference")]


def test_without_torchvision_there_are_no_ratios():
    alone = [row for row in rows.net("resnet18") if row.subject == "capsnet_jax"]
    training, _ = net_ratios.compare(alone)
    assert (training.theirs, training.ratios, training.ratio) == (None, {}, None)
    assert net_ratios.summary(alone).splitlines()[-1].split() == ["resnet18", "11", "22"]


def test_the_mean_of_reciprocals_is_the_reciprocal():
    assert net_ratios.geometric_mean([0.5, 4.0]) == pytest.approx(2**0.5)
    assert net_ratios.geometric_mean([2.0, 0.25]) == pytest.approx(2**-0.5)
