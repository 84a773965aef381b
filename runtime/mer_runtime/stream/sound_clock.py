"""Keeps the sound's clock on the picture's: two devices' clocks drift apart."""

from __future__ import annotations

from mer_runtime.stream.statistics import StreamStatistics

#: Seconds over which the least delay is sought, twice.
SPAN = 5.0
#: Seconds by which the clocks may drift before the sound is shifted.
TOLERANCE = 0.1
#: Seconds of difference from the beginning that are believed; more means unrelated clocks.
TRUSTED = 1.0
#: Seconds; a delay that changes by more is a clock set anew, not a slow delivery.
CLOCK_SET = 3.6


class SoundClock:
    """Finds by how much the sound's times must be shifted to stay with the picture's.

    Delivery only adds to a constant delay, so the least of ``arrival - time`` over some seconds
    shows how two clocks differ (as in NTP's clock filter). The difference of the two kinds in
    the first seconds is taken as meant; what it changes by later is drift, and is corrected in
    steps of ``TOLERANCE``.
    """

    def __init__(self, statistics: StreamStatistics) -> None:
        self._statistics = statistics
        self._video = _LeastDelay()
        self._audio = _LeastDelay()
        self._meant = 0.0
        self._settled: float | None = None
        self._shift = 0.0

    def see_frame(self, time: float, arrival: float) -> None:
        """A frame stamped ``time`` arrived at ``arrival`` seconds of a monotonic clock."""
        self._video.add(arrival - time, arrival)

    def see_sound(self, end: float, arrival: float) -> float:
        """The same for a chunk's end; returns the seconds to add to the sound's times."""
        self._audio.add(arrival - end, arrival)
        video, audio = self._video.least, self._audio.least
        if video is None or audio is None:
            return self._shift
        if self._settled is None:
            self._settled = arrival + SPAN
        drift = audio - video - self._shift - self._meant
        if arrival < self._settled and abs(drift + self._meant) <= TRUSTED:
            self._meant += drift
        elif abs(drift) > TOLERANCE:
            self._shift += drift
            self._statistics.realigned += 1
        return self._shift


class _LeastDelay:
    """The least value of the last ``SPAN`` to two ``SPAN`` seconds."""

    def __init__(self) -> None:
        self.least: float | None = None
        self._earlier = float("inf")
        self._recent = float("inf")
        self._turn = 0.0

    def add(self, delay: float, now: float) -> None:
        if self.least is None or abs(delay - self.least) > CLOCK_SET:
            self._earlier, self._recent, self._turn = float("inf"), float("inf"), now + SPAN
        elif now >= self._turn:
            self._earlier, self._recent, self._turn = self._recent, float("inf"), now + SPAN
        self._recent = min(self._recent, delay)
        self.least = min(self._earlier, self._recent)
