"""Sources of a live session: camera, microphone, pipe, URL or file, each read by its own thread."""

from mer_runtime.live.sources.address import Address, camera, microphone, parse_source
from mer_runtime.live.sources.capture import Capture, Pace
from mer_runtime.live.sources.captured import Notice, Picture, Sink, Sound, SourceError

__all__ = [
    "Address",
    "Capture",
    "Notice",
    "Pace",
    "Picture",
    "Sink",
    "Sound",
    "SourceError",
    "camera",
    "microphone",
    "parse_source",
]
