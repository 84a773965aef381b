"""The streaming histogram against numpy's on all values at once."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mer_calibration import CalibrationError, Histogram
from mer_calibration.measure.histogram import BLOCK, HALF

#: Less than 2^164 apart: others may change sides of zero.
VALUES = st.floats(-(2.0**36), 2.0**36, width=32, allow_subnormal=False)
BATCHES = st.lists(st.lists(VALUES, min_size=1, max_size=20), min_size=1, max_size=6)


def count(*batches: NDArray[np.float32] | list[float]) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.update(np.asarray(batch, np.float32))
    return histogram


def same(a: Histogram, b: Histogram) -> bool:
    return (
        np.array_equal(a.counts, b.counts)
        and np.array_equal(a.edges, b.edges)
        and (a.low, a.high, a.count, a.zeros) == (b.low, b.high, b.count, b.zeros)
    )


def test_equals_numpy() -> None:
    generator = np.random.default_rng(0)
    batches = [generator.normal(0, s, (3, 50, 70)).astype(np.float32) for s in (1, 0.01, 20)]
    histogram = count(*batches)
    values = np.concatenate([batch.ravel() for batch in batches])
    expected, _ = np.histogram(values[values != 0], histogram.edges)
    assert np.array_equal(histogram.counts, expected)
    assert histogram.count == values.size
    assert (histogram.low, histogram.high) == (values.min(), values.max())
    assert histogram.limit / 2 <= np.abs(values).max() < histogram.limit
    assert math.log2(histogram.limit).is_integer()


def test_zeros_are_kept_apart() -> None:
    histogram = count(np.maximum(np.linspace(-1, 1, 2001), 0), [-0.0, 0.0])
    assert histogram.zeros == 1001 + 2
    assert histogram.count == 2003
    assert histogram.counts.sum() == 1000
    assert histogram.counts[:HALF].sum() == 0
    assert math.copysign(1, histogram.low) == 1


def test_bins_are_aligned_to_zero_as_the_range_grows() -> None:
    values = np.array([-0.75, -0.001, 0.001, 0.75], np.float32)
    histogram = count(values)
    assert histogram.limit == 1
    histogram.update(np.array([1000.0], np.float32))
    assert histogram.limit == 1024
    assert histogram.edges[HALF] == 0
    assert histogram.counts[:HALF].sum() == 2
    assert histogram.counts[HALF:].sum() == 3
    assert same(histogram, count([1000.0], values))


@given(batches=BATCHES, data=st.data())
@settings(deadline=None)
def test_order_and_division_do_not_matter(batches: list[list[float]], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(batches))
    assert same(count(*batches), count(*shuffled))
    assert same(count(*batches), count([x for batch in shuffled for x in batch]))


@given(batches=BATCHES)
@settings(deadline=None)
def test_nothing_is_lost(batches: list[list[float]]) -> None:
    histogram = count(*batches)
    values = np.array([x for batch in batches for x in batch], np.float32)
    assert histogram.counts.sum() + histogram.zeros == histogram.count == len(values)
    assert (histogram.low, histogram.high) == (values.min(), values.max())
    assert histogram.zeros == (values == 0).sum()
    for value in values[values != 0]:
        i = np.searchsorted(histogram.edges, value, "right") - 1
        assert histogram.counts[i]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_is_refused_and_changes_nothing(bad: float) -> None:
    histogram = count([1.0, 2.0])
    with pytest.raises(CalibrationError, match="not finite"):
        histogram.update(np.array([5.0, bad, 7.0], np.float32))
    assert same(histogram, count([1.0, 2.0]))


def test_other_types() -> None:
    assert same(count(np.arange(9)), count(np.arange(9.0)))
    histogram = Histogram()
    histogram.update(np.arange(9, dtype=np.uint8))
    histogram.update(np.empty((0, 3), np.float32))
    histogram.update(2.5)
    assert (histogram.count, histogram.zeros, histogram.high) == (10, 1, 8)
    with pytest.raises(CalibrationError, match="not finite"):
        histogram.update(np.array([1e300]))  # too large for float32


def test_empty() -> None:
    histogram = Histogram()
    assert histogram.count == 0
    assert math.isnan(histogram.low)
    assert math.isnan(histogram.high)
    assert histogram.share_outside(0, 1) == 0


def test_extremes() -> None:
    most, least = float(np.finfo(np.float32).max), 1e-45
    histogram = count([most, -most, least])
    assert histogram.limit == 2.0**128
    assert (histogram.counts[0], histogram.counts[HALF], histogram.counts[-1]) == (1, 1, 1)
    assert count([least, -least]).counts[HALF - 1 : HALF + 1].tolist() == [1, 1]


def test_share_outside() -> None:
    values = np.random.default_rng(3).normal(size=200_000).astype(np.float32)
    values[:50_000] = 0
    histogram = count(values)
    for low, high in [(-1, 2), (0, 1), (-0.5, 0), (-9, 9), (0.3, 0.31), (-9, 0.7)]:
        expected = float(((values < low) | (values > high)).mean())
        # Within the two bins that hold the ends: 2^-11 or less of a unit each.
        assert histogram.share_outside(low, high) == pytest.approx(expected, abs=1e-4)
    assert histogram.share_outside(histogram.low, histogram.high) == 0
    assert count([3.0]).share_outside(0, 3) == 0
    assert count([3.0]).share_outside(0, 2.9) == 1


def test_copies_no_more_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large tensor is counted block by block, each value once."""
    values = np.random.default_rng(0).normal(size=20 * BLOCK + 1).astype(np.float32)
    counted = []

    def bincount(index: NDArray[np.int64], minlength: int) -> NDArray[np.int64]:
        counted.append(index.size)
        return _bincount(index, minlength=minlength)

    _bincount = np.bincount
    monkeypatch.setattr("numpy.bincount", bincount)
    histogram = Histogram()
    tracemalloc.start()
    try:
        histogram.update(values)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert counted == [BLOCK] * 20 + [1]
    assert peak < values.nbytes / 2
