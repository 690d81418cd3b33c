"""Experiments that look into single networks, on data that is not ten classes of square grey images."""

import jax
import numpy as np
import pytest

from capsnet_jax import models, overrides
from capsnet_jax.data import Dataset, Examples
from capsnet_jax.interpret import OBSERVATIONS
from capsnet_jax.interpret.network import Network
from experiments import capsule_dimensions, routing_diagnostics
from tests.figures.synthetic import fake_record

SETTINGS = {
    **{"model.channels": 4, "model.capsule_types": 2, "model.primary_dim": 4, "model.class_dim": 3, "model.kernel": 3},
    **{"model.decoder": (8,), "routing.iterations": 2},
}
SHAPE = (12, 17, 3)


@pytest.fixture(scope="module")
def net():
    """Untrained, of two classes of wide images in colour, one of which has no validation images."""
    rng = np.random.default_rng(0)

    def examples(labels):
        return Examples(rng.integers(0, 256, (len(labels), *SHAPE), dtype=np.uint8), np.array(labels, np.int32))

    data = Dataset("odd", ("cats", "dogs"), examples([0, 1, 1]), examples([1, 1, 1]), examples([0, 1]))
    config = overrides.build(SETTINGS)
    model = models.build(config, 2)
    return Network(config, model, *models.init(model, jax.random.key(0), SHAPE), data, record=None)


def drawn(experiment, arrays, monkeypatch):
    monkeypatch.setattr(experiment, "load_observation", lambda record, name: arrays)
    return experiment.figures([fake_record(routing__iterations=2)])


@pytest.mark.slow
def test_capsule_dimensions(net, monkeypatch):
    arrays = OBSERVATIONS["capsule_dimensions"](net)
    assert arrays["labels"].tolist() == [1, 1]
    assert arrays["shown"].tolist() == [1]
    assert arrays["moved"].shape == (1, 3, 11, *SHAPE)
    figures = drawn(capsule_dimensions, arrays, monkeypatch)
    assert len(figures["all_dimensions-mnist"].axes[0].get_yticks()) == 3
    assert all("1 of 2 classes" in figure.get_supxlabel().replace("\n", " ") for figure in figures.values())


@pytest.mark.slow
def test_couplings(net, monkeypatch):
    arrays = OBSERVATIONS["couplings"](net)
    assert arrays["labels"].tolist() == [1]
    assert arrays["shares"].shape == (1, 3, 4, 7, 2)
    [figure] = drawn(routing_diagnostics, arrays, monkeypatch).values()
    assert len(figure.axes) == 3 * 3 + 1
    caption = figure.get_supxlabel().replace("\n", " ")
    assert caption.startswith("MNIST, one of its validation images")
    assert "its iterations were not recorded through training" in caption
