"""What is dead, planted into a tiny net and counted by loops."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import models
from capsnet_jax.config import Eval
from capsnet_jax.interpret import dead_units
from capsnet_jax.interpret.dead_units import count_dead
from capsnet_jax.interpret.observers import observer
from capsnet_jax.overrides import build, override, resolve
from capsnet_jax.sweeps.records import Run
from capsnet_jax.training.fit import fit
from tests.training.test_step import CLASSES, DATA, TINY, make_examples

EXAMPLES = make_examples(30, 3)  # 1,260 positions of conv1: one is 0.08 % of them
MODEL = models.build(TINY, CLASSES)


@cache
def healthy():
    return jax.jit(lambda key: models.init(MODEL, key, (8, 9, 1)))(jax.random.key(0))[0]


@jax.jit
def outputs(params):
    return models.apply(MODEL, params, {}, jnp.asarray(EXAMPLES.images) / 255)


@cache
def planted():
    """Conv1: channel 1 is dead, channel 2 active at one position; primary: type 0 next to nothing; W: so is class 0."""
    params = jax.tree.map(lambda leaf: leaf, healthy())
    conv1 = params["conv1"]
    raised = conv1 | {"bias": jnp.full(4, 1e3)}
    before = np.sort(np.asarray(outputs(params | {"conv1": raised})["conv1"])[..., 2].ravel()) - 1e3
    conv1 |= {"bias": jnp.array([0.5, -1e3, -before[-2:].mean(), 0.5])}
    params["primary"] |= {
        "kernel": params["primary"]["kernel"] * jnp.repeat(jnp.array([1e-5, 1.0]), 4)[None, None, None]
    }
    weights = params["class_capsules"]["W"]
    params["class_capsules"] |= {"W": weights * jnp.array([1e-3, 300, 300])[None, :, None, None]}
    return params


@cache
def counted():
    """What is counted in the planted net, 7 images at a time, so that the last batch is filled up."""
    run = jax.jit(lambda params, examples: count_dead(TINY, params, {}, examples, CLASSES))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dead_units, "BATCH", 7)
        return {name: float(value) for name, value in run(planted(), jax.device_put(EXAMPLES)).items()}


def looped(params) -> dict[str, float]:
    out = {name: np.asarray(value, np.float64) for name, value in outputs(params).items()}
    active = [np.mean([pixel > 0 for pixel in channel.ravel()]) for channel in out["conv1"].transpose(3, 0, 1, 2)]
    found = {
        "dead_channels_conv1": 100 * np.mean([share == 0 for share in active]),
        "near_dead_channels_conv1": 100 * np.mean([0 < share < 0.001 for share in active]),
    }
    inputs, count = out["couplings"].shape[1:]
    sends, gets = np.zeros(inputs), np.zeros(count)
    for couplings, primary in zip(out["couplings"], out["primary"], strict=True):
        sent = np.array([[c * np.sqrt(np.sum(u**2)) for c in row] for row, u in zip(couplings, primary, strict=True)])
        for i in range(inputs):
            for o in range(count):
                sends[i] += sent[i, o] / sent.sum() / len(EXAMPLES.labels)
                gets[o] += sent[i, o] / sent.sum() / len(EXAMPLES.labels)
    for name, layer, share in (("primary", "primary", sends), ("class", "capsules", gets)):
        longest = np.linalg.norm(out[layer], axis=-1).max(axis=0)
        found[f"dead_{name}_capsules"] = 100 * np.mean(longest <= 0.1)
        found[f"starved_{name}_capsules"] = 100 * np.mean(share < 0.01 / len(share))
    return found


@pytest.mark.slow
def test_is_what_the_loops_say():
    assert counted() == pytest.approx(looped(planted()))


def test_what_was_planted_is_counted():
    found = counted()
    assert found["dead_channels_conv1"] == found["near_dead_channels_conv1"] == 25  # 1 of 4 each
    assert found["dead_primary_capsules"] == found["starved_primary_capsules"] == pytest.approx(50)  # 1 type of 2
    assert found["dead_class_capsules"] == pytest.approx(100 / 3)


def test_many_runs_are_each_of_them():
    assert looped(healthy())["near_dead_channels_conv1"] == looped(healthy())["starved_primary_capsules"] == 0
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), healthy(), planted())
    examples = jax.device_put(EXAMPLES)
    many = jax.jit(jax.vmap(lambda params: count_dead(TINY, params, {}, examples, CLASSES)))(both)
    for number, which in enumerate((healthy, planted)):
        assert {name: float(values[number]) for name, values in many.items()} == pytest.approx(looped(which()))


def test_every_layer_but_scores_and_pictures_is_counted():
    config = build({"model.name": "cnn_small"})
    shapes = models.shapes(config, (28, 28, 1), CLASSES)
    examples = jax.tree.map(lambda leaf: np.zeros((7, 28, 28, 1), np.uint8) if leaf.ndim > 1 else leaf[:7], EXAMPLES)
    found = jax.eval_shape(
        lambda *variables: count_dead(config, *variables, jax.device_put(examples), CLASSES), *shapes
    )
    counted_layers = {name.removeprefix("dead_channels_") for name in found if name.startswith("dead_channels_")}
    assert counted_layers == {"conv1", "conv2", "conv3", "hidden"}
    assert not any("logits" in name or "reconstruction" in name for name in (*found, *counted()))
    assert set(found) == {f"{word}_channels_{layer}" for word in ("dead", "near_dead") for layer in counted_layers}


def test_all_are_not_more_than_all():
    assert jax.jit(dead_units.percentage)(jnp.ones(144, bool)) == 100


def test_nothing_of_no_examples():
    assert count_dead(TINY, healthy(), {}, make_examples(0, 0), CLASSES) == {}


def test_off_observes_nothing_and_names_no_run():
    assert observer(Eval()) is None
    assert len({Run(resolve({"eval.dead": dead}).config, 0).name for dead in (False, True)}) == 1


def test_several_observers_are_one():
    both = observer(Eval(max_routing_iterations=2, dead=True))
    found = jax.eval_shape(lambda params: both(TINY, params, {}, jax.device_put(EXAMPLES), CLASSES), healthy())
    assert {"error_at_2", "dead_capsules", "dead_channels_conv1", "starved_class_capsules"} <= set(found)


@pytest.mark.slow
def test_every_epoch_is_recorded():
    config = override(TINY, {"train.learning_rate": 1.0})
    *_, last = fit([config], [0], DATA, parallel="map", observe_fn=observer(Eval(dead=True)))
    params = jax.tree.map(lambda leaf: leaf[0], last.states.eval_params[0])
    expected = count_dead(config, params, {}, jax.device_put(DATA.validation), CLASSES)
    assert [row["epoch"] for row in last.history] == [1, 2]
    for name, value in expected.items():
        assert last.history[-1][f"validation_{name}"] == [pytest.approx(float(value))]
        assert np.isfinite(last.history[0][f"validation_{name}"]).all()
