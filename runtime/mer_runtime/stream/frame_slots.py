"""Which frame of a stream each slot uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mer_runtime.inputs.picks import CLOCK_SLACK
from mer_runtime.stream.statistics import StreamStatistics

#: A picture (H, W, 3) uint8 RGB, or a function that makes it.
Image = NDArray[np.uint8] | Callable[[], NDArray[np.uint8]]


@dataclass(frozen=True)
class PickedFrame:
    """A frame that is used.

    Attributes:
        slot: the one that uses it; None stands for all before the first frame.
        frame: the frame's number: several slots may use the same one.
    """

    slot: int | None
    frame: int
    image: Image


class FrameSlots:
    """Picks, for each slot, the frame on screen at its middle: clip mode's rule.

    The first frame also stands in for the slots before it. A frame stays on screen until the
    next one, but not longer than ``stale`` seconds: a camera that vanished shows nothing.

    Args:
        origin: the clock's time at which slot 0 begins.
        slot: seconds.
        stale: seconds.
        statistics: counts late frames.
    """

    def __init__(
        self, origin: float, slot: float, stale: float, statistics: StreamStatistics
    ) -> None:
        self._origin = origin
        self._slot = slot
        self._stale = stale
        self._statistics = statistics
        self._image: Image | None = None
        self._time = origin
        self._frame = 0
        self._next = 0

    @property
    def next(self) -> int:
        """The first slot that isn't decided."""
        return self._next

    def offer(self, image: Image, time: float) -> list[PickedFrame]:
        """Take a frame; returns what it decides, in order of time."""
        if self._image is None:
            self._image, self._time = image, time
            return [PickedFrame(None, self._frame, image)]
        if time < self._time:
            self._statistics.late += 1
            return []
        picked = []
        while self._middle() < time - CLOCK_SLACK:
            picked += self._decide()
        self._image, self._time = image, time
        self._frame += 1
        return picked

    def decide_until(self, slot: int) -> list[PickedFrame]:
        """Decide all slots before ``slot`` without waiting for a later frame."""
        picked = []
        while self._next < slot:
            picked += self._decide()
        return picked

    def _middle(self) -> float:
        return self._origin + (self._next + 0.5) * self._slot

    def _decide(self) -> list[PickedFrame]:
        slot, middle = self._next, self._middle()
        self._next += 1
        if self._image is None or middle - self._time > self._stale + CLOCK_SLACK:
            return []
        return [PickedFrame(slot, self._frame, self._image)]
