"""The affine integer grid that a tensor is quantised on.

A grid point ``q`` stands for ``(q - zero_point) * scale``, as in ONNX's ``QuantizeLinear``:
division in float32, rounding half to even, saturation. Zero is always a grid point, for padding
and ReLUs produce it exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mer_calibration.errors import CalibrationError

#: A convolution's bias is kept in steps of its input's scale times its weights': that product
#: must still be a normal float32 (at least 2^-126).
SMALLEST_SCALE = 2.0**-62
#: Weights take this many steps either way, so that none lacks its negative.
MOST_STEPS = 127


@dataclass(frozen=True)
class Range:
    """Values that a tensor's grid covers.

    Attributes:
        low, high: the ends; they hold 0.
        seen_low, seen_high: the smallest and largest value of the calibration set.
        clipped: share, 0 to 1, of its values outside ``low`` to ``high``.
    """

    low: float
    high: float
    seen_low: float
    seen_high: float
    clipped: float


@dataclass(frozen=True)
class Grid:
    """Integers ``low`` to ``high``, ``scale`` (a float32) apart, ``zero_point`` meaning 0."""

    scale: float
    zero_point: int
    low: int
    high: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest integer type that holds the grid: uint8 or int8 with 8 bits."""
        farthest = min(self.low, -self.high - 1) if self.low < 0 else self.high
        return np.min_scalar_type(farthest)

    def quantise(self, x: ArrayLike) -> NDArray[Any]:
        """Finite values to grid points of ``dtype``, shape kept; values outside saturate."""
        with np.errstate(over="ignore"):  # an infinite quotient saturates like any other
            steps = np.rint(np.asarray(x, np.float32) / np.float32(self.scale))
        points = np.clip(steps, self.low - self.zero_point, self.high - self.zero_point)
        return np.asarray(points.astype(np.int32) + self.zero_point, self.dtype)

    def dequantise(self, q: ArrayLike) -> NDArray[np.float32]:
        """Grid points to the values they stand for, shape kept."""
        steps = np.asarray(q).astype(np.int32) - self.zero_point
        return np.asarray(steps.astype(np.float32) * np.float32(self.scale))

    def round_trip(self, x: ArrayLike) -> NDArray[np.float32]:
        """What is left of values that were quantised and dequantised."""
        return self.dequantise(self.quantise(x))


def asymmetric_grid(low: float, high: float, *, bits: int = 8) -> Grid:
    """An unsigned grid (uint8, 0 to 255) over ``low`` to ``high``, widened to hold 0.

    Both ends stay within half a step of a grid point. A range too narrow for float32 steps
    becomes one unit wide.

    Raises:
        CalibrationError: an end isn't finite, or they are the wrong way round.
    """
    _check(low, high)
    low, high = min(low, 0.0), max(high, 0.0)
    most = 2**bits - 1
    scale = _scale(high / most - low / most, most)
    return Grid(scale, min(max(round(-low / scale), 0), most), 0, most)


def symmetric_grid(low: float, high: float, *, bits: int = 8) -> Grid:
    """A signed grid (int8, -128 to 127, zero point 0) over ±max(\\|low\\|, \\|high\\|).

    A range too narrow for float32 steps becomes one unit wide either way.

    Raises:
        CalibrationError: an end isn't finite, or they are the wrong way round.
    """
    _check(low, high)
    most = 2 ** (bits - 1) - 1
    return Grid(_scale(max(abs(low), abs(high)) / most, most), 0, -most - 1, most)


def weight_scales(weights: NDArray[np.floating[Any]], axis: int = 0) -> NDArray[np.float32]:
    """Scales (channels,) of int8 weights, -127 to 127: each channel's max|w| / 127.

    Channels lie along ``axis``. A dead channel (all zeros, or too small for float32 steps) takes
    the largest scale of the others: the integer bias beside it is kept in steps of its scale.

    Raises:
        CalibrationError: a weight isn't finite, or there is none.
    """
    rows = np.moveaxis(np.asarray(weights, np.float64), axis, 0)
    if not rows.size:
        raise CalibrationError(f"weights of shape {np.shape(weights)} hold no value")
    peaks = np.abs(rows.reshape(len(rows), -1)).max(axis=1)
    if not np.isfinite(peaks).all():
        worst = int(np.flatnonzero(~np.isfinite(peaks))[0])
        raise CalibrationError(f"weights of channel {worst} are not finite")
    scales = peaks / MOST_STEPS
    dead = scales < SMALLEST_SCALE
    scales[dead] = 1 / MOST_STEPS if dead.all() else scales.max()
    return np.asarray(scales, np.float32)


def spread_scales(scales: NDArray[Any], weights: NDArray[Any], axis: int) -> NDArray[Any]:
    """Scales (channels,) in the shape in which they divide ``weights``: 1 but along ``axis``."""
    shape = [1] * weights.ndim
    shape[axis] = -1
    return scales.reshape(shape)


def weight_steps(
    weights: NDArray[np.float32], scales: NDArray[np.float32], axis: int
) -> NDArray[np.int8]:
    """The nearest int8 steps, -127 to 127, of weights whose channels have these scales."""
    steps = np.rint(weights / spread_scales(scales, weights, axis))
    return np.asarray(steps.clip(-MOST_STEPS, MOST_STEPS), np.int8)


def _check(low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise CalibrationError(f"{low} to {high} is not a range to quantise")


def _scale(step: float, steps: int) -> float:
    """``step`` as a float32; that of one unit where it is too small."""
    if step < SMALLEST_SCALE:
        step = 1 / steps
    return float(np.float32(min(step, float(np.finfo(np.float32).max))))
