import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import overrides
from capsnet_jax.data.augment import to_targets
from capsnet_jax.losses import (
    LOSSES,
    Loss,
    cross_entropy,
    error,
    margin_loss,
    spread,
    spread_margin,
    squared_error,
    top5_error,
    total_loss,
)

MARGIN = overrides.build({})
CROSS_ENTROPY = overrides.build({"loss.name": "cross_entropy"})


def loop_margin(lengths, present, m_plus=0.9, m_minus=0.1, down_weight=0.5) -> float:
    """Equation 4 of Sabour 2017, class by class."""
    loss = 0.0
    for length, is_there in zip(np.float64(lengths), present, strict=True):
        if is_there:
            loss += max(0.0, m_plus - length) ** 2
        else:
            loss += down_weight * max(0.0, length - m_minus) ** 2
    return loss


def test_margin_loss_hand_worked():
    # Present 0.5: (0.9 − 0.5)² = 0.16. Absent 0.3: 0.5 · 0.2² = 0.02. Absent 0.05: nothing.
    loss = margin_loss(jnp.array([0.5, 0.3, 0.05]), jnp.array([1.0, 0, 0]))
    assert float(loss) == pytest.approx(0.18, rel=1e-6)


@pytest.mark.parametrize("lengths", [[0.95, 0.05, 0.0], [0.9, 0.1, 0.1]])
def test_nothing_to_pay_outside_the_margins(lengths):
    assert float(margin_loss(jnp.array(lengths), jnp.array([1.0, 0, 0]))) == 0


@pytest.mark.parametrize("present", [[], [3], [0, 4], [0, 1, 2, 3, 4]])
def test_margin_loss_is_the_loop(present):
    one_hot = jnp.zeros(5).at[jnp.array(present, int)].set(1)
    settings = {"m_plus": 0.8, "m_minus": 0.15, "down_weight": 0.25}
    for lengths in jax.random.uniform(jax.random.key(0), (8, 5)):
        for chosen in ({}, settings):
            got = float(margin_loss(lengths, one_hot, **chosen))
            assert got == pytest.approx(loop_margin(lengths, one_hot, **chosen), rel=1e-5, abs=1e-7)


def test_margin_loss_pulls_present_up_and_absent_down():
    slope = jax.jit(jax.grad(margin_loss))(jnp.array([0.4, 0.4, 0.0, 0.95]), jnp.array([1.0, 0, 0, 1]))
    # −2 (0.9 − 0.4) and 2 · 0.5 (0.4 − 0.1); nothing where the margins hold.
    np.testing.assert_allclose(slope, [-1.0, 0.3, 0, 0], rtol=1e-6)


def test_spread_loss_hand_worked():
    # In the first step m = 0.2 + 0.79 / (1 + e⁴). Class 0 is present: 0.5 − 0.45 is too little, 0.5 − 0.1 is not.
    margin = 0.2 + 0.79 / (1 + np.exp(4))
    loss = spread(jnp.array([0.5, 0.45, 0.1]), jnp.array([1.0, 0, 0]), step=0)
    assert float(loss) == pytest.approx((margin - 0.05) ** 2, rel=1e-5)
    final = 0.2 + 0.79 / (1 + np.exp(-10))  # in evaluation
    loss = spread(jnp.array([0.5, 0.45, 0.1]), jnp.array([1.0, 0, 0]))
    assert float(loss) == pytest.approx((final - 0.05) ** 2 + (final - 0.4) ** 2, rel=1e-5)


def test_the_margin_of_spread_loss_grows_in_the_steps_that_are_asked_for():
    """Half-way, after four times as many steps as `margin_steps`, it is 0.2 + 0.79 / 2 = 0.595."""
    loss = spread(jnp.array([0.5, 0.45]), jnp.array([1.0, 0]), step=200, margin_steps=50.0)
    assert float(loss) == pytest.approx((0.595 - 0.05) ** 2, rel=1e-5)


def test_spread_loss_sets_every_present_class_against_every_absent_one():
    lengths, present = np.array([0.6, 0.5, 0.4, 0.7]), np.array([1, 1, 0, 0])
    pairs = [(t, i) for t in (0, 1) for i in (2, 3)]
    margin = 0.2 + 0.79 / (1 + np.exp(-10))
    expected = sum(max(0, margin - (lengths[t] - lengths[i])) ** 2 for t, i in pairs)
    assert float(spread(jnp.asarray(lengths, jnp.float32), jnp.asarray(present, jnp.float32))) == pytest.approx(
        expected, rel=1e-5
    )
    assert float(spread(jnp.asarray(lengths, jnp.float32), jnp.zeros(4))) == 0


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.214209), (200_000, 0.595), (400_000, 0.975791), (700_000, 0.989964), (1e9, 0.989964)]
)
def test_the_margin_of_the_spread_loss_grows(step, expected):
    assert float(spread_margin(jnp.float32(step), 50_000.0)) == pytest.approx(expected, abs=1e-6)


def test_a_loss_that_names_them_gets_the_step_and_the_total(batch, monkeypatch):
    def progress(lengths, targets, *, step, total):
        return jnp.float32(-1 if step is None else step / total) + 0 * jnp.sum(lengths * targets)

    monkeypatch.setitem(LOSSES, "progress", Loss(progress, "lengths"))
    settings = overrides.build({"loss.name": "progress", "loss.reconstruction": False})
    out, images, targets = batch
    for more, expected in (({}, -1), ({"step": jnp.int32(3), "total": 12}, 0.25)):
        assert float(total_loss({"lengths": out["lengths"]}, images, targets, settings, **more)[0]) == expected


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_cross_entropy_is_log_sum_exp(scale):
    logits = scale * np.random.default_rng(0).standard_normal(6).astype(np.float32)
    exact = np.float64(logits)
    top = exact.max()
    expected = top + np.log(np.sum(np.exp(exact - top))) - exact[2]
    got = cross_entropy(jnp.asarray(logits), jnp.eye(6)[2])
    assert float(got) == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_of_ignorance():
    assert float(cross_entropy(jnp.zeros(10), jnp.eye(10)[7])) == pytest.approx(np.log(10), rel=1e-6)


def test_squared_error_is_a_sum():
    image, other = jnp.zeros((2, 3, 1)), jnp.full((2, 3, 1), 0.5)
    assert float(squared_error(image, other)) == 6 * 0.25


LABELS = jnp.array([3, 1, 4, 1], jnp.int32)


@pytest.fixture
def batch():
    """Outputs, images and targets of four examples with ten classes."""
    generator = np.random.default_rng(0)
    images, rebuilt = (jnp.asarray(generator.random((4, 3, 2, 2)), jnp.float32) for _ in range(2))
    out = {"lengths": jnp.asarray(generator.random((4, 10)), jnp.float32), "reconstruction": rebuilt}
    return out, images, to_targets(LABELS, 10)


def test_total_loss_in_the_papers_form(batch):
    out, images, targets = batch
    own = {"reconstruction_weight": 0.01, "m_plus": 0.8, "m_minus": 0.2, "down_weight": 0.3}
    settings = overrides.build({f"loss.{name}": value for name, value in own.items()})
    loss, parts = total_loss(out, images, targets, settings)
    margins = [
        loop_margin(lengths, np.arange(10) == label, 0.8, 0.2, 0.3)
        for lengths, label in zip(out["lengths"], LABELS, strict=True)
    ]
    difference = np.float64(images) - np.float64(out["reconstruction"])
    sums = (difference**2).reshape(4, -1).sum(axis=1)
    np.testing.assert_allclose(parts["classification_loss"], margins, rtol=1e-5)
    np.testing.assert_allclose(parts["reconstruction_mse"], sums / 12, rtol=1e-5)
    np.testing.assert_allclose(parts["loss"], margins + 0.01 * sums, rtol=1e-5)
    assert float(loss) == pytest.approx(np.mean(margins + 0.01 * sums), rel=1e-5)


def test_official_form_is_a_twentieth_of_the_margins_and_the_same_reconstruction(batch):
    paper_loss, paper = total_loss(*batch, MARGIN)
    official_loss, official = total_loss(*batch, overrides.build({"loss.form": "official"}))
    np.testing.assert_allclose(official["classification_loss"], paper["classification_loss"] / 20, rtol=1e-6)
    np.testing.assert_array_equal(official["reconstruction_mse"], paper["reconstruction_mse"])
    reconstruction = 0.0005 * 12 * float(jnp.mean(paper["reconstruction_mse"]))
    assert float(official_loss) - reconstruction == pytest.approx((float(paper_loss) - reconstruction) / 20, rel=1e-5)


def test_without_a_reconstruction_the_loss_is_the_margins(batch):
    out, images, targets = batch
    loss, parts = total_loss({"lengths": out["lengths"]}, images, targets, MARGIN)
    assert not parts["reconstruction_mse"].any()
    np.testing.assert_array_equal(parts["loss"], parts["classification_loss"])
    assert float(loss) == pytest.approx(float(jnp.mean(parts["classification_loss"])), rel=1e-6)


def test_without_a_decoder_a_reconstruction_costs_nothing(batch):
    out, images, targets = batch
    no_decoder = overrides.build({"model.name": "resnet8", "loss.name": "margin"})
    assert no_decoder.reconstruction is None
    _, parts = total_loss(out, images, targets, no_decoder)
    np.testing.assert_array_equal(parts["loss"], parts["classification_loss"])


def test_logits_by_cross_entropy(batch):
    out, images, targets = batch
    logits = 5 * out["lengths"]
    loss, parts = total_loss({"logits": logits}, images, targets, CROSS_ENTROPY)
    exact = np.float64(logits)
    expected = [np.log(np.exp(row).sum()) - row[k] for row, k in zip(exact, LABELS, strict=True)]
    np.testing.assert_allclose(parts["loss"], expected, rtol=1e-5)
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.parametrize("form", ["paper", "official"])
def test_logits_by_margins_are_the_margins_of_their_sigmoids(batch, form):
    out, images, targets = batch
    logits = 5 * out["lengths"] - 2
    _, parts = total_loss({"logits": logits}, images, targets, overrides.build({"loss.form": form}))
    sigmoids = 1 / (1 + np.exp(-np.float64(logits)))
    margins = [loop_margin(row, np.arange(10) == label) for row, label in zip(sigmoids, LABELS, strict=True)]
    np.testing.assert_allclose(parts["loss"], np.array(margins) / (20 if form == "official" else 1), rtol=1e-5)


def test_lengths_by_cross_entropy_are_those_of_the_logits_that_they_are_sigmoids_of(batch):
    out, images, targets = batch
    _, parts = total_loss({"lengths": out["lengths"]}, images, targets, CROSS_ENTROPY)
    exact = np.float64(out["lengths"])
    logits = np.log(exact / (1 - exact))
    expected = [np.log(np.exp(row).sum()) - row[k] for row, k in zip(logits, LABELS, strict=True)]
    np.testing.assert_allclose(parts["classification_loss"], expected, rtol=1e-4)


def test_a_capsule_of_no_length_is_made_longer_by_cross_entropy():
    """Of three lengths of 0 the softmax is a third each, and a logit's slope there is 1 / 1e-6 + 1."""
    images, targets = jnp.zeros((1, 1, 1, 1)), jnp.array([[1.0, 0, 0]])
    loss = lambda lengths: total_loss({"lengths": lengths}, images, targets, CROSS_ENTROPY)[0]  # noqa: E731
    expected = 1e6 * np.array([[-2, 1, 1]]) / 3
    np.testing.assert_allclose(jax.grad(loss)(jnp.zeros((1, 3))), expected, rtol=1e-4)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scores", ["lengths", "logits"])
def test_every_loss_is_finite_with_its_gradient_at_the_ends_of_scores(name, scores):
    ends = jnp.array(
        [[0.0, 1.0, 0.5], [1.0, 0.0, 0.0]] if scores == "lengths" else [[0.0, 80.0, -80.0], [1e4, 0.0, 0.0]]
    )
    targets = jnp.array([[1.0, 0, 0], [0, 1, 0]])
    settings = overrides.build({"loss.name": name})
    value = jax.jit(
        jax.value_and_grad(lambda s: total_loss({scores: s}, jnp.zeros((2, 1, 1, 1)), targets, settings)[0])
    )
    for leaf in value(ends):
        assert jnp.isfinite(leaf).all()


TWO = np.array([[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]])


def test_several_classes_share_the_cross_entropy():
    logits = np.random.default_rng(2).standard_normal((3, 4))
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = [-(logs[0, 0] + logs[0, 1]) / 2, -(logs[1, 1] + logs[1, 3]) / 2, 0.0]  # no class: nothing to say
    got = jax.vmap(cross_entropy)(jnp.asarray(logits, jnp.float32), jnp.asarray(TWO, jnp.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def loop_error(scores, present) -> int:
    """The classes of highest score are taken, as many as are present, of equal ones the first."""
    order = sorted(range(len(scores)), key=lambda k: (-scores[k], k))
    return int(set(order[: sum(present)]) != {k for k, there in enumerate(present) if there})


def test_error_of_several_classes_is_the_loop():
    """Whole numbers: many are tied. No, one, two and all classes are present."""
    generator = np.random.default_rng(4)
    scores = generator.integers(0, 4, (200, 4)).astype(np.float32)
    targets = np.array([np.roll(np.arange(4) < n % 5, n) for n in range(200)], np.float32)
    got = jax.jit(jax.vmap(error))(jnp.asarray(scores), jnp.asarray(targets))
    expected = [
        loop_error(row.tolist(), row_of.astype(int).tolist()) for row, row_of in zip(scores, targets, strict=True)
    ]
    assert 0 < sum(expected) < 200
    assert got.tolist() == expected


def test_top5_error_of_several_classes_wants_all_of_them_among_the_five():
    scores = jnp.arange(12.0)[::-1]
    targets = jnp.zeros((3, 12)).at[[0, 0, 1, 1, 2], [0, 4, 0, 5, 11]].set(1)
    assert [float(top5_error(scores, row)) for row in targets] == [0, 1, 1]


def test_error_is_one_where_the_highest_score_is_of_another_class():
    lengths = jnp.array([[0.1, 0.9, 0.2], [0.8, 0.1, 0.2], [0.3, 0.2, 0.1], [0.1, 0.2, 0.3]])
    images = jnp.zeros((4, 1, 1, 1))
    targets = to_targets(jnp.array([1, 2, 0, 1], jnp.int32), 3)
    _, parts = total_loss({"lengths": lengths}, images, targets, MARGIN)
    assert parts["error"].tolist() == [0, 1, 0, 1]


def loop_top5_error(scores, label) -> int:
    """Five times over, the greatest score that is left is taken, of equal ones the first."""
    left = list(enumerate(scores))
    for _ in range(5):
        best = max(left, key=lambda pair: (pair[1], -pair[0]))
        if best[0] == label:
            return 0
        left.remove(best)
    return 1


@pytest.mark.parametrize("name", ["lengths", "logits"])
def test_top5_error_is_one_where_five_other_classes_come_before(name):
    """Whole numbers from 0 to 4: of eleven classes many are tied, also across the fifth place."""
    scores = np.random.default_rng(3).integers(0, 5, (300, 11)).astype(np.float32)
    labels = jnp.arange(300, dtype=jnp.int32) % 11
    expected = [loop_top5_error(row.tolist(), label) for row, label in zip(scores, labels.tolist(), strict=True)]
    assert 0 < sum(expected) < 300
    _, parts = total_loss({name: jnp.asarray(scores)}, jnp.zeros((300, 1, 1, 1)), to_targets(labels, 11), MARGIN)
    assert parts["top5_error"].tolist() == expected
    # By the same order of equal scores, who is first is among the first five.
    assert all(np.asarray(parts["error"]) >= np.asarray(parts["top5_error"]))


def test_ten_classes_have_no_top5_error(batch):
    assert set(total_loss(*batch, MARGIN)[1]) == {"loss", "classification_loss", "reconstruction_mse", "error"}


def test_gradient_is_finite_at_zero_lengths_and_pixels(batch):
    _, images, targets = batch

    def loss(lengths, rebuilt):
        out = {"lengths": lengths, "reconstruction": rebuilt}
        return total_loss(out, jnp.zeros_like(images), targets, MARGIN)[0]

    for slope in jax.jit(jax.grad(loss, (0, 1)))(jnp.zeros((4, 10)), jnp.zeros_like(images)):
        assert jnp.isfinite(slope).all()


def test_settings_may_be_traced(batch):
    def loss(weight):
        part = dataclasses.replace(MARGIN.reconstruction, reconstruction_weight=weight)
        return total_loss(*batch, dataclasses.replace(MARGIN, reconstruction=part))[0]

    weights = jnp.array([0.0, 0.001, 0.1])
    together = jax.jit(jax.vmap(loss))(weights)
    np.testing.assert_allclose(together, [loss(float(weight)) for weight in weights], rtol=1e-6)
