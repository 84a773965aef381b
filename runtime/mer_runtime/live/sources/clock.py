"""Time stamps of devices and streams on the session's clock."""

from __future__ import annotations

import math
from threading import Event
from time import monotonic

#: Seconds over which a stream's least delay is taken; one late frame says nothing.
SPAN = 10.0
#: Seconds a second by which a stream's clock is brought back: twice what cheap crystals are off.
MAX_SLEW = 0.002
#: Seconds: a stamp this far off its time or from the one before belongs to a new count.
JUMP = 10.0


class LiveClock:
    """Places the streams of one container on the session's clock, which counts from ``start``.

    A stream's first stamp is taken for the moment of its arrival; the container's other stream
    shares that, so picture and sound keep their relation. From then on a stream's clock is held to
    the machine's: where its least delay grows or shrinks, its times are slewed. Two devices of
    which one counts 0.1 % fast stay together for hours. A source that begins to count anew, or
    goes on after a long pause, is placed by its arrival again.
    """

    recorded = False

    def __init__(self, start: float) -> None:
        self._start = start
        self._offset: float | None = None
        self._tracks: dict[int, _Track] = {}

    def place(self, stream: int, stamp: float, length: float, arrival: float) -> float:
        """When something was taken, in seconds of the session.

        Args:
            stream: its index in the container.
            stamp: the container's time of its beginning, in seconds.
            length: how long it lasts: a frame's is 0, it arrives as it is taken.
            arrival: when it came, by ``time.monotonic``.
        """
        arrival -= self._start
        anchored = arrival - length - stamp
        if self._offset is None:
            self._offset = anchored
        track = self._tracks.get(stream)
        if track is None:
            track = self._tracks[stream] = _Track(self._offset)
        delay = anchored - track.offset
        counts_anew = track.next is not None and abs(stamp - track.next) > JUMP
        if delay > JUMP or (counts_anew and delay < -JUMP):
            if abs(anchored - self._offset) > JUMP:  # the other stream hasn't jumped yet
                self._offset = anchored
            track = self._tracks[stream] = _Track(self._offset)
            delay = anchored - track.offset
        track.follow(stamp, length, delay, arrival)
        return stamp + track.offset


class _Track:
    """One stream's offset, slewed so that its least delay stays what it was at first."""

    def __init__(self, offset: float) -> None:
        self.offset = offset
        self.next: float | None = None
        self._usual: float | None = None
        self._least = math.inf
        self._until: float | None = None
        self._slew = 0.0

    def follow(self, stamp: float, length: float, delay: float, arrival: float) -> None:
        if self.next is not None and 0 < stamp + length - self.next < JUMP:
            self.offset += self._slew * (stamp + length - self.next)
        self.next = stamp + length
        self._least = min(self._least, delay)
        if self._until is None:
            self._until = arrival + SPAN
        elif arrival >= self._until:
            if self._usual is None:
                self._usual = self._least
            self._slew = min(max((self._least - self._usual) / SPAN, -MAX_SLEW), MAX_SLEW)
            self._least, self._until = math.inf, arrival + SPAN


class RecordedClock:
    """Times of a recording: they count from its first stamp, and arrivals don't matter.

    Args:
        stop: ends a wait.
        paced: whether ``wait`` holds a moment back until it is due, as a camera would give it.
    """

    recorded = True

    def __init__(self, stop: Event, *, paced: bool) -> None:
        self._stop = stop
        self._paced = paced
        self._first: float | None = None
        self._due: float | None = None
        self._last = 0.0

    @property
    def first(self) -> float | None:
        """The time stamp that counts as 0; None before there was one."""
        return self._first

    def place(self, stream: int, stamp: float, length: float, arrival: float) -> float:
        if self._first is None:
            self._first = stamp
        return stamp - self._first

    def wait(self, time: float) -> None:
        """Return when ``time`` seconds of the recording are over."""
        if not self._paced:
            return
        # A hole in the recording, or stamps that begin anew, are passed over at once.
        if self._due is None or abs(time - self._last) > JUMP:
            self._due = monotonic() - time
        self._last = time
        ahead = self._due + time - monotonic()
        if ahead > 0:
            self._stop.wait(ahead)
