"""Clocks that drift, differ and jump."""

from __future__ import annotations

import numpy as np
import pytest

from mer_runtime.stream.sound_clock import TOLERANCE, SoundClock
from mer_runtime.stream.statistics import StreamStatistics


def follow(
    clock: SoundClock, *, since: float, until: float, drift: float = 0.0, offset: float = 0.0
) -> np.ndarray:
    """Feed both kinds for a while; the sound's error in seconds on the picture's clock.

    Deliveries are late by up to 80 ms, as of a busy machine.
    """
    generator = np.random.default_rng(0)
    errors = []
    for now in np.arange(since, until, 0.1):
        clock.see_frame(float(now), float(now + generator.exponential(0.02)))
        stamp = now * (1 + drift) + offset
        shift = clock.see_sound(float(stamp), float(now + generator.uniform(0, 0.08)))
        errors.append(stamp + shift - now)
    return np.array(errors)


@pytest.mark.parametrize("drift", [1e-3, -1e-3])
def test_an_hour_of_drift_stays_within_the_tolerance(drift: float) -> None:
    statistics = StreamStatistics()
    errors = follow(SoundClock(statistics), since=0.0, until=3600.0, drift=drift)
    # The least delay is sought over 5 to 10 s, in which the drift is 10 ms, and it is found to
    # a few ms; without the correction the error would be 3.6 s.
    assert np.abs(errors).max() < TOLERANCE + 0.03
    # 3.6 s in steps of 0.1 s.
    assert 30 <= statistics.realigned <= 40


def test_a_small_difference_from_the_beginning_is_meant() -> None:
    statistics = StreamStatistics()
    errors = follow(SoundClock(statistics), since=0.0, until=60.0, offset=-0.4)
    np.testing.assert_allclose(errors, -0.4, atol=1e-9)
    assert statistics.realigned == 0


def test_unrelated_clocks_are_brought_together() -> None:
    statistics = StreamStatistics()
    errors = follow(SoundClock(statistics), since=0.0, until=60.0, offset=1.7e9)
    # 80 ms of jitter at the first chunk, which later ones correct.
    assert np.abs(errors).max() < 2 * TOLERANCE
    assert statistics.realigned <= 2


def test_a_clock_set_anew_is_followed() -> None:
    statistics = StreamStatistics()
    clock = SoundClock(statistics)
    follow(clock, since=0.0, until=20.0)
    errors = follow(clock, since=20.0, until=40.0, offset=-500.0)
    assert np.abs(errors).max() < 2 * TOLERANCE
    assert statistics.realigned >= 1
