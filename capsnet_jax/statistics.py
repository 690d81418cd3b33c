"""Means of a few seeds with honest intervals: pure functions of numbers.

A seed is the unit of repetition: five seeds give n = 5, whatever the size of the test set. Values that are
not finite (a run that diverged) are left out and `n` counts what is left, so a reader sees that some are
missing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import special


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


def mean_interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> Estimate:
    """Returns the mean of `values` with its Student t interval.

    Args:
        values: float[n], one value a seed; those that are not finite are left out.
        level: the coverage of the interval, between 0 and 1.

    Raises:
        ValueError: `level` is not between 0 and 1.
    """
    _check_level(level)
    finite = np.asarray(values, np.float64).ravel()
    finite = finite[np.isfinite(finite)]
    n = finite.size
    mean = float(finite.mean()) if n else math.nan
    if n < 2:
        return Estimate(n, mean, math.nan, math.nan)
    std = float(finite.std(ddof=1))
    quantile = float(special.stdtrit(n - 1, (1 + level) / 2))
    return Estimate(n, mean, std, quantile * std / math.sqrt(n))


def paired_difference(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, level: float = 0.95
) -> PairedDifference:
    """Compares two arms that were run on the same seeds: the paired t test of `a - b`.

    Args:
        a: float[n], one value a seed.
        b: float[n], the other arm's values of the same seeds in the same order.
        level: the coverage of the interval, between 0 and 1.

    Returns:
        The mean difference. With fewer than two finite pairs `half_width` and `p_value` are nan.

    Raises:
        ValueError: the lengths differ, or `level` is not between 0 and 1.
    """
    left, right = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    if left.size != right.size:
        raise ValueError(f"pairs need as many values on both sides, got {left.size} and {right.size}")
    estimate = mean_interval(left - right, level)
    return PairedDifference(estimate.n, estimate.mean, estimate.half_width, _p_value(estimate))


def binomial_half_width(error_percent: float, n: int, level: float = 0.95) -> float:
    """Returns how far one measured error may be off because the test set is finite, in percentage points.

    Half the width of Wilson's score interval, which unlike the normal approximation is not zero at 0 % or
    100 %. It says nothing of the spread between seeds.

    Args:
        error_percent: the measured error, 0 to 100.
        n: images in the test set.
        level: the coverage of the interval, between 0 and 1.

    Raises:
        ValueError: an argument is out of its range.
    """
    _check_level(level)
    if n < 1 or not 0 <= error_percent <= 100:
        raise ValueError(f"need n >= 1 and an error of 0 to 100 %, got n = {n} and {error_percent} %")
    z = float(special.ndtri((1 + level) / 2))
    p = error_percent / 100
    return 100 * z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2) / (1 + z * z / n)


def describe(estimate: Estimate, digits: int = 2) -> str:
    """Returns `0.53 ± 0.06 (n = 5)`; without the interval when there is none."""
    if estimate.n == 0:
        return "no finite value (n = 0)"
    interval = "" if math.isnan(estimate.half_width) else f" ± {estimate.half_width:.{digits}f}"
    return f"{estimate.mean:.{digits}f}{interval} (n = {estimate.n})"


def _p_value(estimate: Estimate) -> float:
    if estimate.n < 2:
        return math.nan
    if estimate.std == 0:
        return 1.0 if estimate.mean == 0 else 0.0
    t = abs(estimate.mean) / (estimate.std / math.sqrt(estimate.n))
    return float(2 * special.stdtr(estimate.n - 1, -t))


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level is a coverage between 0 and 1, got {level}")
