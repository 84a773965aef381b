"""Five ways to choose the range that a tensor is quantised over, from its histogram."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_calibration.errors import CalibrationError
from mer_calibration.grid import Grid, asymmetric_grid, symmetric_grid
from mer_calibration.histogram import HALF, Histogram
from mer_calibration.ranges import METHODS, Method, Range

__all__ = ["METHODS", "PERCENTILE", "Method", "expected_errors", "find_range"]

#: Percent of values that ``percentile`` keeps: the middle ones, or those nearest to 0 where the
#: range is symmetric.
PERCENTILE = 99.99

#: Bins to a level of the grid that ``entropy`` works with at most (Migacz 2017: 2048 to 128), and
#: how many candidates it has for an end.
ENTROPY_BINS = 16
ENTROPY_CANDIDATES = 512
#: Values that stand in for none, where a level of the grid is empty but clipped values fall on it.
SMOOTHING = 1e-4

#: The factors of what was seen that ``mse`` tries: 1 down to 2^-12 in these steps, then finer.
MSE_SMALLEST = -12.0
MSE_STEP = 1 / 8
MSE_STEP_BOTH_ENDS = 1 / 2
MSE_ROUNDS = 3

#: How much farther than ``mse`` the range of ``wide`` reaches: of 1.15, 1.35 and 1.6 the first two
#: did equally well on logits, and better than 1 or all that was seen.
WIDENING = 1.25
#: The same where the range is symmetric: of 1, 1.1, 1.2 and 1.5. Steps are wider there.
WIDENING_SYMMETRIC = 1.1

Ends = tuple[float, float]


def find_range(histogram: Histogram, method: Method, *, symmetric: bool, bits: int = 8) -> Range:
    """Choose a range. It holds 0; where ``symmetric``, its ends differ only in sign.

    - ``minmax``: all that was seen.
    - ``percentile``: the middle ``PERCENTILE`` percent.
    - ``entropy``: the range whose quantised distribution diverges least from the true one
      (Kullback-Leibler; Szymon Migacz, 8-bit Inference with TensorRT, GTC 2017). Exact zeros are
      left out, for every grid holds them.
    - ``mse``: the least mean squared error, of rounding and of clipping together.
    - ``wide``: ``WIDENING`` (``WIDENING_SYMMETRIC``) times that, as far as anything was seen.
      Where answers are averages over many frames, rounding is mostly gone from them and clipping
      isn't.

    Raises:
        CalibrationError: the method is unknown, or nothing was observed.
    """
    if method not in METHODS:
        raise CalibrationError(f"no method '{method}' to choose ranges: use {', '.join(METHODS)}")
    if not histogram.count:
        raise CalibrationError("no value was observed: calibrate on at least one clip")
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if symmetric:
        high = max(-low, high)
        low = -high
    if low < high:
        found_low, found_high = FINDERS[method](histogram, (low, high), symmetric, bits)
        low, high = max(low, min(found_low, 0.0)), min(high, max(found_high, 0.0))
    return Range(
        low=low + 0.0,  # never -0.0
        high=high + 0.0,
        method=method,
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


def _find_minmax(histogram: Histogram, seen: Ends, symmetric: bool, bits: int) -> Ends:
    return seen


def _find_percentile(histogram: Histogram, seen: Ends, symmetric: bool, bits: int) -> Ends:
    up, down = histogram.counts[HALF:], histogram.counts[:HALF][::-1]
    if symmetric:
        end = _quantile(up + down, histogram.zeros, PERCENTILE / 100) * histogram.width
        return -end, end
    # From either end, the other side of zero is one lump, in which the quantile may lie too.
    keep = (1 + PERCENTILE / 100) / 2
    high = _quantile(up, histogram.zeros + int(down.sum()), keep) * histogram.width
    low = _quantile(down, histogram.zeros + int(up.sum()), keep) * histogram.width
    return -low, high


def _quantile(counts: NDArray[np.int64], lump: int, share: float) -> float:
    """Where ``share`` of all values is reached, in bins from 0; ``lump`` values come before."""
    below = lump + np.concatenate(([0], np.cumsum(counts)))
    wanted = share * float(below[-1])
    if wanted <= lump:
        return 0.0
    i = int(np.searchsorted(below, wanted))
    return i - 1 + (wanted - float(below[i - 1])) / float(below[i] - below[i - 1])


def _find_entropy(histogram: Histogram, seen: Ends, symmetric: bool, bits: int) -> Ends:
    up, down = histogram.counts[HALF:], histogram.counts[:HALF][::-1]
    if symmetric:
        up, down = up + down, np.zeros_like(down)
    tops = [_used(up), _used(down)]
    levels = 2 ** (bits - 1) if symmetric else 2**bits
    merged = -(-sum(tops) // (ENTROPY_BINS * levels))
    right, left = (_merge(side[:top], merged) for side, top in zip((up, down), tops, strict=True))
    counts = np.concatenate((left[::-1], right))
    zero, bins = len(left), len(counts)
    stride = max(ENTROPY_BINS * levels // ENTROPY_CANDIDATES, 1)
    start, end = 0, bins
    # Each end in turn, twice: the best place of one depends on the other. Candidates go from wide
    # to narrow, so that of equals the widest is taken.
    for _ in range(2 if zero and zero < bins else 1):
        if zero < bins:
            ends = np.arange(bins, max(zero, start + levels - 1), -stride)
            if len(ends):
                best = _divergences(counts, np.full_like(ends, start), ends, levels).argmin()
                end = int(ends[best])
        if zero:
            starts = np.arange(0, min(zero, end - levels + 1), stride)
            if len(starts):
                best = _divergences(counts, starts, np.full_like(starts, end), levels).argmin()
                start = int(starts[best])
    high = (end - zero) * merged * histogram.width
    return (-high if symmetric else (start - zero) * merged * histogram.width), high


def _used(counts: NDArray[np.int64]) -> int:
    """Bins up to the last that isn't empty."""
    filled = np.flatnonzero(counts)
    return int(filled[-1]) + 1 if len(filled) else 0


def _merge(counts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    padded = np.pad(counts, (0, -len(counts) % size))
    merged: NDArray[np.int64] = padded.reshape(-1, size).sum(axis=1)
    return merged


def _divergences(
    counts: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64], levels: int
) -> NDArray[np.float64]:
    """KL divergence, in nats, from the clipped distribution to its quantised one.

    One for each range of bins, of at least ``levels`` of them. The clipped one has the values
    outside on its first and last bin. The quantised one shares each level's values, those outside
    left out, among the level's bins that aren't empty.
    """
    mass = np.concatenate(([0], np.cumsum(counts)))
    filled = np.concatenate(([0], np.cumsum(counts > 0)))
    own = np.concatenate(([0.0], np.cumsum(_x_log_x(counts))))
    total = int(mass[-1])
    below, above = mass[starts], total - mass[ends]
    inside = total - below - above
    first, last = counts[starts], counts[ends - 1]
    entropy = own[ends] - own[starts]
    entropy += _x_log_x(first + below) - _x_log_x(first)
    entropy += _x_log_x(last + above) - _x_log_x(last)

    borders = starts[:, None] + (ends - starts)[:, None] * np.arange(levels + 1) // levels
    quantised = np.diff(mass[borders], axis=1)
    shared = np.diff(filled[borders], axis=1)
    shared[:, 0] += (first == 0) & (below > 0)
    shared[:, -1] += (last == 0) & (above > 0)
    clipped = quantised.copy()
    clipped[:, 0] += below
    clipped[:, -1] += above
    each = np.maximum(quantised / np.maximum(shared, 1), SMOOTHING)
    cross = (clipped * np.log(each / np.maximum(inside, 1)[:, None])).sum(axis=1)
    divergences = (entropy - cross) / total - np.log(total)
    return np.where(inside > 0, divergences, np.inf)


def _x_log_x(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(counts * np.log(np.maximum(counts, 1)), np.float64)


def _find_mse(histogram: Histogram, seen: Ends, symmetric: bool, bits: int) -> Ends:
    make = symmetric_grid if symmetric else asymmetric_grid
    # One factor for both ends, unless both can move on their own.
    tied = symmetric or 0 in seen
    step = MSE_STEP if tied else MSE_STEP_BOTH_ENDS
    # From wide to narrow, so that of equals the widest is taken.
    factors: NDArray[np.floating[Any]] = np.arange(0, MSE_SMALLEST - step, -step)
    centre = np.zeros(2)
    for _ in range(1 + MSE_ROUNDS):
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


def _find_wide(histogram: Histogram, seen: Ends, symmetric: bool, bits: int) -> Ends:
    low, high = _find_mse(histogram, seen, symmetric, bits)
    widening = WIDENING_SYMMETRIC if symmetric else WIDENING
    return widening * low, widening * high


FINDERS: dict[Method, Callable[[Histogram, Ends, bool, int], Ends]] = {
    "minmax": _find_minmax,
    "percentile": _find_percentile,
    "entropy": _find_entropy,
    "mse": _find_mse,
    "wide": _find_wide,
}
