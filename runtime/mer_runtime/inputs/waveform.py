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
        mono = mix_down(frame)
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
        return cut_window(self._native, self._native_rate, self._samples, self._rate)


def cut_window(
    native: NDArray[np.float32], native_rate: int, samples: int, rate: int
) -> NDArray[np.float32]:
    """Resample a window that has ``MARGIN`` seconds more at both ends, and cut those off.

    Args:
        native: (n,) float32 at ``native_rate`` Hz; what is missing at its end counts as zeros.

    Returns:
        (samples,) float32 in [-1, 1] at ``rate`` Hz.
    """
    skip = round(MARGIN * rate)
    piece = resample(native, native_rate, rate)[skip : skip + samples]
    window = np.zeros(samples, np.float32)
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


def mix_down(frame: Any) -> NDArray[np.float32]:
    """The mean of an ``av.AudioFrame``'s channels: (samples,) float32 in [-1, 1]."""
    data = frame.to_ndarray()
    if not frame.format.is_planar:
        data = data.reshape(-1, len(frame.layout.channels)).T
    return average_channels(data)


def average_channels(data: NDArray[Any]) -> NDArray[np.float32]:
    """(channels, samples) of floats, or of integers at full scale, to (samples,) float32.

    Integers come to [-1, 1]; floats stay as they are. uint8 is centred on 128.
    """
    if data.dtype == np.uint8:
        data = (data.astype(np.float32) - 128) / 128
    elif data.dtype.kind == "i":
        data = data.astype(np.float32) / -float(np.iinfo(data.dtype).min)
    floats: NDArray[np.float32] = data.astype(np.float32, copy=False)
    # The mean of one channel costs as much as its decoding.
    return floats[0] if len(floats) == 1 else np.asarray(floats.mean(axis=0, dtype=np.float32))
