"""Windows that overlap, resampled: of each only the sound that the one before didn't have."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, gcd
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from mer_runtime.inputs.waveform import MARGIN, cut_window, resample
from mer_runtime.spec import AudioSpec
from mer_runtime.stream.audio_ring import LOOKAHEAD, NativeWindow

Mono = NDArray[np.float32]


@dataclass(frozen=True)
class _Known:
    """A window's sound before and after; ``first`` and ``rate`` as in ``NativeWindow``."""

    first: int
    rate: int
    native: Mono
    waveform: Mono


class WindowResampler:
    """Gives what ``NativeWindow.waveform`` does, to the bit, in a fraction of the time.

    What two windows share is taken from the former one, where the same samples are still there and
    the resampler's steps fall on the same ones. Any thread may call it.
    """

    def __init__(self, spec: AudioSpec) -> None:
        self._samples, self._rate = spec.samples, spec.sample_rate
        self._known: _Known | None = None
        self._lock = Lock()

    def waveform(self, sound: NativeWindow) -> Mono:
        """(samples,) float32 at the spec's rate."""
        with self._lock:
            known = self._known
        native = sound.mono()
        waveform = None if known is None else self._go_on(known, sound, native)
        if waveform is None:
            waveform = cut_window(native, sound.rate, self._samples, self._rate)
        with self._lock:
            self._known = _Known(sound.first, sound.rate, native, waveform)
        return waveform

    def _go_on(self, known: _Known, sound: NativeWindow, native: Mono) -> Mono | None:
        """From the window before; None where that isn't possible."""
        rate, to_rate, samples = sound.rate, self._rate, self._samples
        divisor = gcd(rate, to_rate)
        step, made = rate // divisor, to_rate // divisor  # so many samples make so many
        shift = sound.first - known.first
        new = shift // step * made
        if known.rate != rate or rate == to_rate or shift % step or not 0 < new < samples:
            return None
        # Of the former window's sound, what its waveform is made of.
        heard = ceil((MARGIN + samples / to_rate + LOOKAHEAD) * rate)
        if not np.array_equal(known.native[shift:heard], native[: heard - shift]):
            return None
        # Behind an edge of its own, from which the resampler's steps fall as from the window's.
        margin = round(MARGIN * to_rate)
        steps = (samples - new) * rate // to_rate // step
        skip = margin + samples - new - steps * made
        tail = resample(native[steps * step :], rate, to_rate)[skip : skip + new]
        return np.concatenate([known.waveform[new:], tail]) if len(tail) == new else None
