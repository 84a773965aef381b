"""Intervals of 95 %: of shares, of medians of rounds, and of their ratios.

A round is one number: the median of what was timed in one turn. Times within a turn resemble each
other, so the bootstrap (Efron 1979, percentile intervals) draws turns, not single times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Resamples of a bootstrap; the seed makes a table from the same rounds the same.
RESAMPLES, SEED = 2000, 0
#: Quantile of the normal distribution for a two-sided 95 % interval.
Z_95 = 1.959964


@dataclass(frozen=True)
class Interval:
    """A median, or a ratio of two, with its 95 % interval."""

    median: float
    low: float
    high: float

    @property
    def beyond_noise(self) -> bool:
        """Of a ratio: whether the interval leaves out 1, that is, no difference."""
        return not self.low <= 1 <= self.high

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return asdict(self)


def find_interval(rounds: Sequence[float]) -> Interval:
    """Of the times of one contender."""
    values = np.array(rounds)
    return _interval(float(np.median(values)), np.median(values[_draws(len(values))], axis=1))


def find_ratio(slow: Sequence[float], fast: Sequence[float]) -> Interval:
    """How many times faster ``fast`` is: medians of as many rounds, drawn together."""
    one, other = np.array(slow), np.array(fast)
    draws = _draws(len(one))
    drawn = np.median(one[draws], axis=1) / np.median(other[draws], axis=1)
    return _interval(float(np.median(one) / np.median(other)), drawn)


def find_ratio_apart(slow: Sequence[float], fast: Sequence[float]) -> Interval:
    """As ``find_ratio``, of rounds that didn't take turns: two runs, drawn apart."""
    one, other = np.array(slow), np.array(fast)
    above = np.median(one[_draws(len(one))], axis=1)
    below = np.median(other[_draws(len(other), SEED + 1)], axis=1)
    return _interval(float(np.median(one) / np.median(other)), above / below)


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a share, in percent (Wilson 1927): sound for few clips and near 0 or 100."""
    share, spread = hits / n, Z_95**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = Z_95 * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def _draws(count: int, seed: int = SEED) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))


def _interval(median: float, drawn: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Interval(round(median, 3), round(float(low), 3), round(float(high), 3))
