"""Ranges from histograms, judged by the error they really cause on the values themselves."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mer_calibration import (
    METHODS,
    CalibrationError,
    Grid,
    Histogram,
    Method,
    Range,
    asymmetric_grid,
    find_range,
    symmetric_grid,
)
from mer_calibration.observers import PERCENTILE, expected_errors

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


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_mse_has_the_least_error(name: str, symmetric: bool) -> None:
    values = draw(name)
    histogram = observed(values)
    errors = {
        method: measure_error(
            values, make_grid(find_range(histogram, method, symmetric=symmetric), symmetric)
        )
        for method in METHODS
    }
    assert errors["mse"] <= min(errors.values())


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_mse_is_near_the_best_of_an_exhaustive_search(name: str, symmetric: bool) -> None:
    values = draw(name)[-20_000:]  # the outliers are last
    histogram = observed(values)
    found = find_range(histogram, "mse", symmetric=symmetric)
    low, high = min(histogram.low, 0), max(histogram.high, 0)
    if symmetric:
        low, high = -max(-low, high), max(-low, high)
    factors = np.linspace(1, 0.01, 34)
    pairs = (
        [(a, a) for a in factors] if symmetric else [(a, b) for a in factors[::3] for b in factors]
    )
    best = min(
        measure_error(values, make_grid(Range(a * low, b * high, "mse", 0, 0, 0), symmetric))
        for a, b in pairs
    )
    # Half a percent: the zero-point's rounding makes small jumps that no search follows.
    assert measure_error(values, make_grid(found, symmetric)) <= 1.005 * best


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


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_percentile_is_numpys(name: str) -> None:
    values = draw(name)
    histogram = observed(values)
    found = find_range(histogram, "percentile", symmetric=False)
    tail = (100 - PERCENTILE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    # numpy interpolates between two values, in sparse tails bins apart: either is right.
    ordered = np.sort(values)
    rank = int(tail / 100 * (len(values) - 1))
    gap_low = float(ordered[rank + 1] - ordered[rank])
    gap_high = float(ordered[-rank - 1] - ordered[-rank - 2])
    assert found.low == pytest.approx(min(low, 0), abs=histogram.width + gap_low)
    assert found.high == pytest.approx(max(high, 0), abs=histogram.width + gap_high)

    found = find_range(histogram, "percentile", symmetric=True)
    magnitudes = np.sort(np.abs(values))
    rank = int(PERCENTILE / 100 * (len(values) - 1))
    gap = float(magnitudes[rank + 1] - magnitudes[rank])
    expected = np.percentile(magnitudes, PERCENTILE)
    assert found.high == pytest.approx(expected, abs=histogram.width + gap)
    assert found.low == -found.high


@pytest.mark.parametrize("symmetric", [False, True])
def test_minmax_holds_all(symmetric: bool) -> None:
    for name in DISTRIBUTIONS:
        values = draw(name)
        found = find_range(observed(values), "minmax", symmetric=symmetric)
        assert found.low <= values.min()
        assert found.high >= values.max()
        assert found.clipped == 0
        assert (found.seen_low, found.seen_high) == (values.min(), values.max())


@pytest.mark.parametrize("symmetric", [False, True])
def test_entropy_clips_far_outliers(symmetric: bool) -> None:
    found = find_range(observed(draw("outlier")), "entropy", symmetric=symmetric)
    # Laplace: one in 160 000 lies beyond 12, the smallest of 200 000 near -12.
    assert 8 < found.high < 30
    assert -30 < found.low < -8
    assert 0 < found.clipped < 1e-3


@pytest.mark.parametrize("n", [3_000, 1_000_000])  # with many an empty bin, with hardly any
def test_entropy_is_tensorrts_on_a_normal_distribution(n: int) -> None:
    """A plain, slow rendering of Migacz's pseudocode chooses the same threshold."""
    values = np.random.default_rng(8).normal(0, 1, n).astype(np.float32)
    values[:3] = (7.9, -7.99, 7.999)  # 2048 bins up to 8 are whole bins of the histogram
    found = find_range(observed(values), "entropy", symmetric=True)
    counts, edges = np.histogram(np.abs(values), 2048, range=(0, 8))
    divergences = {}
    for bins in range(2048, 127, -4):
        clipped = counts[:bins].astype(float)
        clipped[-1] += counts[bins:].sum()
        quantised = np.zeros(bins)
        borders = [bins * i // 128 for i in range(129)]
        for start, end in itertools.pairwise(borders):
            used = clipped[start:end] > 0
            share = counts[start:end].sum() / max(used.sum(), 1)
            quantised[start:end] = np.where(used, share, 0)
        p, q = clipped / clipped.sum(), quantised / quantised.sum()
        used = p > 0
        if q[used].all():  # otherwise they diverge without bound
            divergences[edges[bins]] = float((p[used] * np.log(p[used] / q[used])).sum())
    assert found.high == min(divergences, key=lambda threshold: divergences[threshold])
    assert 3 < found.high < 6


@pytest.mark.parametrize("method", METHODS)
def test_rectified_values_keep_zero_as_their_end(method: Method) -> None:
    found = find_range(observed(draw("rectified")), method, symmetric=False)
    assert found.low == 0
    # Normal with deviation 2: 99.99 % lie below 7.4, the largest of 200 000 near 8.8.
    assert 5 < found.high < 9.5
    grid = make_grid(found, symmetric=False)
    assert grid.zero_point == 0


@pytest.mark.parametrize("method", ["minmax", "entropy", "mse"])
def test_exact_zeros_change_nothing(method: Method) -> None:
    """But to a percentile they are values like any others."""
    values = draw("normal")
    plain, sparse = observed(values), observed(np.append(values, np.zeros(3 * VALUES)))
    for symmetric in (False, True):
        a = find_range(plain, method, symmetric=symmetric)
        b = find_range(sparse, method, symmetric=symmetric)
        assert (a.low, a.high) == (b.low, b.high)
        assert b.clipped == pytest.approx(a.clipped / 4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(
    "values",
    [[0.0] * 5, [3.7] * 5, [-3.7] * 5, [2.0], [-1e-45], [1e-30], [3e38], [-3e38, 3e38], [0.0, 1.0]],
    ids=str,
)
def test_degenerate_values(method: Method, symmetric: bool, values: list[float]) -> None:
    x = np.array(values, np.float32)
    found = find_range(observed(x), method, symmetric=symmetric)
    assert found.low <= 0 <= found.high
    assert not symmetric or found.low == -found.high
    grid = make_grid(found, symmetric)
    assert grid.round_trip(0.0) == 0
    assert np.abs(grid.round_trip(x).astype(np.float64) - x).max() <= grid.scale
    assert not np.signbit([found.low, found.high])[[found.low == 0, found.high == 0]].any()


@given(
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30),
    method=st.sampled_from(METHODS),
    symmetric=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_any_values_give_a_range_inside_what_was_seen(
    values: list[float], method: Method, symmetric: bool
) -> None:
    found = find_range(observed(values), method, symmetric=symmetric)
    most = max(map(abs, values))
    low, high = (-most, most) if symmetric else (min(*values, 0), max(*values, 0))
    assert low <= found.low <= 0 <= found.high <= high
    assert 0 <= found.clipped <= 1
    assert found.method == method


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_fewer_bits_clip_no_less(method: Method, symmetric: bool) -> None:
    histogram = observed(draw("heavy"))
    coarse = find_range(histogram, method, symmetric=symmetric, bits=4)
    fine = find_range(histogram, method, symmetric=symmetric, bits=8)
    assert coarse.high <= fine.high
    assert coarse.low >= fine.low


def test_misuse() -> None:
    with pytest.raises(CalibrationError, match="no value was observed"):
        find_range(Histogram(), "minmax", symmetric=False)
    with pytest.raises(CalibrationError, match="no method 'max' to choose ranges: use minmax, "):
        find_range(observed([1.0]), "max", symmetric=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_is_fast(method: Method) -> None:
    """At most 25 ms alone on a core; ten times that on a busy machine."""
    histogram = observed(draw("skewed"))
    times = []
    for _ in range(3):
        start = time.perf_counter()
        find_range(histogram, method, symmetric=False)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.25


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_wide_is_a_quarter_wider_than_mse_but_not_than_what_was_seen(name: str) -> None:
    histogram = observed(draw(name))
    least = find_range(histogram, "mse", symmetric=False)
    wide = find_range(histogram, "wide", symmetric=False)
    assert wide.low == max(1.25 * least.low, min(histogram.low, 0))
    assert wide.high == min(1.25 * least.high, max(histogram.high, 0))


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_wide_symmetric_ranges_are_a_tenth_wider(name: str) -> None:
    histogram = observed(draw(name))
    least = find_range(histogram, "mse", symmetric=True)
    wide = find_range(histogram, "wide", symmetric=True)
    seen = max(-histogram.low, histogram.high)
    assert wide.high == pytest.approx(min(1.1 * least.high, seen))
    assert wide.low == -wide.high
