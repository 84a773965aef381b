"""The last seconds of a stream's sound, each sample at its place on the stream's clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mer_runtime.inputs.waveform import MARGIN, STAMP_SLACK, cut_window, resample
from mer_runtime.stream.statistics import StreamStatistics

#: Larger samples would overflow in the resampler; full scale is 1.
LARGEST = 1e6
#: Seconds of sound after a window's end that reach into it when it is resampled: 16 samples
#: of the lower rate on either side, which is 2 ms at 8 kHz.
LOOKAHEAD = 0.0025


@dataclass(frozen=True)
class NativeWindow:
    """A window's sound at the source's rate, with ``MARGIN`` seconds more at both ends.

    Attributes:
        samples: (n,) float32, zeros where there was no sound.
        rate: Hz.
    """

    samples: NDArray[np.float32]
    rate: int

    def waveform(self, samples: int, rate: int) -> NDArray[np.float32]:
        """The window itself: (samples,) float32 in [-1, 1] at ``rate`` Hz, as in clip mode."""
        return cut_window(self.samples, self.rate, samples, rate)


class AudioRing:
    """Holds the newest ``seconds`` of sound, at the source's rate; never grows.

    A sample's place follows from its time: what is missing between two chunks is zero, what
    comes late fills its place as long as the ring still holds it, and where chunks overlap the
    last one given stays (as in ``WaveformBuffer``). Time stamps that are off by up to
    ``STAMP_SLACK`` count as contiguous.

    Args:
        origin: the clock's time at index 0.
        seconds: how much is kept.
        statistics: counts gaps, samples too late, and changes of the rate.
    """

    def __init__(self, origin: float, seconds: float, statistics: StreamStatistics) -> None:
        self._origin = origin
        self._seconds = seconds
        self._statistics = statistics
        self._ring = np.zeros(0, np.float32)
        self._rate = 0
        self._end = 0  # index after the newest sample
        self._next = 0  # index after the chunk given last

    @property
    def head(self) -> float | None:
        """Seconds on the clock where the sound ends so far; None before the first chunk."""
        return self._origin + self._end / self._rate if self._rate else None

    @property
    def rate(self) -> int:
        """Hz of the newest chunk; 0 before the first."""
        return self._rate

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._ring.nbytes

    def add(self, samples: NDArray[np.float32], rate: int, time: float) -> None:
        """Put (n,) finite samples at ``rate`` Hz, the first of them at ``time`` seconds."""
        first_chunk = not self._rate
        if first_chunk:
            self._rate = rate
            self._ring = np.zeros(self._capacity(rate), np.float32)
        elif rate != self._rate:
            self._convert(rate)
        at = round((time - self._origin) * rate)
        if first_chunk:
            self._end = at
        elif abs(at - self._next) <= STAMP_SLACK * rate:
            at = self._next
        if at > self._end:
            self._statistics.gaps += 1
        self._next = at + len(samples)
        self._move_end(max(self._end, self._next))
        late = min(max(self._end - len(self._ring) - at, 0), len(samples))
        self._statistics.late_samples += late
        self._write(at + late, samples[late:])

    def window(self, start: float, seconds: float) -> NativeWindow | None:
        """The sound of ``seconds`` from ``start`` on; None where none of it is held."""
        if not self._rate:
            return None
        first = round((start - MARGIN - self._origin) * self._rate)
        native = np.zeros(round((seconds + 2 * MARGIN) * self._rate), np.float32)
        held_from = max(first, self._end - len(self._ring))
        held_to = min(first + len(native), self._end)
        if held_from >= held_to:
            return None
        at = held_from - first
        for piece in self._pieces(held_from, held_to):
            native[at : at + len(piece)] = piece
            at += len(piece)
        return NativeWindow(native, self._rate)

    def _capacity(self, rate: int) -> int:
        return int(np.ceil(self._seconds * rate))

    def _move_end(self, end: int) -> None:
        """Let the ring reach to ``end``: zeros until something is written there."""
        for piece in self._pieces(max(self._end, end - len(self._ring)), end):
            piece[:] = 0
        self._end = end

    def _write(self, at: int, samples: NDArray[np.float32]) -> None:
        done = 0
        for piece in self._pieces(at, at + len(samples)):
            piece[:] = samples[done : done + len(piece)]
            done += len(piece)

    def _pieces(self, start: int, end: int) -> Iterator[NDArray[np.float32]]:
        """Views of what is held from index ``start`` to ``end``, at most a ring's length."""
        size = len(self._ring)
        while start < end:
            place = start % size
            count = min(end - start, size - place)
            yield self._ring[place : place + count]
            start += count

    def _convert(self, rate: int) -> None:
        """Bring what is held to another rate, so that no later chunk has an edge."""
        self._statistics.rates += 1
        held = np.roll(self._ring, -(self._end % len(self._ring)))
        converted = resample(held, self._rate, rate)[-self._capacity(rate) :]
        self._end = round(self._end * rate / self._rate)
        self._next = round(self._next * rate / self._rate)
        self._ring = np.zeros(self._capacity(rate), np.float32)
        self._write(self._end - len(converted), converted)
        self._rate = rate


def clean(samples: NDArray[np.float32], statistics: StreamStatistics) -> NDArray[np.float32]:
    """Samples with zeros for what isn't a finite number, counted."""
    statistics.samples += len(samples)
    usable = np.abs(samples) <= LARGEST  # False for NaN too
    bad = len(samples) - int(np.count_nonzero(usable))
    if not bad:
        return samples
    statistics.non_finite += bad
    return np.where(usable, samples, np.float32(0))
