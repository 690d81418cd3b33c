import dataclasses

import pytest

from capsnet_jax import config
from capsnet_jax.bench import nets, ours, plan
from capsnet_jax.bench.workload import NETS
from capsnet_jax.config import Config, ConfigError
from capsnet_jax.models import pretrained as transfer
from experiments import throughput_nets


def setting(**changes) -> Config:
    base = config.override(Config(), throughput_nets.CONFIG | {"model.name": "resnet50"})
    return config.override(base, {path.replace("__", "."): value for path, value in changes.items()})


def test_every_network_that_torchvision_has_too_is_compared():
    """The networks whose weights can be read from there."""
    assert set(NETS) == set(transfer._families())
    assert [arm["model.name"] for arm in throughput_nets.SWEEP] == list(NETS)
    for name in NETS:
        nets.check(setting(model__name=name))


def test_both_phases_of_every_subject_at_imagenets_sizes():
    inference, training = nets.groups(setting(), nets.PEERS, plan.Effort(rounds=4, seconds=3.0))
    assert (training.name, inference.name) == ("training", "inference")
    assert (inference.seconds, training.seconds) == (3.0, 15.0)
    assert (inference.rounds, training.rounds) == (4, 4)
    for group in (training, inference):
        assert (group.kind, group.starts) == ("blocks", 3)
        assert [w.subject for w in group.workloads] == ["capsnet_jax", "torchvision", "torchvision_channels_last"]
        assert {w.phase for w in group.workloads} == {group.name}
        assert {(w.model, w.batch, w.side, w.channels, w.classes) for w in group.workloads} == {
            ("resnet50", 8, 224, 3, 1000)
        }
    assert [w.subject for group in nets.groups(setting(), [], nets.EFFORT) for w in group.workloads] == [
        "capsnet_jax",
        "capsnet_jax",
    ]


def test_images_are_as_the_workload_says():
    given = nets.groups(setting(), [], nets.EFFORT)[0].workloads[0]
    images, labels = given.images()
    assert (images.shape, images.dtype) == ((nets.IMAGES, 224, 224, 3), "uint8")
    assert 500 < labels.max() < 1000
    data = ours.dataset(dataclasses.replace(given, side=9, count=5))
    assert (data.train.images.shape, data.image_shape, data.classes) == ((5, 9, 9, 3), (9, 9, 3), 1000)
    assert (data.train.images[:5] == dataclasses.replace(given, side=9, count=5).images()[0]).all()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model__name": "capsnet"}, "CapsNet has throughput"),
        ({"model__name": "googlenet"}, "did you mean 'googlenet_bn'"),
        ({"model__stem": "small"}, "model.stem=none"),
        ({"model__kernel": 3}, "model.kernel=none"),
        ({"train__frozen": "conv1"}, "train.frozen=none"),
        ({"transfer__source": "mnist"}, "transfer.source=none"),
        ({"data__dataset": "cifar10"}, "images are synthetic"),
        ({"train__batch_size": nets.IMAGES + 1}, "lower train.batch_size"),
    ],
)
def test_settings_that_torchvision_does_not_share(changes, told):
    with pytest.raises(ConfigError, match=told):
        nets.check(setting(**changes))
