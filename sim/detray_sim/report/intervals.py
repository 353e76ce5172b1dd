"""How sure a mean is, and whether two policies differ: small-sample statistics without scipy.

Quantiles of Student's t come from its distribution function, exact for integer degrees of freedom,
by bisection; no table is involved. The p-values are exact as well, up to `EXACT_PAIRS` pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from statistics import NormalDist, fmean, stdev
from typing import NamedTuple

EXACT_PAIRS = 200
"""With more pairs the Wilcoxon test uses the normal approximation, corrected for ties."""
_SERIES_MAX = 1_000
"""Beyond as many degrees of freedom, t is the normal quantile and one correction (1e-6)."""


class Estimate(NamedTuple):
    """A sample in numbers, in the unit of the sample."""

    n: int
    mean: float
    half_width: float | None
    """Of the 95 % confidence interval of the mean, by Student's t; None for a single value."""
    least: float
    most: float


class Pairing(NamedTuple):
    """Differences of pairs (one minus other): by how much, how often, and by chance?"""

    difference: Estimate
    lower: int
    equal: int
    higher: int
    sign_p: float
    """Two-sided sign test, equal pairs left out."""
    wilcoxon_p: float
    """Two-sided signed-rank test, equal pairs left out, ties share ranks."""


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 95 % confidence interval. Raises ValueError for no values."""
    if not values:
        raise ValueError("no values: there is no mean of nothing")
    count = len(values)
    half = None
    if count > 1:
        half = t_quantile(count - 1) * stdev(values) / math.sqrt(count)
    return Estimate(count, fmean(values), half, min(values), max(values))


def compare_pairs(one: Sequence[float], other: Sequence[float]) -> Pairing:
    """Two samples of which the values at one place belong together. Raises ValueError for none."""
    differences = [a - b for a, b in zip(one, other, strict=True)]
    lower = sum(difference < 0 for difference in differences)
    higher = sum(difference > 0 for difference in differences)
    return Pairing(
        difference=estimate(differences),
        lower=lower,
        equal=len(differences) - lower - higher,
        higher=higher,
        sign_p=sign_p(lower, higher),
        wilcoxon_p=wilcoxon_p(differences),
    )


@lru_cache(maxsize=1024)
def t_quantile(freedom: int, confidence: float = 0.95) -> float:
    """t with P(|T| < t) = confidence, from 12.706 for 1 degree of freedom down to 1.960."""
    if freedom > _SERIES_MAX:
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        return z + (z**3 + z) / (4 * freedom)
    low, high = 0.0, 1.0
    while _within(high, freedom) < confidence:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < confidence else (low, middle)
    return (low + high) / 2


def _within(t: float, freedom: int) -> float:
    """P(|T| < t). Source: Abramowitz and Stegun 26.7.3 and 26.7.4, finite series."""
    theta = math.atan(t / math.sqrt(freedom))
    square = math.cos(theta) ** 2
    odd = freedom % 2
    term = math.cos(theta) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= square * (k - 1) / k
        total += term
    series = math.sin(theta) * total
    return 2 / math.pi * (theta + series) if odd else series


def sign_p(lower: int, higher: int) -> float:
    """How likely a coin lands as unevenly as this, or more so; 1.0 for no tosses."""
    count = lower + higher
    tail = sum(math.comb(count, k) for k in range(min(lower, higher) + 1))
    # The exact quotient of integers: no overflow however many tosses.
    return min(1.0, 2 * tail / (1 << count))


def wilcoxon_p(differences: Sequence[float]) -> float:
    """How likely signs at random give rank sums as uneven as these; 1.0 if nothing differs."""
    ranks = _doubled_ranks(differences)
    if not ranks:
        return 1.0
    total = sum(map(abs, ranks))
    smaller = min(sum(rank for rank in ranks if rank > 0), -sum(r for r in ranks if r < 0))
    if len(ranks) > EXACT_PAIRS:
        deviation = math.sqrt(sum(rank * rank for rank in ranks)) / 2
        return min(1.0, 2 * NormalDist(total / 2, deviation).cdf(smaller))
    ways = [1] + [0] * smaller
    for rank in map(abs, ranks):
        for at in range(smaller, rank - 1, -1):
            ways[at] += ways[at - rank]
    return min(1.0, 2 * sum(ways) / (1 << len(ranks)))


def _doubled_ranks(differences: Sequence[float]) -> list[int]:
    """Signed ranks times two, which makes the shared ranks of ties whole numbers."""
    ordered = sorted((value for value in differences if value), key=abs)
    ranks: list[int] = []
    for _, group in groupby(ordered, key=abs):
        tied = list(group)
        rank = 2 * len(ranks) + len(tied) + 1
        ranks += [rank if value > 0 else -rank for value in tied]
    return ranks
