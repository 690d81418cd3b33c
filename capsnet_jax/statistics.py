"""Means of a few seeds with honest intervals, and tests that compare them: pure functions of numbers.

A seed is the unit of repetition: five seeds give n = 5, whatever the size of the test set. Values that are
not finite (a run that diverged) are left out and `n` counts what is left, so a reader sees that some are
missing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean and how well it is known; `half_width` is in the unit of the values.

    Attributes:
        n: finite values counted.
        mean: their mean; nan when n = 0.
        std: their standard deviation with n - 1 in the denominator; nan when n < 2.
        half_width: the interval of the mean is `mean ± half_width`; nan when n < 2.
    """

    n: int
    mean: float
    std: float
    half_width: float


@dataclasses.dataclass(frozen=True)
class PairedDifference:
    """The mean of `a - b` over `n` pairs, its interval `mean ± half_width` and the two-sided p value."""

    n: int
    mean: float
    half_width: float
    p_value: float


class McNemar(NamedTuple):
    """How two classifiers differ on the same test images.

    Attributes:
        only_a: images that the first alone tells wrong.
        only_b: images that the second alone tells wrong.
        p_value: of the exact test, two-sided; 1 where they differ on none.
    """

    only_a: int
    only_b: int
    p_value: float


def mean_interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> Estimate:
    """Return the mean of `values` with its Student t interval.

    Args:
        values: float[n], one value a seed; those that are not finite are left out.
        level: the coverage of the interval, between 0 and 1.

    Raises:
        ValueError: `level` is not between 0 and 1.
    """
    from scipy import stats  # takes a second, which `--list` does not have

    _check_level(level)
    finite = np.asarray(values, np.float64).ravel()
    finite = finite[np.isfinite(finite)]
    n = finite.size
    mean = float(finite.mean()) if n else math.nan
    if n < 2:
        return Estimate(n, mean, math.nan, math.nan)
    std = float(finite.std(ddof=1))
    return Estimate(n, mean, std, float(stats.t.ppf((1 + level) / 2, n - 1)) * std / math.sqrt(n))


def paired_difference(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, level: float = 0.95
) -> PairedDifference:
    """Compare two arms that were run on the same seeds: the paired t test of `a - b`.

    Args:
        a: float[n], one value a seed.
        b: float[n], the other arm's values of the same seeds in the same order.
        level: the coverage of the interval, between 0 and 1.

    Returns:
        The mean difference. With fewer than two finite pairs `half_width` and `p_value` are nan.

    Raises:
        ValueError: the lengths differ, or `level` is not between 0 and 1.
    """
    from scipy import stats

    left, right = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    if left.size != right.size:
        raise ValueError(f"pairs need as many values on both sides, got {left.size} and {right.size}")
    estimate = mean_interval(left - right, level)
    if estimate.n < 2:
        p_value = math.nan
    elif estimate.std == 0:  # all differences are the same
        p_value = 1.0 if estimate.mean == 0 else 0.0
    else:
        differences = (left - right)[np.isfinite(left - right)]
        p_value = float(stats.ttest_1samp(differences, 0).pvalue)
    return PairedDifference(estimate.n, estimate.mean, estimate.half_width, p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number by Holm's method (1979); those that are nan stay so and do not count.

    The k-th least of n is multiplied by n - k + 1; none is less than one before it, and none is more than 1.
    """
    known = [i for i, p in enumerate(p_values) if not math.isnan(p)]
    adjusted, least = [math.nan] * len(p_values), 0.0
    for rank, i in enumerate(sorted(known, key=lambda i: p_values[i])):
        least = max(least, min(1.0, (len(known) - rank) * p_values[i]))
        adjusted[i] = least
    return adjusted


def mcnemar(wrong_a: Sequence[bool] | np.ndarray, wrong_b: Sequence[bool] | np.ndarray) -> McNemar:
    """Compare two classifiers on the same test images by McNemar's exact test (1947).

    Args:
        wrong_a: bool[images], which ones the first tells wrong.
        wrong_b: bool[images], the same of the second.

    Raises:
        ValueError: the lengths differ.
    """
    from scipy import stats

    left, right = np.asarray(wrong_a, bool).ravel(), np.asarray(wrong_b, bool).ravel()
    if left.size != right.size:
        raise ValueError(f"both need the same test images, got {left.size} and {right.size}")
    only_a, only_b = int(np.sum(left & ~right)), int(np.sum(right & ~left))
    if only_a + only_b == 0:
        return McNemar(0, 0, 1.0)
    return McNemar(only_a, only_b, float(stats.binomtest(only_a, only_a + only_b).pvalue))


def wilson_interval(error_percent: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of one measured error, in percent: what a finite test set leaves open.

    Unlike the normal approximation it has a width at 0 % and 100 % too. It says nothing of the spread between seeds.

    Args:
        error_percent: the measured error, 0 to 100.
        n: images in the test set.
        level: the coverage of the interval, between 0 and 1.

    Raises:
        ValueError: an argument is out of its range.
    """
    from scipy import stats

    _check_level(level)
    if n < 1 or not 0 <= error_percent <= 100:
        raise ValueError(f"need n >= 1 and an error of 0 to 100 %, got n = {n} and {error_percent} %")
    interval = stats.binomtest(round(error_percent * n / 100), n).proportion_ci(level, method="wilson")
    return 100 * float(interval.low), 100 * float(interval.high)


def describe(estimate: Estimate, digits: int = 2) -> str:
    """Return `0.53 ± 0.06 (n = 5)`; without the interval when there is none."""
    if estimate.n == 0:
        return "no finite value (n = 0)"
    interval = "" if math.isnan(estimate.half_width) else f" ± {estimate.half_width:.{digits}f}"
    return f"{estimate.mean:.{digits}f}{interval} (n = {estimate.n})"


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level is a coverage between 0 and 1, got {level}")
