import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import config, overrides
from capsnet_jax.training.schedule import ema_weight, learning_rate


def rates(steps, total=1000, **settings) -> list[float]:
    chosen = config.Train(**settings)
    return [float(learning_rate(chosen, jnp.int32(step), total)) for step in steps]


def test_exponential_schedule():
    # 0.96 every 2000 steps, smoothly between, and the least rate of 1e-6 from step 338,000 on (log 1e-3 / log 0.96).
    got = rates([0, 1000, 2000, 20_000, 300_000, 340_000, 10**6])
    wanted = [1e-3 * 0.96**power for power in (0, 0.5, 1, 10, 150)] + [1e-6, 1e-6]
    np.testing.assert_allclose(got, wanted, rtol=1e-4)


def test_a_shorter_training_falls_as_far_as_the_released_300_000_steps():
    whole = rates([0, 75_000, 299_999])
    np.testing.assert_allclose(rates([0, 250, 1000], total=1000, decay_steps=0.0), whole, rtol=1e-3)
    assert whole[-1] == pytest.approx(2.19e-6, rel=1e-2)


def test_cosine_schedule():
    got = rates([0, 250, 500, 750, 1000, 2000], schedule="cosine", learning_rate=0.5, min_learning_rate=0.0)
    high, low = 0.25 * (1 + 0.5**0.5), 0.25 * (1 - 0.5**0.5)  # at a quarter and three quarters
    np.testing.assert_allclose(got, [0.5, high, 0.25, low, 0, 0], atol=1e-7)
    assert rates([1000], schedule="cosine", min_learning_rate=1e-4)[0] == pytest.approx(1e-4)


def test_halving_schedule():
    got = rates([0, 249, 250, 500, 750, 999], schedule="halving", learning_rate=0.32)
    np.testing.assert_allclose(got, [0.32, 0.32, 0.16, 0.08, 0.04, 0.04])


@pytest.mark.parametrize("schedule", ["exponential", "cosine"])
def test_warm_up_is_linear_from_the_first_step(schedule):
    settings = {"schedule": schedule, "decay_rate": 1.0, "learning_rate": 1.0, "warmup": 0.1}
    np.testing.assert_allclose(rates([0, 49, 99], **settings), [0.01, 0.5, 1], rtol=1e-6)
    assert rates([100], **settings)[0] == pytest.approx(1)
    if schedule == "cosine":  # over the 900 steps that are left
        np.testing.assert_allclose(rates([550, 1000], **settings), [0.5, 1e-6], rtol=1e-4)


@pytest.mark.parametrize("total", [1, 3, 10])
def test_short_runs_learn_at_a_finite_positive_rate(total):
    for preset in config.PRESETS.values():
        chosen = overrides.build(preset).train
        got = [float(learning_rate(chosen, jnp.int32(step), total)) for step in range(total)]
        assert np.isfinite(got).all()
        assert max(got) >= chosen.learning_rate / 2


@pytest.mark.parametrize(("epochs", "span"), [(0.05, 1), (0.5, 4), (9, 72)])
def test_weights_are_of_a_mean_at_first_and_exponential_after_its_span(epochs, span):
    chosen = config.Train(ema_epochs=epochs, epochs=2)
    got = [float(ema_weight(chosen, jnp.int32(step), 16)) for step in range(16)]
    np.testing.assert_allclose(got, [1 / min(step + 1, span) for step in range(16)], rtol=1e-6)
