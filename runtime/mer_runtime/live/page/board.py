"""What the viewers of a page are shown: the latest picture, and the messages so far."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from threading import Condition, Lock
from typing import Any

import cv2

from mer_runtime.live.overlay import draw_live
from mer_runtime.live.sources.captured import Picture
from mer_runtime.stream.event import StreamEvent

#: Pixels: a picture's longer side is at most this.
PICTURE_SIDE = 720
JPEG_QUALITY = 75
#: Messages that a new viewer is told: a minute of the default hop, with room for others.
HISTORY = 160


class Board:
    """Written by the session, read by any number of viewers, each at its own speed.

    A picture is drawn and compressed when a viewer asks for it, once for all of them: without
    viewers it costs nothing.

    Args:
        greeting: what every viewer is told first, as the message ``hello``.
    """

    def __init__(self, greeting: Mapping[str, Any]) -> None:
        self._greeting = dict(greeting)
        self._changed = Condition()
        self._picture: tuple[Picture, tuple[StreamEvent, ...]] | None = None
        self._shown = 0
        self._messages: deque[str] = deque(maxlen=HISTORY)
        self._told = 0
        self._closed = False
        self._drawing = Lock()
        self._jpeg: tuple[int, bytes] = (0, b"")

    @property
    def greeting(self) -> str:
        """What every viewer is told first."""
        return _message("hello", self._greeting)

    def announce(self, **media: bool) -> None:
        """Say whether there is ``video`` and ``audio``: to those who are there, and who come."""
        self._greeting |= media
        self.tell("media", media)

    def show(self, picture: Picture, answers: Sequence[StreamEvent]) -> None:
        """Make this the latest picture."""
        with self._changed:
            self._picture, self._shown = (picture, tuple(answers)), self._shown + 1
            self._changed.notify_all()

    def tell(self, kind: str, content: Mapping[str, Any]) -> None:
        """Add a message: a server-sent event named ``kind``."""
        message = _message(kind, content)
        with self._changed:
            self._messages.append(message)
            self._told += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let every viewer's wait end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed

    def messages(self, since: int, patience: float) -> tuple[int, list[str]]:
        """Messages after number ``since``, as far as they are kept; waits for one for a while.

        Returns:
            The number of the last message, and the messages.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._told > since, patience)
            missing = min(self._told - since, len(self._messages))
            return self._told, list(self._messages)[len(self._messages) - missing :]

    def jpeg(self, since: int, patience: float) -> tuple[int, bytes]:
        """The latest picture, if it is newer than number ``since``; waits for one for a while.

        Returns:
            The picture's number, and its JPEG; empty if none came.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._shown > since, patience)
            number, latest = self._shown, self._picture
        if latest is None or number <= since:
            return since, b""
        with self._drawing:
            if self._jpeg[0] < number:
                self._jpeg = number, _compress(*latest)
            return self._jpeg


def _message(kind: str, content: Mapping[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps(content)}\n\n"


def _compress(picture: Picture, answers: tuple[StreamEvent, ...]) -> bytes:
    image = picture.image()
    scale = min(1.0, PICTURE_SIDE / max(image.shape[:2]))
    size = (max(round(image.shape[0] * scale), 1), max(round(image.shape[1] * scale), 1))
    drawn = cv2.cvtColor(draw_live(image, answers, size), cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return data.tobytes()
