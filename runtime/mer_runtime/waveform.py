"""Decoded audio frames, in any layout and rate, to one mono waveform of fixed length."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

#: Seconds kept beyond both ends of the window, so that the resampler has no edge inside it.
MARGIN = 0.1
#: Seconds by which a frame's time stamp may be off before it counts as a gap (Matroska rounds
#: to milliseconds).
STAMP_SLACK = 0.005


class WaveformBuffer:
    """Collects what falls into a window of ``samples`` at ``rate`` Hz, from ``start`` seconds."""

    def __init__(self, start: float, samples: int, rate: int) -> None:
        self._start = start
        self._samples = samples
        self._rate = rate
        self._native: NDArray[np.float32] | None = None
        self._native_rate = 0
        self._next: int | None = None
        self.full = False
        self.seen = False

    def add(self, frame: Any, time: float) -> None:
        """Take a decoded ``av.AudioFrame`` that begins at ``time`` seconds."""
        mono = _mono(frame)
        if self._native is None:
            self._native_rate = frame.sample_rate
            length = self._samples / self._rate + 2 * MARGIN
            self._native = np.zeros(round(length * self._native_rate), np.float32)
        elif frame.sample_rate != self._native_rate:
            mono = resample(mono, frame.sample_rate, self._native_rate)
        self.seen = True
        at = round((time - self._start + MARGIN) * self._native_rate)
        if self._next is not None and abs(at - self._next) <= STAMP_SLACK * self._native_rate:
            at = self._next
        self._next = at + len(mono)
        first, last = max(at, 0), min(at + len(mono), len(self._native))
        if first < last:
            self._native[first:last] = mono[first - at : last - at]
        self.full = self.full or at + len(mono) >= len(self._native)

    def waveform(self) -> NDArray[np.float32]:
        """(samples,) float32 in [-1, 1]; zeros where nothing was added."""
        if self._native is None:
            return np.zeros(self._samples, np.float32)
        resampled = resample(self._native, self._native_rate, self._rate)
        skip = round(MARGIN * self._rate)
        window = np.zeros(self._samples, np.float32)
        piece = resampled[skip : skip + self._samples]
        # Resampling a signal at full scale overshoots it, and float files may hold more.
        window[: len(piece)] = np.clip(piece, -1, 1)
        return window


def resample(waveform: NDArray[np.float32], rate: int, to_rate: int) -> NDArray[np.float32]:
    """Band-limited resampling of (samples,) from ``rate`` to ``to_rate`` Hz by libswresample."""
    if rate == to_rate:
        return waveform
    resampler = av.AudioResampler(format="flt", layout="mono", rate=to_rate)
    frame = av.AudioFrame.from_ndarray(waveform[None], format="flt", layout="mono")
    frame.sample_rate = rate
    pieces = [f.to_ndarray()[0] for part in (frame, None) for f in resampler.resample(part)]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def _mono(frame: Any) -> NDArray[np.float32]:
    """(samples,) float32 in [-1, 1]: the mean of the channels."""
    data = frame.to_ndarray()
    if not frame.format.is_planar:
        data = data.reshape(-1, len(frame.layout.channels)).T
    if data.dtype == np.uint8:  # unsigned, centred on 128
        data = (data.astype(np.float32) - 128) / 128
    elif data.dtype.kind == "i":
        data = data.astype(np.float32) / -float(np.iinfo(data.dtype).min)
    mono: NDArray[np.float32] = data.astype(np.float32, copy=False).mean(axis=0, dtype=np.float32)
    return mono
