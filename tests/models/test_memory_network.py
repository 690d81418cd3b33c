import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import models, overrides
from capsnet_jax.data import Examples, babi
from capsnet_jax.models.memory_network import blurred_ages, hops, word_weights
from capsnet_jax.ops.squash import SQUASHES, Squash, length
from capsnet_jax.routing.dynamic import dynamic_routing, route_by_agreement
from capsnet_jax.training.evaluation import evaluate, make_evaluator
from capsnet_jax.training.parallel import stack
from tests.models.random_params import random_params

STORY = [
    babi.Question(
        [["mary", "went", "to", "the", "garden"], ["john", "took", "the", "milk", "there"]],
        ["where", "is", "mary"],
        "garden",
    ),
    babi.Question(
        [["daniel", "moved", "to", "the", "office"]] * 3,
        ["where", "was", "the", "milk", "before", "the", "office"],
        "kitchen",
    ),
]
IMAGES = jnp.asarray(babi.encode(STORY).images) / 255


def build(**changes):
    settings = {f"model.{name}": value for name, value in changes.items()}
    return models.build(overrides.build({"model.name": "memory_network"} | settings), 6)


def loop_answers(params, question, *, tying, hop_count, positions=True, questions="one", over="memories", linear=False):
    """The paper's sections 2 to 4 in plain loops, of one example; returns logits and the shares of each hop."""
    words, ages = (np.float64(params[name]["embedding"]) for name in ("words", "ages"))
    numbers = {word: n for n, word in enumerate(babi.VOCABULARY)}
    dim = words.shape[-1]

    def embed(table, sentence):
        total = np.zeros(dim)
        for j, word in enumerate(sentence, 1):
            for k in range(1, dim + 1):
                weight = (1 - j / len(sentence)) - k / dim * (1 - 2 * j / len(sentence)) if positions else 1
                total[k - 1] += weight * table[numbers[word], k - 1]
        return total

    newest_first = question.sentences[::-1]
    adjacent = tying == "adjacent"
    answers = words[-1][1:7]
    asked = [embed(words[0], question.words)]
    if questions == "answers":
        asked = [asked[0] + answer for answer in answers]
    shares_of_hops = []
    for hop in range(hop_count):
        key, value = (hop, hop + 1) if adjacent else (0, 1)
        table = (lambda which: words[which]) if adjacent else (lambda which: words[which + 1])
        keys = [embed(table(key), s) + ages[key][age] for age, s in enumerate(newest_first)]
        values = [embed(table(value), s) + ages[value][age] for age, s in enumerate(newest_first)]
        scores = np.array([[m @ u for u in asked] for m in keys])
        axis = 0 if over == "memories" else 1
        shares = np.exp(scores) / np.exp(scores).sum(axis=axis, keepdims=True)
        shares = scores if linear else shares
        matrix = np.eye(dim) if adjacent else np.float64(params["H"]["embedding"][0])
        read = [sum(shares[i, q] * values[i] for i in range(len(values))) for q in range(len(asked))]
        asked = [matrix @ u + o for u, o in zip(asked, read, strict=True)]
        shares_of_hops.append(shares)
    if questions == "answers":
        return np.array([a @ u for a, u in zip(answers, asked, strict=True)]), shares_of_hops
    return answers @ asked[0], shares_of_hops


def test_it_is_evaluated_as_far_as_its_training_is():
    """Half the training is linear here; without a word of it, a net is evaluated as at the end."""
    half, always = build(linear_start=0.5), build(linear_start=1.0)
    params = random_params(half, (51, 7, 1))
    examples = Examples(jnp.asarray(babi.encode(STORY).images), jnp.array([2, 4], jnp.int32))
    settings = [overrides.build({"model.name": "memory_network", "model.linear_start": s}) for s in (0.5, 1.0)]
    ends = [evaluate(each, params, examples, classes=6) for each in settings]
    evaluator = make_evaluator(6, "map")
    one = stack(settings[:1]), jax.tree.map(lambda leaf: leaf[None], params), {}, examples, examples
    for progress, expected in ((0.4, ends[1]), (0.5, ends[0])):
        found, _ = evaluator(*one, np.float32(progress))
        assert float(found["loss"][0]) == pytest.approx(float(expected["loss"]), rel=1e-5)
    assert abs(float(ends[0]["loss"] - ends[1]["loss"])) > 1e-3
    at_the_end = models.apply(always, params, {}, IMAGES)["logits"]
    np.testing.assert_array_equal(at_the_end, models.apply(half, params, {}, IMAGES, progress=0.1)["logits"])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tying": "layerwise"},
        {"hops": 1, "positions": False},
        {"questions": "answers"},
        {"questions": "answers", "softmax_over": "answers", "tying": "layerwise", "hops": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("linear", [False, True])
def test_a_memory_network_is_the_loops(changes, linear):
    model = build(**changes)
    params = random_params(model, (51, 7, 1))
    progress = 0.1 if linear else 0.2  # a linear start ends at 0.2
    out = jax.jit(lambda p: model.apply({"params": p}, IMAGES, progress=progress))(params)
    names = {"hops": "hop_count", "softmax_over": "over"}
    given = {"tying": "adjacent", "hop_count": 3} | {names.get(k, k): v for k, v in changes.items()}
    for example, question in enumerate(STORY):
        logits, shares = loop_answers(params, question, linear=linear, **given)
        np.testing.assert_allclose(out["logits"][example], logits, rtol=1e-4, atol=1e-4)
        for hop, expected in enumerate(shares):
            got = np.asarray(out["attention"][example, hop]).reshape(50, -1)
            np.testing.assert_allclose(got[: len(expected)], expected, rtol=1e-3, atol=1e-5)
            assert not got[len(expected) :].any()


def test_words_weigh_as_published():
    weights = word_weights(jnp.array([3, 9, 4, 0]), 2)  # three words
    # l_kj = (1 − j/3) − (k/2)(1 − 2j/3)
    expected = [[(1 - j / 3) - k / 2 * (1 - 2 * j / 3) for k in (1, 2)] for j in (1, 2, 3)]
    np.testing.assert_allclose(weights[:3], expected, rtol=1e-6)


@pytest.mark.parametrize("squash", ["identity", "sabour"])
@pytest.mark.parametrize("over", ["inputs", "parents"])
def test_hops_are_routing_by_agreement(squash, over):
    """With layer-wise tying and H = I, keys and values the votes, a question of each parent that starts at 0.

    What is shared differs: memories share a question, parents an input. With that axis exchanged and no squash, routing
    is a memory network; with routing's axis and squash, a memory network is routing.
    """
    votes = jax.random.normal(jax.random.key(0), (7, 4, 5))
    identity = Squash(lambda s, axis: s, activation=length)
    chosen = identity if squash == "identity" else SQUASHES["sabour"]
    axis = 0 if over == "inputs" else 1
    share = lambda scores: jax.nn.softmax(scores, axis=axis)  # noqa: E731
    summed, steps = hops(jnp.zeros((4, 5)), [(votes, votes)] * 3, share, read=chosen)
    routed = route_by_agreement(votes, share, None, iterations=3, gradient="full", squash=chosen, trace=True)
    for hop, step in enumerate(steps):
        np.testing.assert_allclose(step.read, routed.trace.capsules[hop], atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(step.shares, routed.trace.couplings[hop], atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(step.scores, routed.trace.logits[hop], atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(summed, jnp.sum(routed.trace.capsules, axis=0), atol=1e-5, rtol=1e-5)
    if squash == "sabour":
        router = dynamic_routing(votes, iterations=3, softmax_over=over)
        np.testing.assert_allclose(router.capsules, steps[-1].read, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_ages_are_blurred_upwards_in_their_order():
    there = jnp.arange(50)[None] < jnp.full((400, 1), 20)
    ages = np.asarray(blurred_ages(jax.random.key(0), there, 0.1))[:, :20]
    assert (np.diff(ages, axis=1) >= 1).all()
    assert (ages >= np.arange(20)).all()
    assert (ages <= np.arange(20) + 2).all()  # ⌈0.1 · 20⌉ others
    # A third of the stories have no others, a third one, in any of 21 places, a third two.
    assert np.mean(ages[:, 0]) == pytest.approx((1 / 21 + 2 / 21) / 3, abs=0.03)
    assert np.mean(ages[:, -1]) == pytest.approx(19 + (20 / 21 + 40 / 21 * 0.99) / 3, abs=0.1)
    full = np.asarray(blurred_ages(jax.random.key(0), jnp.ones((9, 50), bool), 0.1))
    assert full.max() <= 49


@pytest.mark.slow
def test_training_blurs_ages_and_evaluation_does_not():
    model = build()
    params = random_params(model, (51, 7, 1))
    images = jnp.asarray(babi.encode(STORY[1:] * 40).images) / 255

    def trained(seed):
        return models.apply_in_training(model, params, {}, images, jnp.eye(6)[:1], dropout=jax.random.key(seed))[0]

    assert jnp.ptp(trained(0)["logits"], axis=0).max() > 0
    assert jnp.ptp(models.apply(model, params, {}, images)["logits"], axis=0).max() < 1e-5
    assert math.isclose(float(models.apply(model, params, {}, images)["attention"][0, 0].sum()), 1, rel_tol=1e-5)
