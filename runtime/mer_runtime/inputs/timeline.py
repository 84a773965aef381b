"""When a clip begins and ends, by its header or by its packets, and clocks that jump."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import av

#: Seconds by which a stream's packets may go back, and how many of their own lengths besides;
#: more is a clock set back. (Matroska keeps no decoding times, and FFmpeg's guesses go to and fro.)
REORDER, REORDERED = 1.0, 4


def stated_span(container: Any, streams: Sequence[Any]) -> tuple[float, float] | None:
    """First and last second of the clip as its header has them, or None."""
    starts, ends = [], []
    for stream in streams:
        start = float((stream.start_time or 0) * stream.time_base)
        if stream.duration:
            length = float(stream.duration * stream.time_base)
        elif container.duration:
            length = container.duration / av.time_base - start
        else:
            return None
        starts.append(start)
        ends.append(start + length)
    return (min(starts), max(ends)) if starts and max(ends) > min(starts) else None


def packet_span(packets: Iterable[Any]) -> tuple[float, float] | None:
    """The same from the packets' own times, which takes reading the whole file.

    A raw stream's have none: they count one after the other.
    """
    first, last = math.inf, -math.inf
    counted: dict[int, float] = {}
    for packet in packets:
        if not packet.size or (packet.pts is None and packet.dts is not None):
            continue
        length = float((packet.duration or 0) * packet.time_base)
        if packet.pts is not None:
            start = float(packet.pts * packet.time_base)
        else:
            start = counted.get(packet.stream.index, 0.0)
            counted[packet.stream.index] = start + length
        first = min(first, start)
        last = max(last, start + length)
    return (first, last) if first <= last else None


class Timeline:
    """Packets whose clock goes on where it was set back or, if asked to, where it leaps.

    A leap is a time later, by more than ``largest`` seconds, than anything of any stream so far:
    a camera that is switched off while the sound goes on is none. A stream that jumps joins one
    that did so before it, so picture and sound stay together.

    Attributes:
        jumps: (seconds by the mended clock, seconds by which it jumped).
    """

    def __init__(self, largest: float = math.inf) -> None:
        self.jumps: list[tuple[float, float]] = []
        self._largest = largest
        self._shift: dict[int, float] = {}  # seconds added to a stream's times
        self._newest = 0.0  # the shift that a stream was given last
        self._ends: dict[int, float] = {}  # where a stream's packets have come to

    def follow(self, packets: Iterable[Any]) -> Iterator[Any]:
        """The packets, in whose time stamps the jumps are taken back."""
        for packet in packets:
            index = packet.stream.index
            if packet.dts is not None:
                self._place(index, packet)
            shift = self._shift.get(index, 0.0)
            if shift and packet.time_base:
                ticks = round(shift / packet.time_base)
                packet.pts = None if packet.pts is None else packet.pts + ticks
                packet.dts = None if packet.dts is None else packet.dts + ticks
            yield packet

    def _place(self, index: int, packet: Any) -> None:
        base = packet.time_base  # products of Fractions take ten times as long
        time = packet.dts * base.numerator / base.denominator
        length = (packet.duration or 0) * base.numerator / base.denominator
        shift = self._shift.setdefault(index, 0.0)
        before = self._ends.get(index)
        if self._jumps(time + shift, before, length):
            if self._jumps(time + self._newest, before, length):
                begins = max(self._ends.values()) if before is None else before
                self._newest = begins - time
                self.jumps.append((begins, time + shift - begins))
            shift = self._shift[index] = self._newest
        end = time + shift + length
        self._ends[index] = end if before is None else max(before, end)

    def _jumps(self, time: float, before: float | None, length: float) -> bool:
        """Whether a stream that has come to ``before`` can't go on at ``time``."""
        if before is not None and time < before - REORDER - REORDERED * length:
            return True
        return bool(self._ends) and time > max(self._ends.values()) + self._largest
