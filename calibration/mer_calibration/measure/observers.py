"""The range that a tensor is quantised over, from the histogram of its values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_calibration.errors import CalibrationError
from mer_calibration.graph.grid import Grid, Range, asymmetric_grid, symmetric_grid
from mer_calibration.measure.histogram import HALF, Histogram

#: Factors of what was seen that are tried: 1 down to 2^-12 in these steps, then finer.
SMALLEST = -12.0
STEP = 1 / 8
STEP_BOTH_ENDS = 1 / 2
ROUNDS = 3

#: How much farther a range reaches than the least squared error would have it: of 1.15, 1.35 and
#: 1.6 the first two did equally well on logits, and better than 1 or all that was seen.
WIDENING = 1.25
#: The same where the range is symmetric: of 1, 1.1, 1.2 and 1.5. Steps are wider there.
WIDENING_SYMMETRIC = 1.1

Ends = tuple[float, float]


def find_range(histogram: Histogram, *, symmetric: bool, bits: int = 8) -> Range:
    """Choose a range. It holds 0; where ``symmetric``, its ends differ only in sign.

    It is ``WIDENING`` (``WIDENING_SYMMETRIC``) times the range of least mean squared error, of
    rounding and of clipping together, as far as anything was seen. Where answers are averages over
    many frames, rounding is mostly gone from them and clipping isn't. Min-max, percentiles and
    entropy (Migacz, 8-bit Inference with TensorRT, GTC 2017) were measured and are worse:
    ``docs/explanation/calibration.md``.

    Raises:
        CalibrationError: nothing was observed.
    """
    if not histogram.count:
        raise CalibrationError("no value was observed: calibrate on at least one clip")
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if symmetric:
        high = max(-low, high)
        low = -high
    if low < high:
        widening = WIDENING_SYMMETRIC if symmetric else WIDENING
        found_low, found_high = _find_least_error(histogram, (low, high), symmetric, bits)
        low = max(low, min(widening * found_low, 0.0))
        high = min(high, max(widening * found_high, 0.0))
    # No grid need reach where nothing was seen: a symmetric one does so by itself.
    low, high = max(low, min(histogram.low, 0.0)), min(high, max(histogram.high, 0.0))
    return Range(
        low=low + 0.0,  # never -0.0
        high=high + 0.0,
        seen_low=histogram.low,
        seen_high=histogram.high,
        clipped=histogram.share_outside(low, high),
    )


def expected_errors(histogram: Histogram, grids: list[Grid]) -> NDArray[np.float64]:
    """Mean squared error of the histogram's values on each grid, (grids,).

    Values count as evenly spread within their bins. The grids have the same number of points.
    """
    # With G(b) the sum of (b - x) over all x < b, the sum over points q of (x - q)² telescopes to
    # sum((x - last)²) - 2 * scale * sum(G(b)) over the borders b between neighbouring points.
    counts, edges, width = histogram.counts, histogram.edges, histogram.width
    before = np.concatenate(([0], np.cumsum(counts)))
    gaps = width * (before[:-1] + counts / 2)
    total = np.concatenate(([0.0], np.cumsum(gaps)))  # G at the edges
    density = np.append(counts, 0) / (2 * width)
    centres = edges[:-1] + width / 2

    scales = np.array([grid.scale for grid in grids])
    offsets = np.array([grid.low - grid.zero_point for grid in grids])
    points = grids[0].high - grids[0].low
    borders = (offsets[:, None] + 0.5 + np.arange(points)) * scales[:, None]
    i = np.clip(borders / width + HALF, 0, 2 * HALF).astype(np.int64)
    past = np.maximum(borders - edges[i], 0)
    integral = (total[i] + past * (before[i] + past * density[i])).sum(axis=1)

    last = (offsets + points) * scales
    mass, first, second = counts.sum(), counts @ centres, counts @ (centres**2 + width**2 / 12)
    squares = second - 2 * last * first + last**2 * mass - 2 * scales * integral
    errors: NDArray[np.float64] = np.maximum(squares, 0) / histogram.count
    return errors


def _find_least_error(histogram: Histogram, seen: Ends, symmetric: bool, bits: int) -> Ends:
    make = symmetric_grid if symmetric else asymmetric_grid
    # One factor for both ends, unless both can move on their own.
    tied = symmetric or 0 in seen
    step = STEP if tied else STEP_BOTH_ENDS
    # From wide to narrow, so that of equals the widest is taken.
    factors: NDArray[np.floating[Any]] = np.arange(0, SMALLEST - step, -step)
    centre = np.zeros(2)
    for _ in range(1 + ROUNDS):
        lows, highs = np.minimum(centre[:, None] + factors, 0)
        pairs = (
            np.stack((lows, highs), axis=1)
            if tied
            else np.stack(np.meshgrid(lows, highs), axis=-1).reshape(-1, 2)
        )
        ends = np.exp2(pairs) * seen
        grids = [make(float(low), float(high), bits=bits) for low, high in ends]
        best = int(expected_errors(histogram, grids).argmin())
        centre = pairs[best]
        factors = np.linspace(step, -step, 9)
        step /= 4
    return float(ends[best, 0]), float(ends[best, 1])
