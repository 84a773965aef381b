"""The answer for one clip, and what it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mer_runtime.answer import Answer
from mer_runtime.inputs.media import ClipWindow
from mer_runtime.inputs.window_faces import FaceCrops


@dataclass(frozen=True, kw_only=True)
class Prediction(Answer):
    """The answer for one clip, with what every ``Answer`` holds.

    Attributes:
        source: the clip's path, or what else was given: "<bytes>", "<frames>" and so on.
        start, end: seconds from the clip's beginning: the part of it that the answer is about.
        label: the most probable emotion.
        people: how many persons' faces the window shows; the answer is about one of them, the one
            seen longest, of several the one with the largest face.
        seconds: by stage (decode, mfcc, face, inference) and in total. Faces are looked for
            while the clip is decoded; ``face`` is what it takes from then on.
        notes: what was wrong with the clip and is missing or mended here, and of a clip longer than
            two windows that the rest of it wasn't looked at; a sentence each.
    """

    source: str
    label: str
    seconds: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data: what ``mer-run --json`` prints."""
        seconds = {stage: round(s, 6) for stage, s in self.seconds.items()}
        return {"source": self.source, **super().to_dict(), "seconds": seconds}


@dataclass(frozen=True)
class Analysis:
    """A prediction and what it was made from, for drawing."""

    prediction: Prediction
    window: ClipWindow
    faces: FaceCrops | None
