"""Which of a recording's frames a stream uses, known before they are decoded."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from math import ceil, inf
from typing import Any

import av

from mer_runtime.inputs.picks import CLOCK_SLACK

#: Seconds of packets that are read before one is decoded.
LOOK_AHEAD = 1.0
#: Bytes and number of packets that may be held for that; beyond, every frame is decoded.
HELD_BYTES, HELD_PACKETS = 64_000_000, 50_000
#: Frames that a decoder may take before one that is shown earlier.
REORDERED = 64
#: Seconds by which a frame counts as on screen longer than it is: rounding must not decide.
SLACK = CLOCK_SLACK + 1e-6


class SparingChoice:
    """Tells the frames that are on screen in the middle of a slot from those that may be skipped.

    Slots are counted from ``origin``. Where that may change, as time stamps leap, and where they
    don't tell, every frame is needed from there on; so are the first and the last ones.

    Args:
        slot: seconds.
        origin: the time stamp, in seconds, at which slot 0 begins; None until that is known.
    """

    def __init__(self, slot: float, origin: Callable[[], float | None]) -> None:
        self._slot, self._origin = slot, origin
        self._shown: list[float] = []  # when the frames ahead, and the last ones, are shown: sorted
        self._first = inf  # when the recording's first frame is
        self._decoded: dict[int, float] = {}  # the newest of the packets seen, by stream
        self._all = False  # every frame is needed from here on

    def follow(self, packets: Iterable[Any]) -> Iterator[Any]:
        """The packets, each after those of the next second were seen."""
        ahead: deque[tuple[float, Any]] = deque()
        held = 0
        for packet in packets:
            self._see(packet)
            reach = _seconds(packet, packet.dts) if packet.dts is not None else 0.0
            ahead.append((reach, packet))
            held += packet.size
            self._all |= held > HELD_BYTES or len(ahead) > HELD_PACKETS
            while ahead and (self._all or reach - ahead[0][0] > LOOK_AHEAD):
                _, first = ahead.popleft()
                held -= first.size
                yield first
        self._all = True  # nothing comes after these
        yield from (packet for _, packet in ahead)

    def needs(self, packet: Any) -> bool:
        """Whether a packet's frame is to be decoded."""
        origin = self._origin()
        if self._all or origin is None or packet.pts is None:
            return True
        shown = _seconds(packet, packet.pts)
        until = self._find_following(shown, packet.stream.index)
        if until is None:
            return True
        slot = ceil((shown - SLACK - origin) / self._slot - 0.5)
        middle = origin + (slot + 0.5) * self._slot  # the first one from this frame on
        return middle < until + SLACK - CLOCK_SLACK

    def _find_following(self, shown: float, stream: int) -> float | None:
        """When the next frame is shown; None of the first and last frames, and where it isn't sure.

        Frames that no decoder can give any more are forgotten.
        """
        after = bisect_right(self._shown, shown)
        if shown < self._first + LOOK_AHEAD or len(self._shown) - after < 2:
            return None
        following = self._shown[after]
        del self._shown[: max(after - REORDERED, 0)]
        is_certain = following <= self._decoded[stream]  # else another may come between
        return following if is_certain else None

    def _see(self, packet: Any) -> None:
        """Note when a packet's frame is shown, and whether its time stamps can be relied on."""
        if not packet.size:
            return
        if packet.pts is None or packet.dts is None or packet.pts < packet.dts:
            self._all = True
            return
        time = _seconds(packet, packet.dts)
        newest = self._decoded.setdefault(packet.stream.index, time)
        self._all |= abs(time - newest) > LOOK_AHEAD
        self._decoded[packet.stream.index] = max(newest, time)
        if isinstance(packet.stream, av.VideoStream):
            shown = _seconds(packet, packet.pts)
            self._first = min(self._first, shown)
            insort(self._shown, shown)


def _seconds(packet: Any, stamp: int) -> float:
    base = packet.time_base  # a product of Fractions takes ten times as long
    return float(stamp * base.numerator / base.denominator)
