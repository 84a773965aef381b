"""The answer for one clip, and what it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mer_runtime.inputs.media import ClipWindow
from mer_runtime.inputs.window_faces import FaceCrops


@dataclass(frozen=True)
class Prediction:
    """The answer for one clip.

    Attributes:
        source: the clip's path, or what else was given: "<bytes>", "<frames>" and so on.
        start, end: seconds from the clip's beginning: the part of it that the answer is about.
        label: the most probable emotion.
        probabilities: by label, in the spec's order; they sum to 1.
        face, voice: whether that modality was there; a missing one is fed as zeros. A face is one
            that moves on with time (``crop_faces``), a voice something like speech
            (``hears_voice``).
        settled: whether rounding can't have decided: False where the two best classes are so close
            that the float model may answer otherwise (``Recognizer.is_settled``).
        faces_found: in how many of the window's frames the face was found.
        people: how many persons' faces the window shows; the answer is about one of them, the one
            seen longest, of several the one with the largest face.
        seconds: by stage (decode, mfcc, face, inference) and in total. Faces are looked for
            while the clip is decoded; ``face`` is what it takes from then on.
        audio_track: the audio track listened to, counted from 1; None without one.
        notes: what was wrong with the clip and is missing or mended here, and of a clip longer than
            two windows that the rest of it wasn't looked at; a sentence each.
    """

    source: str
    start: float
    end: float
    label: str
    probabilities: Mapping[str, float]
    face: bool
    voice: bool
    settled: bool
    faces_found: int
    people: int
    seconds: Mapping[str, float]
    audio_track: int | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data: what ``mer-run --json`` prints."""
        return {
            "source": self.source,
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
            "seconds": {stage: round(s, 6) for stage, s in self.seconds.items()},
        }


@dataclass(frozen=True)
class Analysis:
    """A prediction and what it was made from, for drawing."""

    prediction: Prediction
    window: ClipWindow
    faces: FaceCrops | None
