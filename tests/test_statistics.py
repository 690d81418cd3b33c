import itertools
import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
from scipy import stats

from capsnet_jax.statistics import (
    PERCENT,
    Estimate,
    McNemar,
    cut_label,
    describe,
    holm,
    is_cut,
    mcnemar,
    mean_interval,
    paired_difference,
    wilson_interval,
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


@pytest.mark.parametrize(("shift", "p_value"), [(0.0, 1.0), (0.5, math.nan)])
def test_paired_difference_without_spread(shift, p_value):
    values = np.array([1.0, 2.0, 4.0])
    difference = paired_difference(values + shift, values)
    assert (difference.mean, difference.half_width) == (shift, 0.0)
    assert difference.p_value == pytest.approx(p_value, nan_ok=True)


def test_differences_that_are_equal_but_for_rounding_have_no_spread():
    errors = np.array([0.53, 0.61, 0.47, 1.02])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        higher = paired_difference(errors + 0.1, errors)
        equal = paired_difference(errors * (1 + 1e-16 * np.array([1, -2, 0, 3])), errors)
    assert higher.mean == pytest.approx(0.1)
    assert higher.half_width == 0
    assert math.isnan(higher.p_value)
    assert (equal.half_width, equal.p_value) == (0.0, 1.0)


def test_exchanging_the_two_changes_the_sign_alone():
    a, b = np.random.default_rng(3).normal(size=(2, 7))
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert (one.mean, one.half_width) == pytest.approx((-other.mean, other.half_width))
    assert one.p_value == pytest.approx(other.p_value)


def test_paired_difference_drops_broken_pairs_and_needs_two():
    difference = paired_difference([1.0, np.nan, 3.0], [0.5, 1.0, np.inf])
    assert (difference.n, difference.mean) == (1, 0.5)
    assert math.isnan(difference.half_width)
    assert math.isnan(difference.p_value)


def test_paired_difference_refuses_unequal_lengths():
    with pytest.raises(ValueError, match="got 3 and 2"):
        paired_difference([1, 2, 3], [1, 2])


def test_holm_by_hand():
    # In order 0.01, 0.02, 0.03, 0.04: 4 x 0.01 = 0.04; 3 x 0.02 = 0.06; 2 x 0.03 = 0.06; 0.04 is less than 0.06.
    np.testing.assert_allclose(holm([0.03, 0.01, 0.04, 0.02]), [0.06, 0.04, 0.06, 0.06])
    # 3 x 0.2 = 0.6; 2 x 0.7 is more than 1.
    np.testing.assert_allclose(holm([0.7, 0.2, 0.8]), [1, 0.6, 1])


def test_holm_of_one_or_none_is_the_same():
    assert holm([0.03]).tolist() == [0.03]
    assert holm([]).tolist() == []


def test_holm_does_not_count_comparisons_that_could_not_be_made():
    adjusted = holm([math.nan, 0.01, math.nan, 0.04])
    np.testing.assert_allclose(adjusted, [math.nan, 0.02, math.nan, 0.04])
    assert np.isnan(holm([math.nan, math.nan])).all()


def test_holm_rejects_what_the_step_down_procedure_rejects():
    """The slow way: take p values from the smallest on, until the first that is above level / (those left)."""
    generator = np.random.default_rng(0)
    for level, _ in itertools.product((0.01, 0.05, 0.2), range(50)):
        p = generator.uniform(size=generator.integers(1, 12)) ** 4
        rejected = np.zeros(p.size, bool)
        for rank, i in enumerate(np.argsort(p)):
            if p[i] > level / (p.size - rank):
                break
            rejected[i] = True
        np.testing.assert_array_equal(holm(p) <= level, rejected)


def test_holm_keeps_order_and_lies_between_p_and_bonferroni():
    p = np.random.default_rng(1).uniform(size=9)
    p[4] = p[2]
    adjusted = holm(p)
    assert np.all(np.diff(adjusted[np.argsort(p)]) >= 0)
    assert np.all(adjusted >= p)
    assert np.all(adjusted <= np.minimum(1, p * p.size))
    assert adjusted[4] == adjusted[2]
    order = np.random.default_rng(2).permutation(p.size)
    np.testing.assert_array_equal(holm(p[order]), adjusted[order])


def wrong_images(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    return a, np.repeat([True, False, True, False], [both, only_a, only_b, neither])


def test_mcnemar_by_hand():
    # Of 6 images that tell the nets apart, 1 is a's: p = 2 x (1 + 6) / 64.
    assert mcnemar(*wrong_images(3, 1, 5, 91)) == McNemar(1, 5, pytest.approx(14 / 64))


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 3), (7, 2), (40, 61), (5, 5)])
def test_mcnemar_sums_the_tails(only_a, only_b):
    """The slow way: the chance of a split at least as uneven, summed over all splits."""
    n = only_a + only_b
    uneven = [k for k in range(n + 1) if abs(2 * k - n) >= abs(only_a - only_b)]
    expected = sum(math.comb(n, k) for k in uneven) / 2**n
    result, swapped = mcnemar(*wrong_images(2, only_a, only_b, 9)), mcnemar(*wrong_images(2, only_b, only_a, 9))
    assert (result.only_a, result.only_b) == (only_a, only_b)
    assert result.p_value == pytest.approx(expected)
    assert swapped.p_value == pytest.approx(result.p_value)


def test_images_on_which_the_nets_agree_do_not_matter():
    assert mcnemar(*wrong_images(0, 4, 9, 0)) == mcnemar(*wrong_images(50, 4, 9, 900))
    assert mcnemar(*wrong_images(50, 0, 0, 900)) == McNemar(0, 0, 1.0)
    assert mcnemar([], []) == McNemar(0, 0, 1.0)


def test_mcnemar_refuses_other_images_and_other_values():
    with pytest.raises(ValueError, match="got 2 and 3"):
        mcnemar([True, False], [True, False, True])
    with pytest.raises(ValueError, match="true or false"):
        mcnemar([3, 7], [7, 7])  # classes that were predicted


@pytest.mark.parametrize(("wrong", "n"), [(0, 100), (76, 1000), (760, 10_000), (10, 10)])
@pytest.mark.parametrize("level", [0.5, 0.95])
def test_wilson_interval_is_wilsons(wrong, n, level):
    z, p = stats.norm.ppf((1 + level) / 2), wrong / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    interval = wilson_interval(100 * wrong / n, n, level)
    assert interval == pytest.approx((100 * (middle - half), 100 * (middle + half)), abs=1e-12)


def test_wilson_interval_by_hand():
    # sqrt(.076 × .924 / 10000) = 0.265 points is one standard error; 1.96 of them are 0.519.
    low, high = wilson_interval(7.6, 10_000)
    assert (high - low) / 2 == pytest.approx(0.519, abs=1e-3)


@pytest.mark.parametrize("wrong", [0, 1, 57, 999, 1000])
def test_wilson_interval_holds_the_error_and_mirrors(wrong):
    low, high = wilson_interval(wrong / 10, 1000)
    assert 0 <= low <= wrong / 10 <= high <= 100
    assert high - low > 0.1
    assert wilson_interval(100 - wrong / 10, 1000) == pytest.approx((100 - high, 100 - low), abs=1e-9)


@pytest.mark.parametrize(("error", "n"), [(-1, 10), (101, 10), (5, 0), (math.nan, 10)])
def test_wilson_interval_refuses_nonsense(error, n):
    with pytest.raises(ValueError, match="need n >= 1"):
        wilson_interval(error, n)


def test_scipys_large_modules_are_not_imported():
    code = "import sys, capsnet_jax.statistics; print(bool({'scipy.stats', 'scipy.linalg'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


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


@pytest.mark.parametrize(
    ("mean", "half_width", "text"),
    [
        (53.0, 57.0, "53.00 [0.00, 100.00] (n = 2)"),
        (5.0, 7.7, "5.00 [0.00, 12.70] (n = 2)"),
        (99.0, 2.5, "99.00 [96.50, 100.00] (n = 2)"),
        (5.0, 5.0, "5.00 ± 5.00 (n = 2)"),
        (5.0, math.nan, "5.00 (n = 2)"),
    ],
)
def test_an_interval_beyond_what_is_possible_is_cut_off(mean, half_width, text):
    assert describe(Estimate(2, mean, 1.0, half_width), limits=PERCENT) == text
    assert is_cut(mean, half_width, PERCENT) == ("[" in text)


def test_a_cut_is_said():
    assert cut_label(PERCENT) == "intervals are cut at 0 and 100 %"
    assert cut_label((-100.0, 100.0)) == "intervals are cut at −100 and 100 %"
    assert cut_label((0.0, 1.0)) == "intervals are cut at 0 and 1"
    assert cut_label((0.0, math.inf)) == "intervals are cut at 0"


def test_describe_digits():
    assert describe(Estimate(3, 0.53, 0.1, 0.0621), digits=3) == "0.530 ± 0.062 (n = 3)"
