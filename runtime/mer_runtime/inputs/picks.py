"""Which frames of a clip its window shows, known before they are decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_runtime.inputs.picture import FrameDrawer

#: Seconds; a frame counts as shown at a time that rounding put this much before it.
CLOCK_SLACK = 1e-4
#: Share of a window for which a frame stays on screen where no other follows, 1.8 of 3.6 s: a
#: camera that stopped shows nothing.
STALE = 0.5

#: Told of each picture of a window as soon as it is there: its place, and (H, W, 3) uint8 RGB.
#: Place 0 again: decoding began anew, and the earlier pictures don't count.
Watcher = Callable[[int, NDArray[np.uint8]], None]


class FramePicks:
    """Keeps, of frames in order of time, those on screen at the middle of each slot.

    The first frame stands in for the slots before it, unless it comes after the window. A frame
    stays on screen for ``STALE`` of the window at most. A slot that has none then takes the
    nearest one's, the earlier of two equals, and isn't ``shown``.

    Args:
        start: seconds at which the window begins; slot i is shown at ``start + (i + 0.5) * slot``.
        watch: told of each picture.
        drawer: shows the stream's frames.
    """

    def __init__(
        self,
        start: float,
        slot: float,
        count: int,
        watch: Watcher | None = None,
        *,
        drawer: FrameDrawer | None = None,
    ) -> None:
        self._times = [start + (i + 0.5) * slot for i in range(count)]
        self._end = start + count * slot
        self._stale = STALE * count * slot
        self._watch = watch
        self._drawer = drawer or FrameDrawer()
        self._current: Any = None
        self._since = 0.0  # when the current frame came on screen
        self._drawn: Any = None
        self._stamps: list[int | None] = []
        self._shown: list[bool] = []
        self._told = 0  # pictures that are there
        self._pictures: NDArray[np.uint8] | None = None
        self._size = (0, 0)

    @property
    def first(self) -> float:
        """Seconds at which slot 0 is shown."""
        return self._times[0]

    @property
    def empty(self) -> bool:
        """Whether no frame was offered."""
        return self._current is None

    @property
    def full(self) -> bool:
        """Whether no later frame can be shown in the window."""
        return len(self._stamps) == len(self._times)

    @property
    def shown(self) -> NDArray[np.bool_]:
        """(count,) where a slot has a frame of its own, after ``finish``."""
        return np.array(self._shown + [False] * (len(self._times) - len(self._shown)))

    def choose(self, frames: Sequence[tuple[float, int]]) -> list[int | None]:
        """Time stamps of the frames that ``offer`` will pick for each slot, if all are offered.

        Args:
            frames: (seconds, time stamp) of at least one, and of all up to the window's end.
        """
        ordered = sorted(frames)
        seconds = [time - CLOCK_SLACK for time, _ in ordered]
        after = np.searchsorted(seconds, self._times, side="right")
        chosen = [ordered[max(int(i) - 1, 0)] for i in after]
        return [
            stamp if self._on_screen(since, time) else None
            for (since, stamp), time in zip(chosen, self._times, strict=True)
        ]

    def picked(self, stamps: Sequence[int | None]) -> bool:
        """Whether the frames picked are those with these time stamps."""
        return self._stamps == list(stamps)

    def offer(self, frame: Any, time: float) -> None:
        """Take the next ``av.VideoFrame``, shown from ``time`` seconds on."""
        if self._current is not None:
            while not self.full and self._times[len(self._stamps)] < time - CLOCK_SLACK:
                self._pick()
        self._current, self._since = frame, time

    def finish(self) -> NDArray[np.uint8] | None:
        """(count, H, W, 3) uint8 RGB, upright; None if no slot has a frame."""
        if self._current is not None:
            while not self.full:
                self._pick()
        if self._pictures is not None:
            self._tell_until(len(self._times))
        return self._pictures

    def _on_screen(self, since: float, time: float) -> bool:
        return since < self._end and time - since <= self._stale + CLOCK_SLACK

    def _pick(self) -> None:
        i, frame = len(self._stamps), self._current
        self._shown.append(self._on_screen(self._since, self._times[i]))
        self._stamps.append(frame.pts if self._shown[i] else None)
        if not self._shown[i]:
            return
        if self._pictures is not None and frame is self._drawn:
            self._pictures[i] = self._pictures[i - 1]  # a frame's slots are neighbours
        else:
            self._draw(i, frame)
        self._drawn = frame
        self._tell_until(i + 1)

    def _draw(self, i: int, frame: Any) -> None:
        # A stream may change its size midway; all frames take the first one's.
        if self._pictures is None:
            self._size = self._drawer.size(frame)
            width, height = self._size
            self._pictures = np.empty((len(self._times), height, width, 3), np.uint8)
        self._pictures[i] = self._drawer.draw(frame, self._size)

    def _tell_until(self, end: int) -> None:
        """Tell of the pictures before place ``end``, after filling those that aren't shown."""
        assert self._pictures is not None
        places = [k for k in range(len(self._shown)) if self._shown[k]]
        for i in range(self._told, end):
            if not self._shown[i]:
                self._pictures[i] = self._pictures[min(places, key=lambda k: (abs(k - i), k))]
            if self._watch is not None:
                self._watch(i, self._pictures[i])
        self._told = end
