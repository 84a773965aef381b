"""What a stream says at each hop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mer_runtime.inputs.face import Box


@dataclass(frozen=True)
class StreamEvent:
    """The answer for the window that ends at ``time``.

    Attributes:
        time: seconds on the stream's clock at which the window ends.
        label: the most probable emotion; None where there was neither face nor voice.
        probabilities: by label, in the spec's order, smoothed where that was asked for; they
            sum to 1. Empty where ``label`` is None.
        face, voice: whether that modality was there; a missing one is fed as zeros. A face is
            missing where no used frame shows one (lost, or no camera) or the picture is frozen, a
            voice where the window holds no sound like speech (or there is no microphone).
        settled: whether rounding can't have decided the label (``Recognizer.is_settled``); False
            where it is None.
        filled: the share of the window, 0 to 1, that lies after the stream's beginning. Until
            it is 1 the waveform is padded with zeros and the first frame stands in, as in a
            short clip.
        faces_found: in how many of the window's used frames this face was detected; a
            picture that is repeated counts for half a window.
        box: this face in the window's last used frame, in that frame's pixels; where it wasn't
            detected there, the nearest box in time. None without a face.
        track: number of the tracked face, from 1, new for each face; None without a face.
        age: seconds by a monotonic clock from the arrival (the call of ``push_frame`` or
            ``push_audio``) of the window's last sample or frame until the event was ready.
        dropped: used frames that were dropped since the stream began, because inference was
            behind.
        people: how many persons' faces the window shows.
        audio_track: the source's audio track that was listened to, counted from 1; None where no
            source told of any, as with samples that a program pushes.
        notes: what is missing of the window or was mended in it, a sentence each.
        start: seconds at which the window begins, at the stream's beginning at the earliest.
    """

    time: float
    label: str | None
    probabilities: Mapping[str, float]
    face: bool
    voice: bool
    settled: bool
    filled: float
    faces_found: int
    box: Box | None
    track: int | None
    age: float
    dropped: int
    people: int = 0
    audio_track: int | None = None
    notes: tuple[str, ...] = ()
    start: float = 0.0

    @property
    def end(self) -> float:
        """The same as ``time``: the answer is about what was from ``start`` to ``end``."""
        return self.time

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data: what ``mer-run --json`` prints for a stream.

        ``box`` becomes ``[x, y, width, height]`` in pixels.
        """
        box = self.box
        return {
            "time": round(self.time, 3),
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "label": self.label,
            "probabilities": {name: round(p, 6) for name, p in self.probabilities.items()},
            "face": self.face,
            "voice": self.voice,
            "settled": self.settled,
            "filled": round(self.filled, 3),
            "faces_found": self.faces_found,
            "people": self.people,
            "box": box and [round(v, 1) for v in (box.x, box.y, box.width, box.height)],
            "track": self.track,
            "age": round(self.age, 4),
            "dropped": self.dropped,
            "audio_track": self.audio_track,
            "notes": list(self.notes),
        }
