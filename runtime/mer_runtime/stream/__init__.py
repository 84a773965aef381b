"""Emotions from a running stream: frames and audio chunks in, an event every hop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mer_runtime.lazy_imports import make_getattr

if TYPE_CHECKING:
    from mer_runtime.stream.event import StreamEvent
    from mer_runtime.stream.recognizer import StreamRecognizer
    from mer_runtime.stream.statistics import StreamStatistics

__all__ = ["StreamEvent", "StreamRecognizer", "StreamStatistics"]

__getattr__ = make_getattr(
    __name__,
    {
        ".event": ("StreamEvent",),
        ".recognizer": ("StreamRecognizer",),
        ".statistics": ("StreamStatistics",),
    },
)
