"""One sound of a source's audio tracks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mer_runtime.inputs.voice_activity import hears_voice
from mer_runtime.inputs.waveform import SILENCE, Mono, mix_down, resample, zero_unusable

#: Seconds of a track that a voice is looked for in, and from one look to the next.
WINDOW, INTERVAL = 3.6, 0.5
#: Hz at which it is looked for: twice as much as speech's band takes.
RATE = 16_000


class TrackChoice:
    """Takes the first track in which there has been a voice; until then, the first in which there
    has been any sound; until then, the first of all.

    Args:
        tracks: audio streams by their number.
    """

    def __init__(self, tracks: Mapping[int, Any]) -> None:
        self._numbers = {stream.index: number for number, stream in tracks.items()}
        self._taken = tracks[min(tracks)].index if tracks else -1
        self._sounds = False
        several = len(tracks) > 1
        self._ears = {stream.index: _Ear() for stream in tracks.values()} if several else {}

    def takes(self, stream: Any, frame: Any) -> bool:
        """Whether an ``av.AudioFrame`` of that stream is to be listened to."""
        if self._ears:
            samples, _ = zero_unusable(mix_down(frame))
            if not self._sounds and (np.abs(samples) > SILENCE).any():
                self._taken, self._sounds = stream.index, True
            if self._ears[stream.index].hears(samples, frame.sample_rate):
                self._taken = stream.index
                self._ears.clear()
        return bool(stream.index == self._taken)

    @property
    def number(self) -> int:
        """The track that is taken, counted from 1."""
        return self._numbers[self._taken]


class _Ear:
    """Tells whether there is a voice in the latest seconds of a track."""

    def __init__(self) -> None:
        self._latest: Mono = np.zeros(0, np.float32)
        self._rate = self._fresh = 0

    def hears(self, samples: Mono, rate: int) -> bool:
        """Look again, where enough has been added since the last look."""
        if rate != self._rate:
            self._latest, self._rate = self._latest[:0], rate
        self._latest = np.concatenate([self._latest, samples])[-round(WINDOW * rate) :]
        self._fresh += len(samples)
        if self._fresh < INTERVAL * rate:
            return False
        self._fresh = 0
        if not (np.abs(self._latest) > SILENCE).any():
            return False
        return hears_voice(resample(self._latest, rate, RATE), RATE)
