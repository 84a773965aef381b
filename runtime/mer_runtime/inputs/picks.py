"""Which frames of a clip its window shows, known before they are decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Seconds; a frame counts as shown at a time that rounding put this much before it.
CLOCK_SLACK = 1e-4

#: Told of each picture of a window as soon as it is there: its place, and (H, W, 3) uint8 RGB.
#: Place 0 again: decoding began anew, and the earlier pictures don't count.
Watcher = Callable[[int, NDArray[np.uint8]], None]


class FramePicks:
    """Keeps, of frames in order of time, those on screen at the middle of each slot.

    Before the first frame and after the last, those stand in.

    Args:
        start: seconds at which the window begins; slot i is shown at ``start + (i + 0.5) * slot``.
        watch: told of each picture.
    """

    def __init__(self, start: float, slot: float, count: int, watch: Watcher | None = None) -> None:
        self._times = [start + (i + 0.5) * slot for i in range(count)]
        self._watch = watch
        self._current: Any = None
        self._shown: Any = None
        self._stamps: list[int | None] = []
        self._pictures: NDArray[np.uint8] | None = None
        self._size = (0, 0)

    @property
    def first(self) -> float:
        """Seconds at which slot 0 is shown."""
        return self._times[0]

    @property
    def last(self) -> float:
        """Seconds at which the last slot is shown."""
        return self._times[-1]

    @property
    def empty(self) -> bool:
        """Whether no frame was offered."""
        return self._current is None

    @property
    def full(self) -> bool:
        """Whether no later frame can be shown in the window."""
        return len(self._stamps) == len(self._times)

    def choose(self, frames: Sequence[tuple[float, int]]) -> list[int]:
        """Time stamps of the frames that ``offer`` will pick for each slot, if all are offered.

        Args:
            frames: (seconds, time stamp) of at least one, and of all up to ``last``.
        """
        ordered = sorted(frames)
        seconds = [time - CLOCK_SLACK for time, _ in ordered]
        after = np.searchsorted(seconds, self._times, side="right")
        return [ordered[max(int(i) - 1, 0)][1] for i in after]

    def picked(self, stamps: Sequence[int]) -> bool:
        """Whether the frames picked are those with these time stamps."""
        return self._stamps == list(stamps)

    def offer(self, frame: Any, time: float) -> None:
        """Take the next ``av.VideoFrame``, shown from ``time`` seconds on."""
        if self._current is not None:
            while not self.full and self._times[len(self._stamps)] < time - CLOCK_SLACK:
                self._pick()
        self._current = frame

    def finish(self) -> NDArray[np.uint8] | None:
        """(count, H, W, 3) uint8 RGB, upright; None if there was no frame."""
        if self._current is not None:
            while not self.full:
                self._pick()
        return self._pictures

    def _pick(self) -> None:
        i, frame = len(self._stamps), self._current
        self._stamps.append(frame.pts)
        pictures = self._pictures
        if pictures is None or frame is not self._shown:
            pictures = self._draw(i, frame)
        else:
            pictures[i] = pictures[i - 1]
        self._shown = frame
        if self._watch is not None:
            self._watch(i, pictures[i])

    def _draw(self, i: int, frame: Any) -> NDArray[np.uint8]:
        # A stream may change its size midway; all frames take the first one's.
        if i == 0:
            self._size = (frame.width, frame.height)
        width, height = self._size
        rgb = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
        upright = np.rot90(rgb, round(getattr(frame, "rotation", 0) / 90))
        if self._pictures is None:
            self._pictures = np.empty((len(self._times), *upright.shape), np.uint8)
        self._pictures[i] = upright
        return self._pictures
