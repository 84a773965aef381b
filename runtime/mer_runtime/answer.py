"""What every answer holds, be it about a clip or about a stream's window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The emotion of one window.

    Attributes:
        start, end: the window, in seconds on the source's clock.
        label: the most probable emotion; None where there was neither face nor voice.
        probabilities: by label, in the spec's order; they sum to 1. Empty where ``label`` is None.
        face, voice: whether that modality was there; a missing one is fed as zeros. A face is one
            that moves on with time (``crop_faces``), a voice something like speech
            (``hears_voice``).
        settled: whether rounding can't have decided: False where the two best classes are so close
            that the float model may answer otherwise (``Recognizer.is_settled``), or where
            ``label`` is None.
        faces_found: in how many of the window's frames the face was found.
        people: how many persons' faces the window shows.
        audio_track: the audio track listened to, counted from 1; None without one.
        notes: what is missing of the window or was mended in it, a sentence each.
    """

    start: float
    end: float
    label: str | None
    probabilities: Mapping[str, float]
    face: bool
    voice: bool
    settled: bool
    faces_found: int
    people: int = 0
    audio_track: int | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; seconds to the millisecond."""
        return {
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "label": self.label,
            "probabilities": {name: round(p, 6) for name, p in self.probabilities.items()},
            "face": self.face,
            "voice": self.voice,
            "settled": self.settled,
            "faces_found": self.faces_found,
            "people": self.people,
            "audio_track": self.audio_track,
            "notes": list(self.notes),
        }
