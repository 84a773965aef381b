"""One sound of a source's audio tracks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mer_runtime.inputs.media import SILENCE
from mer_runtime.inputs.waveform import mix_down


class TrackChoice:
    """Takes the first track in which there has been any sound; until then, the first of all.

    Args:
        tracks: audio streams by their number.
    """

    def __init__(self, tracks: Mapping[int, Any]) -> None:
        self._numbers = {stream.index: number for number, stream in tracks.items()}
        self._taken = tracks[min(tracks)].index if tracks else -1
        self._settled = len(tracks) < 2

    def takes(self, stream: Any, frame: Any) -> bool:
        """Whether an ``av.AudioFrame`` of that stream is to be listened to."""
        if not self._settled and (np.abs(mix_down(frame)) > SILENCE).any():
            self._taken, self._settled = stream.index, True
        return bool(stream.index == self._taken)

    @property
    def number(self) -> int:
        """The track that is taken, counted from 1."""
        return self._numbers[self._taken]
