"""Shares of a clip's time: by label, by speech, by face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mer_runtime.stream.event import StreamEvent


@dataclass
class Share:
    """A part of a clip's time, and which labels it has.

    Attributes:
        seconds: how long it is.
        by_label: seconds by label. With several faces at once, each counts for its part.
    """

    seconds: float = 0.0
    by_label: dict[str, float] = field(default_factory=dict)

    def add(self, label: str | None, seconds: float) -> None:
        """Count so many seconds; those without a label count for none."""
        self.seconds += seconds
        if label is not None:
            self.by_label[label] = self.by_label.get(label, 0.0) + seconds

    def shares(self) -> Mapping[str, float]:
        """Share of ``seconds`` by label, 0 to 1, the largest first; the rest had no answer."""
        whole = self.seconds or 1.0
        ordered = sorted(self.by_label.items(), key=lambda item: -item[1])
        return {label: seconds / whole for label, seconds in ordered}


class Summary:
    """Sums up answers as they come: each stands for the time since the one before it.

    Attributes:
        all: the whole time that was answered.
        speech: the part of it in whose windows a voice was heard; ``face``, in which a face was
            seen.
        faces: the time of each tracked face, by its number.
        answers: how many there were.
    """

    def __init__(self) -> None:
        self.all, self.speech, self.face = Share(), Share(), Share()
        self.faces: dict[int, Share] = {}
        self.answers = 0
        self._end: float | None = None  # of the hop that is being counted
        self._before = 0.0  # where it begins
        self._hop: list[StreamEvent] = []

    def add(self, event: StreamEvent) -> None:
        """Count an answer; those of one hop, one for each face, come together."""
        self.answers += 1
        if self._end is not None and event.end != self._end:
            self._count()
        if self._end is None:
            # Where the clock jumped there is no answer for what lies between.
            self._before = max(self._before, event.start)
        self._end = event.end
        self._hop.append(event)

    def finish(self) -> None:
        """Count what is still held."""
        if self._end is not None:
            self._count()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "seconds": round(self.all.seconds, 3),
            "answers": self.answers,
            "labels": _round(self.all),
            "speech": self._describe(self.speech),
            "face": self._describe(self.face),
            "faces": {str(number): self._describe(share) for number, share in self.faces.items()},
        }

    def _describe(self, share: Share) -> dict[str, Any]:
        part = share.seconds / self.all.seconds if self.all.seconds else 0.0
        return {
            "seconds": round(share.seconds, 3),
            "share": round(part, 4),
            "labels": _round(share),
        }

    def _count(self) -> None:
        assert self._end is not None
        seconds = max(self._end - self._before, 0.0)
        each = seconds / len(self._hop)
        for event in self._hop:
            self.all.add(event.label, each)
            if event.voice:
                self.speech.add(event.label, each)
            if event.face:
                self.face.add(event.label, each)
            if event.track is not None:
                self.faces.setdefault(event.track, Share()).add(event.label, seconds)
        self._before, self._end = self._end, None
        self._hop.clear()


def _round(share: Share) -> dict[str, float]:
    return {label: round(part, 4) for label, part in share.shares().items()}
