"""What a source gives: pictures and sound with their times, and word of its own state."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mer_runtime.errors import MediaError
from mer_runtime.inputs.picture import FrameDrawer

#: ``waiting`` for it to be there at all; ``opened`` once; ``stalled`` and ``resumed`` while it
#: stays open; ``lost`` and ``reopened``; ``ended`` at the end of what it had to give.
State = Literal["waiting", "opened", "stalled", "resumed", "lost", "reopened", "ended"]


class SourceError(MediaError):
    """A camera, microphone or stream can't be opened, or is gone for good."""


class Picture:
    """A frame, whose pixels are converted when they are first asked for.

    Most frames of a stream are never looked at: the model takes four in a second.

    Args:
        frame: an ``av.VideoFrame``.
        time: seconds on the session's clock at which it was taken.
        drawer: shows its stream's frames.
    """

    def __init__(self, frame: Any, time: float, drawer: FrameDrawer | None = None) -> None:
        self.time = time
        self._drawer = drawer or FrameDrawer()
        self._frame = frame
        self._image: NDArray[np.uint8] | None = None
        self._lock = Lock()

    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, upright, of square pixels, at most 1920 x 1080 of them.

        H and W may change from one frame to the next.

        Any thread may call it. Don't write to it: it is the same array for all.
        """
        with self._lock:
            if self._image is None:
                self._image = np.ascontiguousarray(self._drawer.draw(self._frame))
                self._frame = None
            return self._image


@dataclass(frozen=True)
class Sound:
    """A chunk of sound.

    Attributes:
        samples: (n,) float32, the mean of the channels; [-1, 1] unless the source clips or errs.
        rate: samples a second; may change from one chunk to the next.
        time: seconds on the session's clock at which the first sample was taken.
        channels: (channels, n), what ``samples`` is the mean of; None where there is nothing else.
        track: the source's audio track that it is of, counted from 1.
    """

    samples: NDArray[np.float32]
    rate: int
    time: float
    channels: NDArray[Any] | None = None
    track: int = 1

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


@dataclass(frozen=True)
class Notice:
    """A source changed its state.

    Attributes:
        source: its name, without any password.
        reason: why, in one line; empty where there is nothing to say.
        time: seconds on the session's clock.
    """

    source: str
    state: State
    reason: str
    time: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data: a line of ``mer-run --json``."""
        found: dict[str, Any] = {
            "source": self.source,
            "state": self.state,
            "time": round(self.time, 3),
        }
        return found | ({"reason": self.reason} if self.reason else {})


class Sink(Protocol):
    """Who takes what a source gives; called from the source's own thread."""

    def take_picture(self, picture: Picture) -> None: ...

    def take_sound(self, sound: Sound) -> None: ...

    def take_notice(self, notice: Notice) -> None: ...
