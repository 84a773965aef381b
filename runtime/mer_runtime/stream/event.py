"""What a stream says at each hop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mer_runtime.answer import Answer
from mer_runtime.inputs.face import Box


@dataclass(frozen=True, kw_only=True)
class StreamEvent(Answer):
    """The answer for the window that ends at ``end``, with what every ``Answer`` holds.

    Attributes:
        start: seconds at which the window begins, at the stream's beginning at the earliest.
        end: seconds on the stream's clock at which the window ends.
        probabilities: by label, in the spec's order, smoothed where that was asked for; they
            sum to 1. Empty where ``label`` is None.
        face, voice: whether that modality was there; a missing one is fed as zeros. A face is
            missing where no used frame shows one (lost, or no camera) or the picture is frozen, a
            voice where the window holds no sound like speech (or there is no microphone).
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
        audio_track: the source's audio track that was listened to, counted from 1; None where no
            source told of any, as with samples that a program pushes.
    """

    start: float = 0.0
    filled: float
    box: Box | None
    track: int | None
    age: float
    dropped: int

    @property
    def time(self) -> float:
        """The same as ``end``."""
        return self.end

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data: what ``mer-run --json`` prints for a stream.

        ``box`` becomes ``[x, y, width, height]`` in pixels.
        """
        box = self.box
        return {
            "time": round(self.time, 3),
            **super().to_dict(),
            "filled": round(self.filled, 3),
            "box": box and [round(v, 1) for v in (box.x, box.y, box.width, box.height)],
            "track": self.track,
            "age": round(self.age, 4),
            "dropped": self.dropped,
        }
