"""Emotions from a running stream: frames and audio chunks in, an event every hop."""

from mer_runtime.stream.event import StreamEvent
from mer_runtime.stream.recognizer import StreamRecognizer
from mer_runtime.stream.statistics import StreamStatistics

__all__ = ["StreamEvent", "StreamRecognizer", "StreamStatistics"]
