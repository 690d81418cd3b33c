"""Means of a few seeds with honest intervals, and tests of differences: pure functions of numbers.

A seed is the unit of repetition: five seeds give n = 5, whatever the size of the test set. Values that are
not finite (a run that diverged) are left out and `n` counts what is left, so a reader sees that some are
missing.

Distributions are those of `scipy.special`; to import `scipy.stats` takes a second.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import special

PERCENT = (0.0, 100.0)  # what an error can be
ROUNDING = 1e-12  # differences that are equal but for this, relative to the values, have no spread


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


@dataclasses.dataclass(frozen=True)
class McNemar:
    """McNemar's exact test of two nets on one test set.

    Attributes:
        only_a: images that net a alone gets wrong.
        only_b: images that net b alone gets wrong.
        p_value: two-sided; 1 when no image tells the nets apart.
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
    _check_level(level)
    finite = np.asarray(values, np.float64).ravel()
    finite = finite[np.isfinite(finite)]
    n = finite.size
    mean = float(finite.mean()) if n else math.nan
    if n < 2:
        return Estimate(n, mean, math.nan, math.nan)
    std = float(finite.std(ddof=1))
    quantile = special.stdtrit(n - 1, (1 + level) / 2)
    return Estimate(n, mean, std, float(quantile) * std / math.sqrt(n))


def paired_difference(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, level: float = 0.95
) -> PairedDifference:
    """Compare two settings that were run on the same seeds: the paired t test of `a - b`.

    Args:
        a: float[n], one value a seed.
        b: float[n], the other setting's values of the same seeds in the same order.
        level: the coverage of the interval, between 0 and 1.

    Returns:
        The mean difference over the pairs in which both values are finite. With fewer than two such pairs
        `half_width` and `p_value` are nan. If all differences are equal, p is 1 where they are zero, else nan: there is
        no spread to judge them by.

    Raises:
        ValueError: the lengths differ, or `level` is not between 0 and 1.
    """
    left, right = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    if left.size != right.size:
        raise ValueError(f"pairs need as many values on both sides, got {left.size} and {right.size}")
    finite = np.isfinite(left) & np.isfinite(right)
    left, right = left[finite], right[finite]
    estimate = mean_interval(left - right, level)
    if estimate.n < 2:
        return PairedDifference(estimate.n, estimate.mean, math.nan, math.nan)
    smallest = ROUNDING * float(np.abs([left, right]).max())
    if estimate.std <= smallest:
        return PairedDifference(estimate.n, estimate.mean, 0.0, 1.0 if abs(estimate.mean) <= smallest else math.nan)
    t = estimate.mean / estimate.std * math.sqrt(estimate.n)
    p_value = 2 * float(special.stdtr(estimate.n - 1, -abs(t)))
    return PairedDifference(estimate.n, estimate.mean, estimate.half_width, p_value)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjust the p values of several comparisons for their number, by Holm's step-down method.

    If every comparison with an adjusted p of at most 0.05 is called significant, the chance of even one false
    claim among them is at most 5 % (S. Holm, "A simple sequentially rejective multiple test procedure",
    Scandinavian Journal of Statistics 6, 1979).

    Args:
        p_values: float[n]; nan stands for a comparison that could not be made: it stays nan and is not counted.

    Returns:
        float[n], in the order given, each at least its p value and at most 1.
    """
    p = np.asarray(p_values, np.float64).ravel()
    order = np.argsort(p)  # nan comes last
    order = order[: np.count_nonzero(~np.isnan(p))]
    adjusted = np.full(p.size, math.nan)
    # The smallest p counts n times, the next one n - 1 times; a larger p never gets a smaller adjusted value.
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(order.size, 0, -1)), 1)
    return adjusted


def mcnemar(wrong_a: Sequence[bool] | np.ndarray, wrong_b: Sequence[bool] | np.ndarray) -> McNemar:
    """Compare two trained nets on the same test images, by McNemar's exact test.

    Only images that one net alone gets wrong tell the nets apart. If the nets were equally good, each such image
    would be either's with probability 1/2. The test is about these two nets, not about other seeds.

    Args:
        wrong_a: bool[images], whether net a gets an image wrong.
        wrong_b: bool[images], the same of net b, for the same images in the same order.

    Raises:
        ValueError: the lengths differ, or a value is not true or false.
    """
    a, b = np.asarray(wrong_a).ravel(), np.asarray(wrong_b).ravel()
    if a.size != b.size:
        raise ValueError(f"two nets need the same test images, got {a.size} and {b.size}")
    if a.size and (a.dtype != bool or b.dtype != bool):
        raise ValueError(f"wrong or not is true or false, got {a.dtype} and {b.dtype}")
    only_a, only_b = int(np.count_nonzero(a > b)), int(np.count_nonzero(b > a))
    one_side = float(special.bdtr(min(only_a, only_b), only_a + only_b, 0.5))
    return McNemar(only_a, only_b, min(1.0, 2 * one_side))


def wilson_interval(error_percent: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return between which errors the true one may lie, the test set being finite, in percent.

    Wilson's score interval, which unlike the normal approximation has a width at 0 % and 100 % too. It says
    nothing of the spread between seeds.

    Args:
        error_percent: the measured error, 0 to 100.
        n: images in the test set.
        level: the coverage of the interval, between 0 and 1.

    Returns:
        low, high: around the nearest error that n images can have.

    Raises:
        ValueError: an argument is out of its range.
    """
    _check_level(level)
    if n < 1 or not 0 <= error_percent <= 100:
        raise ValueError(f"need n >= 1 and an error of 0 to 100 %, got n = {n} and {error_percent} %")
    p, z = round(error_percent / 100 * n) / n, float(special.ndtri((1 + level) / 2))
    centre, half = p + z**2 / (2 * n), math.sqrt(z**2 * p * (1 - p) / n + (z**2 / (2 * n)) ** 2)
    low, high = ((centre + side) / (1 + z**2 / n) for side in (-half, half))
    return 100 * max(0.0, min(p, low)), 100 * min(1.0, max(p, high))


def describe(estimate: Estimate, digits: int = 2, limits: tuple[float, float] = (-math.inf, math.inf)) -> str:
    """Return `0.53 ± 0.06 (n = 5)`; without the interval when there is none.

    Args:
        estimate: what to describe.
        digits: after the point.
        limits: the least and the greatest possible value. An interval that reaches beyond them is cut off there, and
            its ends are given instead: `53.00 [0.00, 100.00] (n = 2)`.
    """
    if estimate.n == 0:
        return "no finite value (n = 0)"
    interval = describe_interval(estimate.mean, estimate.half_width, digits, limits)
    return f"{estimate.mean:.{digits}f}{interval} (n = {estimate.n})"


def describe_interval(
    mean: float, half_width: float, digits: int = 2, limits: tuple[float, float] = (-math.inf, math.inf)
) -> str:
    """Return ` ± 0.06`, to stand behind a mean; ` [0.00, 1.59]` where it is cut off at `limits`; "" without one."""
    if math.isnan(half_width):
        return ""
    if not is_cut(mean, half_width, limits):
        return f" ± {half_width:.{digits}f}"
    low, high = (min(max(end, limits[0]), limits[1]) for end in (mean - half_width, mean + half_width))
    return f" [{low:.{digits}f}, {high:.{digits}f}]"


def is_cut(mean: float, half_width: float, limits: tuple[float, float]) -> bool:
    """Whether the interval `mean ± half_width` reaches beyond what is possible; False where there is none."""
    return mean - half_width < limits[0] or mean + half_width > limits[1]


def cut_label(limits: tuple[float, float]) -> str:
    """Return what a reader must know of intervals that are cut off: `intervals are cut at 0 and 100 %`."""
    ends = " and ".join(f"{end:g}" for end in limits if math.isfinite(end)).replace("-", "−")
    return f"intervals are cut at {ends}{' %' if limits[1] == PERCENT[1] else ''}"


def _check_level(level: float) -> None:
    """Raise ValueError where a level is no coverage."""
    if not 0 < level < 1:
        raise ValueError(f"level is a coverage between 0 and 1, got {level}")
