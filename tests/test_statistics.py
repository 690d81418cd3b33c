import math

import numpy as np
import pytest
from scipy import stats

from capsnet_jax.statistics import (
    Estimate,
    binomial_half_width,
    describe,
    mean_interval,
    paired_difference,
)


def test_mean_interval_by_hand():
    # 1, 2, 3: mean 2, std 1; t(0.975; 2) = 4.303 from a table; 4.303 / sqrt(3) = 2.484.
    estimate = mean_interval([1.0, 2.0, 3.0])
    assert (estimate.n, estimate.mean, estimate.std) == (3, 2.0, 1.0)
    assert estimate.half_width == pytest.approx(2.484, abs=1e-3)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize("n", [2, 5, 40])
def test_mean_interval_is_scipys(n, level):
    values = np.random.default_rng(n).normal(3, 2, n)
    estimate = mean_interval(values, level)
    low, high = stats.t.interval(level, n - 1, values.mean(), stats.sem(values))
    np.testing.assert_allclose([estimate.mean - estimate.half_width, estimate.mean + estimate.half_width], [low, high])


def test_interval_covers_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(0, 1, (4000, 5))
    estimates = [mean_interval(row, 0.9) for row in draws]
    covered = np.mean([abs(estimate.mean) <= estimate.half_width for estimate in estimates])
    assert covered == pytest.approx(0.9, abs=4 * math.sqrt(0.9 * 0.1 / 4000))


def test_one_value_has_a_mean_and_no_interval():
    estimate = mean_interval([0.25])
    assert (estimate.n, estimate.mean) == (1, 0.25)
    assert math.isnan(estimate.std)
    assert math.isnan(estimate.half_width)


def test_no_value_has_nothing():
    estimate = mean_interval([])
    assert estimate.n == 0
    assert math.isnan(estimate.mean)


def test_values_that_are_not_finite_are_left_out_and_not_counted():
    assert mean_interval([1.0, np.nan, 3.0, np.inf, 2.0]) == mean_interval([1.0, 3.0, 2.0])
    assert mean_interval([np.nan, np.nan]).n == 0


@pytest.mark.parametrize("level", [0.0, 1.0, 95, -0.1])
def test_level_is_a_fraction(level):
    with pytest.raises(ValueError, match="between 0 and 1"):
        mean_interval([1.0, 2.0], level)


def test_paired_difference_is_scipys():
    rng = np.random.default_rng(1)
    a = rng.normal(1, 1, 6)
    b = a + rng.normal(0.2, 0.3, 6)
    difference = paired_difference(a, b, 0.9)
    expected = stats.ttest_rel(a, b)
    low, high = expected.confidence_interval(0.9)
    assert difference.n == 6
    assert difference.mean == pytest.approx((low + high) / 2)
    assert difference.half_width == pytest.approx((high - low) / 2)
    assert difference.p_value == pytest.approx(expected.pvalue)


def test_pairing_sees_what_the_seeds_hide():
    seeds = np.array([0.0, 10.0, 20.0, 30.0])
    jitter = np.array([0.01, -0.01, 0.02, -0.02])
    assert paired_difference(seeds + 0.5 + jitter, seeds).p_value < 1e-3
    assert stats.ttest_ind(seeds + 0.5 + jitter, seeds).pvalue > 0.9


@pytest.mark.parametrize(("shift", "p_value"), [(0.0, 1.0), (0.5, 0.0)])
def test_paired_difference_without_spread(shift, p_value):
    values = np.array([1.0, 2.0, 4.0])
    difference = paired_difference(values + shift, values)
    assert (difference.mean, difference.half_width, difference.p_value) == (shift, 0.0, p_value)


def test_paired_difference_drops_broken_pairs_and_needs_two():
    difference = paired_difference([1.0, np.nan, 3.0], [0.5, 1.0, np.inf])
    assert (difference.n, difference.mean) == (1, 0.5)
    assert math.isnan(difference.half_width)
    assert math.isnan(difference.p_value)


def test_paired_difference_refuses_unequal_lengths():
    with pytest.raises(ValueError, match="got 3 and 2"):
        paired_difference([1, 2, 3], [1, 2])


@pytest.mark.parametrize(("wrong", "n"), [(0, 100), (76, 1000), (760, 10_000), (10, 10)])
def test_binomial_half_width_is_wilsons(wrong, n):
    interval = stats.binomtest(wrong, n).proportion_ci(0.95, method="wilson")
    assert binomial_half_width(100 * wrong / n, n) == pytest.approx(50 * (interval.high - interval.low))


def test_binomial_half_width_by_hand():
    # sqrt(.076 × .924 / 10000) = 0.265 points is one standard error; 1.96 of them are 0.519.
    assert binomial_half_width(7.6, 10_000) == pytest.approx(0.519, abs=1e-3)


@pytest.mark.parametrize(("error", "n"), [(-1, 10), (101, 10), (5, 0), (math.nan, 10)])
def test_binomial_half_width_refuses_nonsense(error, n):
    with pytest.raises(ValueError, match="need n >= 1"):
        binomial_half_width(error, n)


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(5, 0.534, 0.05, 0.0621), "0.53 ± 0.06 (n = 5)"),
        (Estimate(1, 0.534, math.nan, math.nan), "0.53 (n = 1)"),
        (Estimate(0, math.nan, math.nan, math.nan), "no finite value (n = 0)"),
    ],
)
def test_describe(estimate, text):
    assert describe(estimate) == text


def test_describe_digits():
    assert describe(Estimate(3, 0.53, 0.1, 0.0621), digits=3) == "0.530 ± 0.062 (n = 3)"
