"""Runs that start from others: trained first, taken over layer by layer, and slower where that is asked for."""

import jax
import numpy as np
import pytest

from capsnet_jax import config, models
from capsnet_jax.config import ConfigError
from capsnet_jax.sweeps import checkpoint
from capsnet_jax.sweeps import run as sweep
from capsnet_jax.sweeps.pretrain import source_of, sources_of
from capsnet_jax.sweeps.records import Cell

SIZES = {
    "data.train_size": 64,
    "model.name": "cnn_small",
    "train.batch_size": 32,
    "train.epochs": 1,
}
START = {"transfer.source": "mnist_5k", "data.variant": "inverted", "routing.iterations": 1}


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch):
    monkeypatch.setitem(config.PRESETS, "small", config.PRESETS["small"] | SIZES)


def cell(seed=0, **changes) -> Cell:
    own = START | {name.replace("__", "."): value for name, value in changes.items()}
    return Cell(config.override(config.from_preset("small"), own), seed)


def run(cells, workdir):
    sweep.run(cells, sweep.Plan(workdir, "map", lambda _: "", lambda: None))


def params(workdir, of):
    model = models.build(of.config, 10)
    like = jax.eval_shape(lambda: models.init(model, jax.random.key(0), (28, 28, 1)))
    return checkpoint.load_params(workdir / "cells" / of.name / "params", like)


def test_the_source_is_the_presets_run_of_the_same_network_and_seed():
    own = cell(3, train__learning_rate=0.5, train__frozen="conv1", data__shift=0, routing__temperature=2.0)
    source = source_of(own)
    assert source.seed == 3
    assert source_of(source) is None
    expected = config.override(
        config.from_preset("small"),
        {"data.dataset": "mnist_5k", "routing.iterations": 1, "routing.temperature": 2.0},
    )
    assert source.config == expected
    assert sources_of([own, cell(3, data__shift=0, routing__temperature=2.0), source]) == [source]


def test_layers_are_taken_over_and_go_at_their_own_rate(tmp_path, monkeypatch):
    """With a rate of 0 they stay what the source made of them, to the bit; the output layer starts anew and moves."""
    still, slow = cell(1, transfer__rate=0.0), cell(1, transfer__rate=0.5)
    run([still, slow], tmp_path)
    source = params(tmp_path, source_of(still))
    for layer in ("conv1", "conv2", "conv3", "hidden"):
        jax.tree.map(np.testing.assert_array_equal, params(tmp_path, still)[layer], source[layer])
        gaps = jax.tree.map(lambda a, b: np.abs(a - b).max(), params(tmp_path, slow)[layer], source[layer])
        # Adam's first two steps are of about the learning rate: 0.003 at most here, half of it for these layers.
        assert all(1e-5 < gap < 2 * 0.5 * 0.003 * 1.5 for gap in jax.tree.leaves(gaps))
    fresh = models.init(models.build(still.config, 10), jax.random.fold_in(jax.random.key(1), 0), (28, 28, 1))
    moved = np.abs(params(tmp_path, still)["classes"]["kernel"] - fresh["classes"]["kernel"]).max()
    assert 1e-5 < moved < 0.01
    assert np.abs(source["classes"]["kernel"] - fresh["classes"]["kernel"]).max() > 1e-5

    # A source that has come without its parameters is trained again, and before what starts from it.
    (tmp_path / "cells" / source_of(still).name / "params").rename(tmp_path / "away")
    trained = []
    monkeypatch.setattr(sweep, "_train_together", lambda group, *_: trained.append(group) or 0.0)
    monkeypatch.setattr(sweep, "_failure", lambda *_: None)  # there is no record of what was not trained
    run([other := cell(1, transfer__rate=0.25)], tmp_path)
    assert trained == [[source_of(still)], [other]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transfer__fresh": "class"}, r"^transfer\.fresh has no 'class'; did you mean 'classes'\?"),
        (
            {"data__dataset": "shapes", "transfer__fresh": "conv1"},
            r"^transfer\.source=mnist_5k: layer classes has another shape there, .* add it to transfer\.fresh=conv1$",
        ),
    ],
)
def test_mistakes_are_named_before_anything_is_trained(changes, message, monkeypatch, tmp_path):
    known = sweep.load_data

    def load(settings):
        if settings.dataset != "shapes":
            return known(settings)
        digits = known(config.Data())
        few = jax.tree.map(lambda leaf: leaf[np.flatnonzero(digits.train.labels < 3)], digits.train)
        return type(digits)("shapes", ("a", "b", "c"), few, few, few)

    monkeypatch.setattr(sweep, "load_data", load)
    with pytest.raises(ConfigError, match=message):
        run([cell(**changes)], tmp_path)
    assert not (tmp_path / "cells").exists()
