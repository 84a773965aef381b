"""Device clocks on the session's: drift, jumps, pauses, and recordings at their own pace."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mer_runtime.live.sources.clock import JUMP, LiveClock, RecordedClock

CHUNK = 0.02  # seconds


@settings(max_examples=20, deadline=None)
@given(drift=st.floats(-0.001, 0.001), seed=st.integers(0, 99))
def test_drift_of_an_hour_is_followed(drift: float, seed: int) -> None:
    """A device that counts up to 0.1 % wrong stays within 30 ms, under jitter of up to 20 ms:
    10 ms for the drift within the span that the least delay is taken over, and as much again
    until the next one is over, and the jitter's own least values in between."""
    jitter = np.random.default_rng(seed).uniform(0, 0.02, 36_000)
    clock = LiveClock(1000.0)
    worst = 0.0
    for i in range(36_000):
        taken = 0.1 * i
        time = clock.place(0, 5e6 + taken * (1 + drift), 0.0, 1000 + taken + jitter[i])
        worst = max(worst, abs(time - taken - jitter[0]))
    assert worst < 0.03


def test_steps_are_small() -> None:
    """Slewing moves a chunk of 20 ms by 40 µs at most: no gap to be heard."""
    clock = LiveClock(0.0)
    times = [clock.place(0, i * CHUNK * 1.001, CHUNK, (i + 1) * CHUNK) for i in range(20_000)]
    assert np.abs(np.diff(times) - 1.001 * CHUNK).max() <= 0.002 * 1.001 * CHUNK + 1e-9


def test_picture_and_sound_keep_their_relation() -> None:
    """A container whose sound arrives half a second after its picture of the same time."""
    clock = LiveClock(0.0)
    for i in range(3000):
        picture = clock.place(0, 7 + i / 30, 0.0, i / 30)
        sound = clock.place(1, 7 + i / 30, 1 / 30, (i + 1) / 30 + 0.5)
        assert sound - picture == pytest.approx(0.0, abs=1e-6)


def test_a_count_that_begins_anew_goes_on() -> None:
    clock = LiveClock(0.0)
    for i in range(100):
        clock.place(0, 5000 + i / 10, 0.0, i / 10)
        clock.place(1, 5000 + i / 10, 0.0, i / 10)
    times = [
        (clock.place(0, i / 10, 0.0, 10 + i / 10), clock.place(1, i / 10, 0.0, 10 + i / 10))
        for i in range(100)
    ]
    assert times[0] == pytest.approx((10.0, 10.0))
    assert times[-1] == pytest.approx((19.9, 19.9))


def test_a_pause_is_a_gap() -> None:
    """A pipeline that stood still for a minute and counts on as if it hadn't."""
    clock = LiveClock(0.0)
    assert clock.place(0, 0.0, 0.0, 0.0) == 0.0
    assert clock.place(0, 0.1, 0.0, 60.1) == pytest.approx(60.1)


def test_a_burst_keeps_its_own_times() -> None:
    """A pipe from a file runs ahead of the clock; its times stay those of its stamps."""
    clock = LiveClock(0.0)
    times = [clock.place(0, i / 30, 0.0, 0.001 * i) for i in range(3000)]
    # Once it is known, the growing lead is slewed by 0.2 % at most.
    assert np.abs(np.diff(times) - 1 / 30).max() <= 0.002 / 30 + 1e-9


def test_sound_begins_before_it_arrives() -> None:
    assert LiveClock(0.0).place(0, 3.0, 0.5, 1.0) == pytest.approx(0.5)


class TestRecordedClock:
    def test_counts_from_the_first_stamp(self) -> None:
        clock = RecordedClock(Event(), paced=False)
        assert clock.place(0, 1.4, 0.0, 99.0) == 0.0
        assert clock.place(1, 1.9, 0.0, 0.0) == pytest.approx(0.5)

    @pytest.mark.parametrize(
        ("times", "paced", "expected"),
        [
            ((0.0, 0.3), True, [0.3]),
            ((0.0, 0.3), False, []),
            ((0.0, 2 * JUMP, 4 * JUMP, 0.0), True, []),  # holes are passed over
        ],
    )
    def test_waits_only_when_paced_and_not_for_holes(
        self,
        monkeypatch: pytest.MonkeyPatch,
        times: Sequence[float],
        paced: bool,
        expected: list[float],
    ) -> None:
        """No time goes by but by waiting: what is waited for is the recording's own time."""
        monkeypatch.setattr("mer_runtime.live.sources.clock.monotonic", lambda: 100.0)
        waited: list[float] = []

        class Stop(Event):
            def wait(self, timeout: float | None = None) -> bool:
                waited.append(timeout)
                return False

        clock = RecordedClock(Stop(), paced=paced)
        for time in times:
            clock.wait(time)
        assert waited == pytest.approx(expected)

    def test_stop_ends_a_wait(self) -> None:
        stop = Event()
        clock = RecordedClock(stop, paced=True)
        clock.wait(0.0)
        stop.set()
        clock.wait(JUMP - 0.1)
        assert stop.is_set()
