"""Decoded audio frames, in any layout and rate, to one mono waveform of fixed length."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

#: A waveform: (samples,).
Mono = NDArray[np.float32]

#: A resampler with threads may outlive its use in PyAV 19, and a forked process waits in vain for
#: threads. Before, PyAV has no such setting, and a resampler that isn't used any more is gone.
ONE_THREAD = {"threads": 1} if "threads" in str(av.AudioResampler.__doc__) else {}
#: Seconds kept beyond both ends of the window, so that the resampler has no edge inside it.
MARGIN = 0.1
#: Seconds by which a frame's time stamp may be off before it counts as a gap (Matroska rounds
#: to milliseconds).
STAMP_SLACK = 0.005
#: Larger samples would overflow in the resampler; full scale is 1.
LARGEST = 1e6
#: Where a mean of channels has less than this share of the power that its loudest channel brings
#: into it, the channels cancel each other out: one is (nearly) the other's negative.
CANCELLED = 0.02
#: Of full scale (3 steps of 16 bits): a track that stays within this is silent.
SILENCE = 1e-4
#: Seconds for which a channel's past loudness counts.
MEMORY = 3.6


class WaveformBuffer:
    """Collects what falls into a window of ``samples`` at ``rate`` Hz, from ``start`` seconds.

    Attributes:
        seen: whether anything was added; ``inside``, whether any of it falls into the window.
        full: whether nothing later falls into the window.
        unusable: samples in it that weren't numbers, or far too large: they count as zeros.
    """

    def __init__(self, start: float, samples: int, rate: int) -> None:
        self._start = start
        self._samples = samples
        self._rate = rate
        self._mean: Mono | None = None
        self._loudest: Mono | None = None
        self._native_rate = 0
        self._next: int | None = None
        self._mixer = ChannelMixer()
        self.full = False
        self.seen = False
        self.inside = False
        self.unusable = 0

    def add(self, frame: Any, time: float) -> None:
        """Take a decoded ``av.AudioFrame`` that begins at ``time`` seconds."""
        self.add_samples(frame_samples(frame), frame.sample_rate, time)

    def add_samples(self, data: NDArray[Any], rate: int, time: float) -> None:
        """The same of (channels, n) at ``rate`` Hz, floats or integers of full scale."""
        mean, loudest = self._mixer.mix(data, rate)
        mean, unusable = zero_unusable(mean)
        if self._mean is None:
            self._native_rate = rate
            length = self._samples / self._rate + 2 * MARGIN
            self._mean = np.zeros(round(length * self._native_rate), np.float32)
        elif rate != self._native_rate:
            mean = resample(mean, rate, self._native_rate)
        self.seen = True
        at = round((time - self._start + MARGIN) * self._native_rate)
        if self._next is not None and abs(at - self._next) <= STAMP_SLACK * self._native_rate:
            at = self._next
        self._next = at + len(mean)
        first, last = max(at, 0), min(at + len(mean), len(self._mean))
        if first < last:
            self.inside = True
            self.unusable += unusable
            self._mean[first:last] = mean[first - at : last - at]
            if loudest is not None or self._loudest is not None:
                self._keep_loudest(mean if loudest is None else loudest, rate, at)
        self.full = self.full or at + len(mean) >= len(self._mean)

    def _keep_loudest(self, loudest: Mono, rate: int, at: int) -> None:
        assert self._mean is not None
        if self._loudest is None:
            self._loudest = self._mean.copy()
        loudest = resample(zero_unusable(loudest)[0], rate, self._native_rate)
        first, last = max(at, 0), min(at + len(loudest), len(self._loudest))
        self._loudest[first:last] = loudest[first - at : last - at]

    @property
    def cancelled(self) -> bool:
        """Whether its channels cancel each other out, so that the loudest is taken."""
        return self._mean is not None and choose_mix(self._mean, self._loudest)[1]

    @property
    def peak(self) -> float:
        """The largest sample's size, at the track's own rate; 0 if nothing was added."""
        if self._mean is None:
            return 0.0
        return float(np.abs(choose_mix(self._mean, self._loudest)[0]).max())

    def waveform(self) -> Mono:
        """(samples,) float32, [-1, 1] unless the file holds more; zeros where nothing was added."""
        if self._mean is None:
            return np.zeros(self._samples, np.float32)
        native, _ = choose_mix(self._mean, self._loudest)
        return cut_window(native, self._native_rate, self._samples, self._rate)


def cut_window(
    native: NDArray[np.float32], native_rate: int, samples: int, rate: int
) -> NDArray[np.float32]:
    """Resample a window that has ``MARGIN`` seconds more at both ends, and cut those off.

    Levels stay as they are: a float file may hold more than full scale, and resampling overshoots.

    Args:
        native: (n,) float32 at ``native_rate`` Hz; what is missing at its end counts as zeros.

    Returns:
        (samples,) float32 at ``rate`` Hz.
    """
    skip = round(MARGIN * rate)
    piece = resample(native, native_rate, rate)[skip : skip + samples]
    window = np.zeros(samples, np.float32)
    window[: len(piece)] = piece
    return window


def open_resampler(format: str, to_rate: int) -> Any:
    """An ``av.AudioResampler`` to one channel of ``format``, FFmpeg's, at ``to_rate`` Hz."""
    return av.AudioResampler(format=format, layout="mono", rate=to_rate, **ONE_THREAD)


def resample(waveform: NDArray[np.float32], rate: int, to_rate: int) -> NDArray[np.float32]:
    """Band-limited resampling of (samples,) from ``rate`` to ``to_rate`` Hz by libswresample."""
    if rate == to_rate:
        return waveform
    resampler = open_resampler("flt", to_rate)
    frame = av.AudioFrame.from_ndarray(waveform[None], format="flt", layout="mono")
    frame.sample_rate = rate
    pieces = [f.to_ndarray()[0] for part in (frame, None) for f in resampler.resample(part)]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


class ChannelMixer:
    """The mean of a track's channels, as ``librosa.to_mono`` makes it, and its loudest channel.

    A microphone whose halves are wired in opposite phase has a mean of nothing. That shows over
    a window, not in a chunk: so both are kept until ``choose_mix``.
    """

    def __init__(self) -> None:
        self._powers: NDArray[np.float64] = np.zeros(0)
        self._loudest = 0

    def mix(self, data: NDArray[Any], rate: int) -> tuple[Mono, Mono | None]:
        """A chunk's mean, and what its loudest channel brings into that.

        Args:
            data: (channels, n) at ``rate`` Hz, floats or integers of full scale.

        Returns:
            (n,) float32 each; the second is None of a single channel. Values that aren't numbers
            are still in.
        """
        floats = _to_floats(data)
        if len(floats) == 1:
            return floats[0], None  # the mean of one channel costs as much as its decoding
        with np.errstate(over="ignore", invalid="ignore"):
            mean: Mono = floats.mean(axis=0, dtype=np.float32)
        powers = np.array([_power(channel) for channel in floats])
        if len(powers) == len(self._powers):
            powers += self._powers * np.exp(-floats.shape[1] / (MEMORY * rate))
        self._powers = powers
        # Held until another is clearly louder: a change is a step in the waveform.
        if self._loudest >= len(floats) or powers.max() > 4 * powers[self._loudest]:
            self._loudest = int(powers.argmax())
        return mean, floats[self._loudest] / np.float32(len(floats))


def choose_mix(mean: Mono, loudest: Mono | None) -> tuple[Mono, bool]:
    """Of a window's mixes by ``ChannelMixer`` the one to use, and whether the mean cancels out."""
    if loudest is None:
        return mean, False
    cancelled = _power(mean) < CANCELLED * _power(loudest)
    return (loudest, True) if cancelled else (mean, False)


def zero_unusable(samples: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """Samples with zeros for what isn't a number within ``LARGEST``, and how many those were."""
    usable = np.abs(samples) <= LARGEST  # False for NaN too
    bad = len(samples) - int(np.count_nonzero(usable))
    return (np.where(usable, samples, np.float32(0)), bad) if bad else (samples, 0)


def mix_down(frame: Any) -> NDArray[np.float32]:
    """The mean of an ``av.AudioFrame``'s channels: (samples,) float32, [-1, 1] for integers.

    Where they cancel each other out in this frame, what the loudest brings into that.
    """
    return mix_samples(frame_samples(frame), frame.sample_rate)


def mix_samples(data: NDArray[Any], rate: int) -> Mono:
    """The same of (channels, n) at ``rate`` Hz."""
    return choose_mix(*ChannelMixer().mix(data, rate))[0]


def frame_samples(frame: Any) -> NDArray[Any]:
    """What an ``av.AudioFrame`` holds: (channels, samples) in its own format."""
    data: NDArray[Any] = frame.to_ndarray()
    return data if frame.format.is_planar else data.reshape(-1, frame.layout.nb_channels).T


def _to_floats(data: NDArray[Any]) -> NDArray[np.float32]:
    """Floats as they are, integers of full scale to [-1, 1]; uint8 is centred on 128."""
    if data.dtype == np.uint8:
        return (data.astype(np.float32) - 128) / np.float32(128)
    if data.dtype.kind == "i":
        return data.astype(np.float32) / np.float32(-float(np.iinfo(data.dtype).min))
    with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, and then zero
        return data.astype(np.float32, copy=False)


def _power(samples: NDArray[np.float32]) -> float:
    """Sum of squares of what is a number."""
    usable, _ = zero_unusable(samples)
    # Not np.dot: OpenBLAS's threads would wait busily into the inference after.
    return float(np.einsum("i,i->", usable, usable))
