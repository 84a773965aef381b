"""Ranges from histograms, judged by the error they really cause on the values themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mer_calibration import (
    CalibrationError,
    Grid,
    Histogram,
    Range,
    asymmetric_grid,
    find_range,
    symmetric_grid,
)
from mer_calibration.measure import observers
from mer_calibration.measure.observers import WIDENING, WIDENING_SYMMETRIC, expected_errors

VALUES = 200_000
DISTRIBUTIONS = ("normal", "rectified", "negative", "heavy", "skewed", "outlier")


def draw(name: str) -> NDArray[np.float32]:
    """Values of a distribution, always the same."""
    generator = np.random.default_rng(DISTRIBUTIONS.index(name))
    values = {
        "normal": lambda: generator.normal(0.3, 1, VALUES),
        "rectified": lambda: np.maximum(generator.normal(0, 2, VALUES), 0),
        "negative": lambda: -generator.exponential(1, VALUES),
        "heavy": lambda: generator.standard_t(3, VALUES),
        "skewed": lambda: generator.gumbel(0, 1, VALUES),
        "outlier": lambda: np.append(generator.laplace(0, 1, VALUES), [-90.0, 200.0]),
    }[name]()
    return np.asarray(values, np.float32)


def observed(values: Any) -> Histogram:
    histogram = Histogram()
    histogram.update(np.asarray(values, np.float32))
    return histogram


def make_grid(found: Range, symmetric: bool, bits: int = 8) -> Grid:
    make = symmetric_grid if symmetric else asymmetric_grid
    return make(found.low, found.high, bits=bits)


def measure_error(values: NDArray[np.float32], grid: Grid) -> float:
    difference = grid.round_trip(values).astype(np.float64) - values
    return float(np.square(difference).mean())


@pytest.fixture
def find_least(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Range]:
    """``find_range`` as it would be without widening."""

    def find(histogram: Histogram, *, symmetric: bool) -> Range:
        with monkeypatch.context() as patch:
            patch.setattr(observers, "WIDENING", 1.0)
            patch.setattr(observers, "WIDENING_SYMMETRIC", 1.0)
            return find_range(histogram, symmetric=symmetric)

    return find


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_least_error_is_near_that_of_an_exhaustive_search(
    name: str, symmetric: bool, find_least: Callable[..., Range]
) -> None:
    values = draw(name)[-20_000:]  # the outliers are last
    histogram = observed(values)
    found = find_least(histogram, symmetric=symmetric)
    low, high = min(histogram.low, 0), max(histogram.high, 0)
    if symmetric:
        low, high = -max(-low, high), max(-low, high)
    factors = np.linspace(1, 0.01, 34)
    pairs = (
        [(a, a) for a in factors] if symmetric else [(a, b) for a in factors[::3] for b in factors]
    )
    best = min(
        measure_error(values, make_grid(Range(a * low, b * high, 0, 0, 0), symmetric))
        for a, b in pairs
    )
    # Half a percent: the zero-point's rounding makes small jumps that no search follows.
    assert measure_error(values, make_grid(found, symmetric)) <= 1.005 * best


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_range_is_wider_than_least_error_has_it_but_not_than_what_was_seen(
    name: str, symmetric: bool, find_least: Callable[..., Range]
) -> None:
    histogram = observed(draw(name))
    least = find_least(histogram, symmetric=symmetric)
    found = find_range(histogram, symmetric=symmetric)
    widening = WIDENING_SYMMETRIC if symmetric else WIDENING
    low, high = widening * least.low, widening * least.high
    if symmetric:  # the grid is: its farther end counts
        high = max(-low, high)
        low = -high
    assert found.low == pytest.approx(max(low, min(histogram.low, 0)))
    assert found.high == pytest.approx(min(high, max(histogram.high, 0)))
    assert (found.seen_low, found.seen_high) == (histogram.low, histogram.high)


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_expected_error_is_the_measured_one(name: str, bits: int) -> None:
    values = draw(name)
    histogram = observed(values)
    grids = [
        asymmetric_grid(histogram.low * share, max(histogram.high, 0) * share, bits=bits)
        for share in (0.02, 0.1, 0.5, 1.0)
        if histogram.low < 0
    ] or [asymmetric_grid(0, histogram.high * share, bits=bits) for share in (0.02, 0.1, 0.5, 1)]
    measured = [measure_error(values, grid) for grid in grids]
    # Values count as evenly spread within a bin, and there are only so many of them.
    assert expected_errors(histogram, grids) == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize("symmetric", [False, True])
def test_clips_a_far_outlier(symmetric: bool) -> None:
    """Of so many values that finer steps for the rest are worth its error."""
    values = np.random.default_rng(0).laplace(0, 1, 4_000_000).astype(np.float32)
    values[7] = 200
    found = find_range(observed(values), symmetric=symmetric)
    # One value in 160 000 lies beyond 12, the farthest of all near 16.
    assert 8 < found.high < 50
    assert -30 < found.low < -8
    outside = np.mean((values < found.low) | (values > found.high))
    # Of a bin that an end cuts, a part counts.
    assert found.clipped == pytest.approx(outside, abs=1e-6)
    assert found.clipped > 0


def test_rectified_values_keep_zero_as_their_end() -> None:
    for symmetric in (False, True):
        found = find_range(observed(draw("rectified")), symmetric=symmetric)
        assert found.low == 0
        # Normal with deviation 2: 99.99 % lie below 7.4, the largest of 200 000 near 8.8.
        assert 5 < found.high < 9.5
    grid = make_grid(find_range(observed(draw("rectified")), symmetric=False), symmetric=False)
    assert grid.zero_point == 0


@pytest.mark.parametrize("symmetric", [False, True])
def test_exact_zeros_change_nothing(symmetric: bool) -> None:
    values = draw("normal")
    plain, sparse = observed(values), observed(np.append(values, np.zeros(3 * VALUES)))
    a, b = (find_range(one, symmetric=symmetric) for one in (plain, sparse))
    assert (a.low, a.high) == (b.low, b.high)
    assert b.clipped == pytest.approx(a.clipped / 4)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(
    "values",
    [[0.0] * 5, [3.7] * 5, [-3.7] * 5, [2.0], [-1e-45], [1e-30], [3e38], [-3e38, 3e38], [0.0, 1.0]],
    ids=str,
)
def test_degenerate_values(symmetric: bool, values: list[float]) -> None:
    x = np.array(values, np.float32)
    found = find_range(observed(x), symmetric=symmetric)
    assert min(x.min(), 0) <= found.low <= 0 <= found.high <= max(x.max(), 0)
    grid = make_grid(found, symmetric)
    assert grid.round_trip(0.0) == 0
    assert np.abs(grid.round_trip(x).astype(np.float64) - x).max() <= grid.scale
    assert not np.signbit([found.low, found.high])[[found.low == 0, found.high == 0]].any()


@given(
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30),
    symmetric=st.booleans(),
)
@settings(deadline=None, max_examples=100)
def test_any_values_give_a_range_inside_what_was_seen(values: list[float], symmetric: bool) -> None:
    found = find_range(observed(values), symmetric=symmetric)
    assert min(*values, 0, 0) <= found.low <= 0 <= found.high <= max(*values, 0, 0)
    assert 0 <= found.clipped <= 1


@pytest.mark.parametrize("symmetric", [False, True])
def test_fewer_bits_clip_no_less(symmetric: bool) -> None:
    histogram = observed(draw("heavy"))
    coarse = find_range(histogram, symmetric=symmetric, bits=4)
    fine = find_range(histogram, symmetric=symmetric, bits=8)
    assert coarse.high < fine.high
    assert coarse.low > fine.low


def test_misuse() -> None:
    with pytest.raises(CalibrationError, match="no value was observed"):
        find_range(Histogram(), symmetric=False)
