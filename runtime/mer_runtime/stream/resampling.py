"""Windows that overlap, resampled: of each only the sound that the one before didn't have."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, gcd

import numpy as np
from numpy.typing import NDArray

from mer_runtime.inputs.waveform import MARGIN, cut_window, resample
from mer_runtime.spec import AudioSpec
from mer_runtime.stream.audio_ring import LOOKAHEAD, NativeWindow

Mono = NDArray[np.float32]


@dataclass(frozen=True)
class _Window:
    """A window's sound as it came and as it was made; the rest as in ``NativeWindow``."""

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
        self._former: _Window | None = None  # replaced as a whole, as threads share it

    def waveform(self, sound: NativeWindow) -> Mono:
        """(samples,) float32 at the spec's rate."""
        native, former = sound.mono(), self._former
        waveform = None if former is None else self._extend(former, sound, native)
        if waveform is None:
            waveform = cut_window(native, sound.rate, self._samples, self._rate)
        self._former = _Window(sound.first, sound.rate, native, waveform)
        return waveform

    def _extend(self, former: _Window, sound: NativeWindow, native: Mono) -> Mono | None:
        """The former window's waveform from where this one begins, and the rest resampled.

        None where the two don't fit together.
        """
        rate, to_rate, samples = sound.rate, self._rate, self._samples
        divisor = gcd(rate, to_rate)
        step, made = rate // divisor, to_rate // divisor  # so many samples make so many
        shift = sound.first - former.first
        new = shift // step * made
        if former.rate != rate or rate == to_rate or shift % step or not 0 < new < samples:
            return None
        # All that the former waveform was made of must still be there.
        heard = ceil((MARGIN + samples / to_rate + LOOKAHEAD) * rate)
        if not np.array_equal(former.native[shift:heard], native[: heard - shift]):
            return None
        # Resampled from a whole step before the new part, with a margin for the filter to begin in.
        steps = (samples - new) // made
        begin = round(MARGIN * to_rate) + samples - new - steps * made
        tail = resample(native[steps * step :], rate, to_rate)[begin : begin + new]
        return np.concatenate([former.waveform[new:], tail]) if len(tail) == new else None
