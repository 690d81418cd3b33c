"""Runs that start from others: these are trained first, copied layer by layer, and fine-tuned slower where asked."""

import jax
import numpy as np
import pytest

from capsnet_jax import config, models
from capsnet_jax.config import ConfigError
from capsnet_jax.overrides import flatten, from_preset
from capsnet_jax.sweeps import plan, run
from capsnet_jax.sweeps.pretrain import pretraining_run, pretraining_runs
from capsnet_jax.sweeps.records import Run
from tests import tiny

SIZES = {
    "data.train_size": 64,
    "model.name": "cnn_small",
    "train.batch_size": 32,
    "train.epochs": 1,
}
START = {"finetune.source": "mnist_5k", "data.transform": "inverted"}


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch):
    monkeypatch.setitem(config.PRESETS, "small", config.PRESETS["small"] | SIZES)


def run_of(seed=0, **changes) -> Run:
    own = START | {name.replace("__", "."): value for name, value in changes.items()}
    return Run(from_preset("small", own), seed)


def train(runs, workdir):
    run.train_all(runs, plan.Plan(workdir, "map", lambda _: "", lambda: None), run.load_and_check(runs))


def params(workdir, of):
    return tiny.params(workdir, of.name)


def test_the_source_is_the_presets_run_of_the_same_network_and_seed():
    capsnet = {"model__name": "capsnet_small", "routing__iterations": 2, "routing__temperature": 2.0}
    own = run_of(3, train__learning_rate=0.5, train__frozen="conv1", data__max_shift=0, **capsnet)
    source = pretraining_run(own)
    assert source.seed == 3
    assert pretraining_run(source) is None
    same = {name.replace("__", "."): value for name, value in capsnet.items()}
    assert source.config == from_preset("small", {"data.dataset": "mnist_5k"} | same)
    assert pretraining_runs([own, run_of(3, data__max_shift=0, **capsnet), source]) == [source]


def test_what_a_preset_sets_and_the_source_has_not_is_left_out():
    """Pairs of digits have no order of shifts, which the preset sets."""
    own = Run(from_preset("released", {"finetune.source": "multi_mnist"}), 0)
    source = pretraining_run(own)
    assert (source.config.data.dataset, source.config.train) == ("multi_mnist", own.config.train)
    assert "data.shift_order" not in flatten(source.config)


@pytest.mark.slow
def test_layers_are_copied_and_go_at_their_own_rate(tmp_path, monkeypatch):
    """With a multiplier of 0 they stay what the source made of them, to the bit; the head starts anew and moves."""
    still, slow = run_of(1, finetune__lr_multiplier=0.0), run_of(1, finetune__lr_multiplier=0.5)
    train([still, slow], tmp_path)
    source = params(tmp_path, pretraining_run(still))
    for layer in ("conv1", "conv2", "conv3", "hidden"):
        jax.tree.map(np.testing.assert_array_equal, params(tmp_path, still)[layer], source[layer])
        gaps = jax.tree.map(lambda a, b: np.abs(a - b).max(), params(tmp_path, slow)[layer], source[layer])
        # Adam's first two steps are of about the learning rate: 0.003 at most here, half of it for these layers.
        assert all(1e-5 < gap < 2 * 0.5 * 0.003 * 1.5 for gap in jax.tree.leaves(gaps))
    key = jax.random.fold_in(jax.random.key(1), 0)
    fresh, _ = models.init(models.build(still.config, 10), key, (28, 28, 1))
    moved = np.abs(params(tmp_path, still)["classes"]["kernel"] - fresh["classes"]["kernel"]).max()
    assert 1e-5 < moved < 0.01
    assert np.abs(source["classes"]["kernel"] - fresh["classes"]["kernel"]).max() > 1e-5

    # A source that has come without its parameters is trained again, and before what starts from it.
    (tmp_path / "runs" / pretraining_run(still).name / "params.safetensors").rename(tmp_path / "away")
    trained, real = [], run.train_together
    monkeypatch.setattr(run, "train_together", lambda group, *rest: trained.append(group) or real(group, *rest))
    train([other := run_of(1, finetune__lr_multiplier=0.25)], tmp_path)
    assert trained == [[pretraining_run(still)], [other]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finetune__reinitialize": "class"}, r"^finetune\.reinitialize has no 'class'; did you mean 'classes'\?"),
        (
            {"data__dataset": "shapes", "finetune__reinitialize": "conv1"},
            r"^finetune\.source=mnist_5k: layer classes has another shape .* add it to finetune\.reinitialize=conv1$",
        ),
    ],
)
def test_mistakes_are_named_before_anything_is_trained(changes, message, monkeypatch, tmp_path):
    real = run.load_data

    def load(settings):
        if settings.dataset != "shapes":
            return real(settings)
        digits = real(config.Data())
        few = jax.tree.map(lambda leaf: leaf[np.flatnonzero(digits.train.labels < 3)], digits.train)
        return type(digits)("shapes", ("a", "b", "c"), few, few, few)

    monkeypatch.setattr(run, "load_data", load)
    with pytest.raises(ConfigError, match=message):
        train([run_of(**changes)], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_starts_from_a_run_that_diverged_is_told_and_the_others_are_trained(tmp_path, monkeypatch):
    start, other = run_of(train__learning_rate=0.003), run_of(train__learning_rate=0.003, finetune__source="none")
    monkeypatch.setitem(config.PRESETS, "small", config.PRESETS["small"] | {"train.learning_rate": 1e30})
    told = rf"{pretraining_run(start).name}: loss not finite at step \d+;.*\nNot trained, .*: 1 run\.$"
    for _ in range(2):  # the second time nothing is trained
        with pytest.raises(run.Diverged, match=told):
            train([start, other], tmp_path)
        assert tiny.runs(tmp_path).keys() == {pretraining_run(start).name, other.name}
        monkeypatch.setattr(run, "train_together", None)
