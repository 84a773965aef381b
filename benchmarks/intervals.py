"""Medians of rounds, and 95 % bootstrap intervals of them and of their ratios."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Resamples of a bootstrap; the seed makes a table from the same rounds the same.
RESAMPLES, SEED = 2000, 0


@dataclass(frozen=True)
class Interval:
    """A median with its 95 % interval, by percentile bootstrap over rounds."""

    median: float
    low: float
    high: float

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


def _draws(count: int) -> NDArray[np.int64]:
    return np.random.default_rng(SEED).integers(0, count, (RESAMPLES, count))


def _interval(median: float, drawn: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Interval(round(median, 3), round(float(low), 3), round(float(high), 3))
