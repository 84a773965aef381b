"""Probabilities averaged over time."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


class Smoother:
    """Exponential average with a time constant, one for each track.

    Args:
        constant: seconds after which an answer's weight has fallen to 1/e; 0 averages nothing.
        longest_gap: seconds without an answer after which the average begins anew.
    """

    def __init__(self, constant: float, longest_gap: float) -> None:
        self._constant = constant
        self._longest_gap = longest_gap
        self._last: dict[int | None, tuple[float, NDArray[np.float64]]] = {}

    def smooth(
        self, probabilities: NDArray[np.float64], track: int | None, time: float
    ) -> NDArray[np.float64]:
        """(classes,) probabilities of a track at ``time`` to their average up to then."""
        if not self._constant:
            return probabilities
        # Tracks that are over go, so that this doesn't grow.
        self._last = {k: v for k, v in self._last.items() if time - v[0] <= self._longest_gap}
        if track in self._last:
            then, average = self._last[track]
            kept = math.exp((then - time) / self._constant)
            probabilities = kept * average + (1 - kept) * probabilities
        self._last[track] = (time, probabilities)
        return probabilities
