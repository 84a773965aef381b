"""A streaming histogram of a tensor's values, whose range grows with what it sees."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mer_calibration.errors import CalibrationError

#: Bins on either side of zero. The range is the power of two above the largest magnitude, so at
#: least half of them are in use: 64 or more to each of 128 quantisation steps of either sign.
HALF = 1 << 14
#: The narrowest range is ±2^-100: a float32 then still holds bins per unit.
SMALLEST_EXPONENT = -100
#: Values at a time, so that the index of each stays in a core's cache.
BLOCK = 1 << 17


class Histogram:
    """Counts of values in ``2 * HALF`` equal bins over ``-limit`` to ``limit``.

    ``limit`` is a power of two above every magnitude seen. Where it must grow, it is doubled and
    bins are merged in pairs, never across zero. Scaling by powers of two is exact, so the counts
    don't depend on the order of updates or on how the values were divided among them. (Only where
    a value and ``limit`` are 2^164 apart may that value change sides of zero.) No value is left
    out: 6 million float32 values take about 40 ms.

    Attributes:
        counts: (2 * HALF,) int64; bin i holds ``edges[i] <= x < edges[i + 1]``, zeros left out.
        zeros: how many values were exactly 0, as a ReLU puts out.
        count: how many values were seen, zeros included.
        low, high: the smallest and largest value; NaN before the first.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(2 * HALF, np.int64)
        self.zeros = 0
        self.count = 0
        self.low = math.nan
        self.high = math.nan
        self._exponent = SMALLEST_EXPONENT

    @property
    def limit(self) -> float:
        """The end of the last bin."""
        return math.ldexp(1.0, self._exponent)

    @property
    def width(self) -> float:
        """The width of a bin."""
        return self.limit / HALF

    @property
    def edges(self) -> NDArray[np.float64]:
        """(2 * HALF + 1,) where bins begin and end; ``edges[HALF]`` is 0."""
        return np.asarray(np.arange(-HALF, HALF + 1) * self.width, np.float64)

    def update(self, values: ArrayLike) -> None:
        """Count values of any shape, as float32.

        Raises:
            CalibrationError: a value isn't finite; nothing of ``values`` is counted then.
        """
        with np.errstate(over="ignore"):  # shows as an infinity below
            flat = np.asarray(values).astype(np.float32, copy=False).ravel()
        if not flat.size:
            return
        low, high = float(flat.min()) + 0.0, float(flat.max()) + 0.0  # never -0.0
        if not (math.isfinite(low) and math.isfinite(high)):
            raise CalibrationError("a value is not finite")
        if low or high:
            self._grow(math.frexp(max(-low, high))[1])
        self._count(flat)
        self.count += flat.size
        self.low, self.high = float(np.fmin(self.low, low)), float(np.fmax(self.high, high))

    def share_outside(self, low: float, high: float) -> float:
        """Share, 0 to 1, of values below ``low`` or above ``high``.

        Within a bin, values count as evenly spread; 0 where the range holds all that was seen.
        """
        if not self.count:
            return 0.0
        below = self._below(low) + self.zeros * (low > 0) if low > self.low else 0.0
        within = (
            self._below(high) + self.zeros * (high >= 0) if high < self.high else float(self.count)
        )
        return (below + self.count - within) / self.count

    def _grow(self, exponent: int) -> None:
        while self._exponent < exponent:
            doublings = min(exponent - self._exponent, HALF.bit_length() - 1)
            merged = self.counts.reshape(-1, 1 << doublings).sum(axis=1)
            self.counts = np.pad(merged, HALF - len(merged) // 2)
            self._exponent += doublings

    def _count(self, flat: NDArray[np.float32]) -> None:
        per_unit = np.float32(1 / self.width)
        scaled = np.empty(min(BLOCK, flat.size), np.float32)
        bins = np.empty(len(scaled), np.int64)
        for start in range(0, flat.size, BLOCK):
            block = flat[start : start + BLOCK]
            position, index = scaled[: block.size], bins[: block.size]
            np.floor(np.multiply(block, per_unit, out=position), out=position)
            np.add(position, HALF, out=index, casting="unsafe")
            self.counts += np.bincount(index, minlength=2 * HALF)
            zeros = block.size - int(np.count_nonzero(block))
            self.counts[HALF] -= zeros
            self.zeros += zeros

    def _below(self, x: float) -> float:
        """How many values other than 0 are below ``x``."""
        position = min(max(x / self.width + HALF, 0.0), 2.0 * HALF)
        i = min(int(position), 2 * HALF - 1)
        return float(self.counts[:i].sum()) + (position - i) * float(self.counts[i])
