import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.config import ConfigError, Finetune
from capsnet_jax.overrides import override
from capsnet_jax.training import finetune, step
from tests.training.test_step import CLASSES, TINY, TOTAL, make_examples

PARAMS = {"conv1": {"kernel": np.ones(2)}, "class_capsules": {"W": np.ones(3)}, "decoder": {"bias": np.ones(1)}}


@pytest.mark.parametrize(
    ("names", "trained", "fixed"),
    [
        ("none", {"conv1", "class_capsules", "decoder"}, set()),
        ("class_capsules", {"conv1", "decoder"}, {"class_capsules"}),
        ("conv1+class_capsules", {"decoder"}, {"conv1", "class_capsules"}),
    ],
)
def test_the_two_parts_are_the_whole(names, trained, fixed):
    parts = finetune.split_frozen(PARAMS, names)
    assert [set(part) for part in parts] == [trained, fixed]
    assert parts[0] | parts[1] == PARAMS


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            "class_capsule",
            r"^train\.frozen has no 'class_capsule'; did you mean 'class_capsules'\?"
            r" There are: conv1, class_capsules, decoder$",
        ),
        ("conv1+", r"^train\.frozen has no ''"),
        ("conv1+class_capsules+decoder", r"^train\.frozen=conv1\+class_capsules\+decoder leaves nothing to train"),
    ],
)
def test_mistakes_are_named(names, message):
    with pytest.raises(ConfigError, match=message):
        finetune.check_frozen(PARAMS, names)


@pytest.mark.slow
def test_a_frozen_layer_stands_still_and_the_others_move_as_with_its_gradient_ignored():
    examples = jax.device_put(make_examples(4, 0))

    def take_step(names):
        settings = override(TINY, {"train.frozen": names})
        state = step.init_state(settings, jnp.int32(0), (8, 9, 1), CLASSES)
        zero = jnp.int32(0)
        program = jax.jit(lambda s: step.train_step(settings, zero, s, examples, zero, classes=CLASSES, total=TOTAL))
        return state, program(state)

    before, half = take_step("class_capsules")
    _, whole = take_step("none")
    np.testing.assert_array_equal(half.params["class_capsules"]["W"], before.params["class_capsules"]["W"])
    assert "class_capsules" not in half.opt_state.mu
    assert set(half.params) == set(whole.params)
    for layer in set(half.params) - {"class_capsules"}:
        for got, expected in zip(*(jax.tree.leaves(s.params[layer]) for s in (half, whole)), strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-6)
    assert np.abs(whole.params["class_capsules"]["W"] - before.params["class_capsules"]["W"]).max() > 1e-4


HEADS = ("class_capsules", "aux")


def finetuning(**settings) -> Finetune:
    return Finetune(source="kmnist", **settings)


@pytest.mark.parametrize(
    ("reinitialize", "layers"),
    [
        ("head", ["class_capsules"]),  # a head that this net does not have is none
        ("none", []),
        ("conv1", ["conv1"]),
        ("class_capsules+decoder", ["class_capsules", "decoder"]),
    ],
)
def test_layers_start_anew_or_are_copied(reinitialize, layers):
    pretrained = jax.tree.map(lambda leaf: leaf + 1, PARAMS)
    settings = finetuning(reinitialize=reinitialize)
    assert finetune.reinitialized_layers(PARAMS, settings, HEADS) == layers
    start = finetune.copy_pretrained(PARAMS, pretrained, settings, HEADS)
    assert start.keys() == PARAMS.keys()
    for name, leaves in start.items():
        assert leaves is (PARAMS if name in layers else pretrained)[name]


def test_only_what_is_copied_learns_by_its_share_of_the_rate():
    scale = finetune.scale_pretrained_updates(finetuning(lr_multiplier=0.25), PARAMS, HEADS)
    updates, _ = scale.update(PARAMS, scale.init(PARAMS))
    shares = {layer: float(jax.tree.leaves(leaves)[0][0]) for layer, leaves in updates.items()}
    assert shares == {"conv1": 0.25, "class_capsules": 1.0, "decoder": 0.25}


def test_mistakes_in_what_is_copied_are_named():
    other = PARAMS | {"decoder": {"bias": np.ones(5)}}
    finetune.check_pretrained(PARAMS, other, finetuning(reinitialize="decoder"), HEADS)
    with pytest.raises(ConfigError, match=r"^finetune\.source=kmnist: layer decoder has another shape") as error:
        finetune.check_pretrained(PARAMS, other, finetuning(), HEADS)
    assert str(error.value).endswith("add it to finetune.reinitialize=class_capsules")
    with pytest.raises(ConfigError, match=r"^finetune\.reinitialize has no 'decode'; did you mean 'decoder'\?"):
        finetune.check_pretrained(PARAMS, other, finetuning(reinitialize="decode"), HEADS)
