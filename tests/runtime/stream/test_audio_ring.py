"""The sound's ring buffer against a dictionary of samples, and against clip mode's buffer."""

from __future__ import annotations

from fractions import Fraction
from itertools import cycle

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mer_runtime.inputs.waveform import MARGIN, STAMP_SLACK, WaveformBuffer
from mer_runtime.stream.audio_ring import LOOKAHEAD, AudioRing, clean
from mer_runtime.stream.statistics import StreamStatistics

RATE = 1000  # low, so that a ring of a second is quick to compare sample by sample
HELD = 1.5  # seconds
WINDOW = 0.5


class Oracle:
    """Every sample ever given by its index: what the ring would be without an end."""

    def __init__(self) -> None:
        self.samples: dict[int, float] = {}
        self.next: int | None = None
        self.end = 0

    def add(self, samples: NDArray[np.float32], time: float) -> None:
        at = round(time * RATE)
        if self.next is None:
            self.end = at
        elif abs(at - self.next) <= STAMP_SLACK * RATE:
            at = self.next
        self.next = at + len(samples)
        self.end = max(self.end, self.next)
        # A chunk's beginning that is older than what is held never counts.
        held = {at + i: float(v) for i, v in enumerate(samples) if at + i >= self.end - HELD * RATE}
        self.samples.update(held)

    def window(self, start: float) -> NDArray[np.float32]:
        first = round((start - MARGIN) * RATE)
        places = range(first, first + round((WINDOW + 2 * MARGIN) * RATE))
        held = range(self.end - round(HELD * RATE), self.end)
        return np.array([self.samples.get(i, 0.0) if i in held else 0.0 for i in places], "f4")


steps = st.lists(
    st.tuples(
        st.integers(0, 2500),  # samples: none, one, more than the ring holds
        st.one_of(
            st.floats(-0.004, 0.004),  # contiguous but for the stamp's jitter
            st.floats(-0.8, 0.8),  # overlaps, reordering, gaps
            st.sampled_from([-30.0, -3.0, 2.0, 40.0]),  # further than the ring reaches
        ),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=80, deadline=None)
@given(steps)
def test_ring_holds_what_an_endless_buffer_would(steps: list[tuple[int, float]]) -> None:
    statistics = StreamStatistics()
    ring, oracle = AudioRing(0.0, HELD, statistics), Oracle()
    time, value, memory = 0.0, 1.0, 0
    for count, jump in steps:
        samples = np.arange(value, value + count, dtype=np.float32)
        value += count
        ring.add(samples, RATE, time + jump)
        oracle.add(samples, time + jump)
        time += jump + count / RATE
        assert ring.head == pytest.approx(oracle.end / RATE)
        memory = memory or ring.nbytes
        assert ring.nbytes == memory
        for back in (0.0, 0.3, 1.4, -0.2, 5.0):
            start = oracle.end / RATE - WINDOW - back
            window = ring.window(start, WINDOW)
            expected = oracle.window(start)
            if window is None:
                assert not expected.any()
            else:
                np.testing.assert_array_equal(window.samples, expected)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([8_000, 16_000, 22_050, 44_100, 48_000]),
    st.lists(st.floats(1e-4, 0.25), min_size=1, max_size=20),
    st.integers(0, 99),
)
def test_window_is_that_of_clip_mode(rate: int, chunks: list[float], seed: int) -> None:
    # The chunks' sizes don't matter, nor what lies before, nor 2.5 ms after the window.
    start, seconds = 0.96, 0.6
    generator = np.random.default_rng(seed)
    sound = generator.uniform(-0.9, 0.9, 2 * rate).astype(np.float32)
    end = int((start + seconds + LOOKAHEAD) * rate) + 1

    buffer = WaveformBuffer(start, round(seconds * 16_000), 16_000)
    frame = av.AudioFrame.from_ndarray(sound[None], format="flt", layout="mono")
    frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
    buffer.add(frame, 0.0)

    ring = AudioRing(0.0, 1.5, StreamStatistics())
    at = 0
    for chunk in cycle(chunks):
        size = min(max(round(chunk * rate), 1), end - at)
        ring.add(sound[at : at + size], rate, at / rate)
        at += size
        if at == end:
            break
    window = ring.window(start, seconds)
    assert window is not None
    # Nothing differs but in which order a resampler's block was summed.
    difference = window.waveform(round(seconds * 16_000), 16_000) - buffer.waveform()
    assert np.abs(difference).max() <= 1e-6


@pytest.mark.parametrize("rates", [(48_000, 44_100), (8_000, 48_000), (22_050, 16_000)])
def test_rate_changes_without_a_seam(rates: tuple[int, int]) -> None:
    statistics = StreamStatistics()
    ring = AudioRing(0.0, 3.0, statistics)
    for part, rate in enumerate(rates):
        ticks = part + np.arange(rate) / rate
        tone = (0.5 * np.sin(2 * np.pi * 440 * ticks)).astype(np.float32)
        for first in range(0, rate, rate // 10):
            ring.add(tone[first : first + rate // 10], rate, part + first / rate)
    window = ring.window(0.2, 1.6)
    assert window is not None
    heard = window.waveform(25_600, 16_000)
    expected = 0.5 * np.sin(2 * np.pi * 440 * (0.2 + np.arange(25_600) / 16_000))
    # Up to a sample's rounding of the seam at the lower rate, on 440 Hz: 2 pi 440 / 8000 / 2
    # of 0.5, and the resamplers' ripple.
    assert np.abs(heard - expected).max() < 0.1
    assert statistics.rates == 1
    assert statistics.gaps == 0


def test_counts_gaps_and_late_samples() -> None:
    statistics = StreamStatistics()
    ring = AudioRing(0.0, 1.0, statistics)
    for time in (0.0, 0.1, 0.3):
        ring.add(np.ones(100, np.float32), RATE, time)
    assert statistics.gaps == 1
    ring.add(np.ones(100, np.float32), RATE, 0.2)  # comes late, and fills the gap
    window = ring.window(0.1, 0.2)
    assert window is not None
    assert window.samples.all()
    assert statistics.late_samples == 0
    ring.add(np.ones(100, np.float32), RATE, -0.65)  # half of it is older than a second
    assert statistics.late_samples == 50


def test_what_is_no_number_becomes_zero() -> None:
    statistics = StreamStatistics()
    samples = np.array([0.5, np.nan, np.inf, -np.inf, 3e38, 1.5], np.float32)
    np.testing.assert_array_equal(
        clean(samples[None], statistics), np.array([[0.5, 0, 0, 0, 0, 1.5]], "f4")
    )
    assert (statistics.samples, statistics.non_finite) == (6, 4)


def test_levels_are_kept() -> None:
    ring = AudioRing(0.0, 2.0, StreamStatistics())
    ring.add(np.full(2 * 48_000, 7.0, np.float32), 48_000, 0.0)
    window = ring.window(0.5, 1.0)
    assert window is not None
    assert window.waveform(16_000, 16_000) == pytest.approx(7.0, abs=1e-4)
