"""What many times of the same thing come to: mean and percentiles, with what they are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PERCENTILES = (50, 90, 95, 99)
#: A percentile needs so many samples beyond it: p90 100 samples in all, p95 200, p99 1000.
LEAST_BEYOND = 10


@dataclass(frozen=True)
class Summary:
    """Of times in milliseconds; none was left out.

    Attributes:
        n: how many.
        percentiles: by percent, interpolated linearly (NumPy's default).
    """

    n: int
    mean: float
    least: float
    most: float
    percentiles: dict[int, float]

    def is_reliable(self, percent: int) -> bool:
        """Whether there are samples enough for a percentile."""
        return count_needed(percent) <= self.n

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; ``unreliable`` names percentiles of too few samples."""
        return {
            "n": self.n,
            "mean": round(self.mean, 4),
            "min": round(self.least, 4),
            "max": round(self.most, 4),
            **{f"p{percent}": round(value, 4) for percent, value in self.percentiles.items()},
            "unreliable": [f"p{p}" for p in self.percentiles if not self.is_reliable(p)],
        }


def count_needed(percent: int) -> int:
    """Samples from which a percentile counts as reliable; the median needs 20."""
    return -(-100 * LEAST_BEYOND // (100 - percent))


def summarise(times: Sequence[float]) -> Summary:
    """Of one or more times in milliseconds.

    Raises:
        ValueError: there are none.
    """
    values = np.array(times, np.float64)
    if not len(values):
        raise ValueError("there are no times to summarise")
    found = np.percentile(values, PERCENTILES)
    return Summary(
        n=len(values),
        mean=float(values.mean()),
        least=float(values.min()),
        most=float(values.max()),
        percentiles=dict(zip(PERCENTILES, found.tolist(), strict=True)),
    )


def medians(turns: Sequence[Sequence[float]]) -> list[float]:
    """Of each turn's times: what bootstrap draws."""
    return [float(np.median(turn)) for turn in turns]


def turn_medians(contender: Mapping[str, Any], measure: str) -> list[float]:
    """Milliseconds of each turn of a contender in a run's results."""
    return medians(contender["single_stream"]["times"][measure])
