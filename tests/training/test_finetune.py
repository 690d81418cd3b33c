import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.config import ConfigError, override
from capsnet_jax.training import finetune as partition
from capsnet_jax.training import step as train
from tests.training.test_step import CLASSES, TINY, TOTAL, make_examples

PARAMS = {"conv1": {"kernel": np.ones(2)}, "digit": {"W": np.ones(3)}, "decoder": {"bias": np.ones(1)}}


@pytest.mark.parametrize(
    ("names", "trained", "fixed"),
    [
        ("none", {"conv1", "digit", "decoder"}, set()),
        ("digit", {"conv1", "decoder"}, {"digit"}),
        ("conv1+digit", {"decoder"}, {"conv1", "digit"}),
    ],
)
def test_the_two_parts_are_the_whole(names, trained, fixed):
    parts = partition.split(PARAMS, names)
    assert [set(part) for part in parts] == [trained, fixed]
    assert parts[0] | parts[1] == PARAMS


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("digits", r"^train\.frozen has no 'digits'; did you mean 'digit'\? There are: conv1, digit, decoder$"),
        ("conv1+", r"^train\.frozen has no ''"),
        ("conv1+digit+decoder", r"^train\.frozen=conv1\+digit\+decoder leaves nothing to train"),
    ],
)
def test_mistakes_are_named(names, message):
    with pytest.raises(ConfigError, match=message):
        partition.check_frozen(PARAMS, names)


def test_a_frozen_layer_stands_still_and_the_others_move_as_with_its_gradient_ignored():
    examples = jax.device_put(make_examples(4, 0))

    def step(names):
        settings = override(TINY, {"train.frozen": names})
        state = train.init_state(settings, jnp.int32(0), (8, 9, 1), CLASSES)
        zero = jnp.int32(0)
        step = jax.jit(lambda s: train.train_step(settings, zero, s, examples, zero, classes=CLASSES, total=TOTAL))
        return state, step(state)

    before, half = step("digit")
    _, whole = step("none")
    np.testing.assert_array_equal(half.params["digit"]["W"], before.params["digit"]["W"])
    assert "digit" not in half.opt_state.mu
    assert set(half.params) == set(whole.params)
    for layer in set(half.params) - {"digit"}:
        for got, expected in zip(*(jax.tree.leaves(s.params[layer]) for s in (half, whole)), strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-6)
    assert np.abs(whole.params["digit"]["W"] - before.params["digit"]["W"]).max() > 1e-4
