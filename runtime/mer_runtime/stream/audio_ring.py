"""The last seconds of a stream's sound, each sample at its place on the stream's clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mer_runtime.inputs.waveform import (
    MARGIN,
    STAMP_SLACK,
    choose_mix,
    cut_window,
    resample,
    zero_unusable,
)
from mer_runtime.stream.statistics import StreamStatistics

#: Seconds of sound after a window's end that reach into it when it is resampled: 16 samples
#: of the lower rate on either side, which is 2 ms at 8 kHz.
LOOKAHEAD = 0.0025


@dataclass(frozen=True)
class NativeWindow:
    """A window's sound at the source's rate, with ``MARGIN`` seconds more at both ends.

    Attributes:
        samples: (n,) float32, zeros where there was no sound.
        rate: Hz.
        loudest: the same of the loudest channel alone (see ``ChannelMixer``), or None.
        first: the ring's index of the first sample.
    """

    samples: NDArray[np.float32]
    rate: int
    loudest: NDArray[np.float32] | None = None
    first: int = 0

    @property
    def cancelled(self) -> bool:
        """Whether the channels cancel each other out, so that the loudest one counts."""
        return choose_mix(self.samples, self.loudest)[1]

    def mono(self) -> NDArray[np.float32]:
        """The mix that counts."""
        return choose_mix(self.samples, self.loudest)[0]

    def waveform(self, samples: int, rate: int) -> NDArray[np.float32]:
        """The window itself: (samples,) float32 at ``rate`` Hz, as in clip mode."""
        return cut_window(self.mono(), self.rate, samples, rate)


@dataclass(frozen=True)
class Conversion:
    """What a ring held, to be brought to another rate: that takes long, and no lock.

    Attributes:
        state: of the ring when this was asked for.
        held: (mixes, n) float32 at ``rate`` Hz, in order of time.
    """

    state: tuple[int, int, int]
    held: NDArray[np.float32]
    rate: int
    to_rate: int

    def run(self) -> NDArray[np.float32]:
        """What was held, at ``to_rate`` Hz."""
        return np.stack([resample(mix, self.rate, self.to_rate) for mix in self.held])


class AudioRing:
    """Holds the newest ``seconds`` of sound, at the source's rate; never grows.

    Of sound with several channels it holds two mixes, those of ``ChannelMixer``.

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
        self._ring: NDArray[np.float32] = np.zeros((1, 0), np.float32)
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
        """Put (n,) or (mixes, n) finite samples at ``rate`` Hz, the first at ``time`` seconds."""
        mixes = np.atleast_2d(samples)
        length = mixes.shape[1]
        first_chunk = not self._rate
        if first_chunk:
            self._rate = rate
            self._ring = np.zeros((len(mixes), self._capacity(rate)), np.float32)
        elif (conversion := self.conversion(rate)) is not None:
            self.convert(conversion, conversion.run())
        if len(mixes) > len(self._ring):
            self._ring = np.repeat(self._ring, len(mixes), axis=0)
        at = round((time - self._origin) * rate)
        if first_chunk:
            self._end = at
        elif abs(at - self._next) <= STAMP_SLACK * rate:
            at = self._next
        if at > self._end:
            self._statistics.gaps += 1
        self._next = at + length
        self._move_end(max(self._end, self._next))
        late = min(max(self._end - self._size - at, 0), length)
        self._statistics.late_samples += late
        self._write(at + late, mixes[:, late:])

    def window(self, start: float, seconds: float) -> NativeWindow | None:
        """The sound of ``seconds`` from ``start`` on; None where none of it is held."""
        if not self._rate:
            return None
        first = round((start - MARGIN - self._origin) * self._rate)
        length = round((seconds + 2 * MARGIN) * self._rate)
        native = np.zeros((len(self._ring), length), np.float32)
        held_from = max(first, self._end - self._size)
        held_to = min(first + length, self._end)
        if held_from >= held_to:
            return None
        at = held_from - first
        for piece in self._pieces(held_from, held_to):
            native[:, at : at + piece.shape[1]] = piece
            at += piece.shape[1]
        return NativeWindow(native[0], self._rate, native[1] if len(native) > 1 else None, first)

    def conversion(self, rate: int) -> Conversion | None:
        """What is to do before sound of another rate is added, so that no later chunk has an edge.

        ``add`` does it by itself. Whoever holds a lock asks for it, runs it without the lock, and
        hands what came of it to ``convert``.
        """
        if rate == self._rate or not self._rate:
            return None
        held = np.roll(self._ring, -(self._end % self._size), axis=1)
        return Conversion(self._state, held, self._rate, rate)

    def convert(self, conversion: Conversion, converted: NDArray[np.float32]) -> bool:
        """Hold what a conversion gave instead; False where the ring has changed since."""
        if conversion.state != self._state:
            return False
        rate = conversion.to_rate
        self._statistics.rates += 1
        converted = converted[:, -self._capacity(rate) :]
        self._end = round(self._end * rate / self._rate)
        self._next = round(self._next * rate / self._rate)
        self._ring = np.zeros((len(converted), self._capacity(rate)), np.float32)
        self._write(self._end - converted.shape[1], converted)
        self._rate = rate
        return True

    @property
    def _size(self) -> int:
        return self._ring.shape[1]

    @property
    def _state(self) -> tuple[int, int, int]:
        return self._rate, self._end, self._next

    def _capacity(self, rate: int) -> int:
        return int(np.ceil(self._seconds * rate))

    def _move_end(self, end: int) -> None:
        """Let the ring reach to ``end``: zeros until something is written there."""
        for piece in self._pieces(max(self._end, end - self._size), end):
            piece[:] = 0
        self._end = end

    def _write(self, at: int, samples: NDArray[np.float32]) -> None:
        done = 0
        for piece in self._pieces(at, at + samples.shape[1]):
            piece[:] = samples[:, done : done + piece.shape[1]]
            done += piece.shape[1]

    def _pieces(self, start: int, end: int) -> Iterator[NDArray[np.float32]]:
        """Views of what is held from index ``start`` to ``end``, at most a ring's length."""
        size = self._size
        while start < end:
            place = start % size
            count = min(end - start, size - place)
            yield self._ring[:, place : place + count]
            start += count


def clean(samples: NDArray[np.float32], statistics: StreamStatistics) -> NDArray[np.float32]:
    """(mixes, n) samples with zeros for what isn't a finite number, counted in the first mix."""
    statistics.samples += samples.shape[1]
    cleaned = [zero_unusable(mix) for mix in samples]
    statistics.non_finite += cleaned[0][1]
    return np.stack([mix for mix, _ in cleaned])
