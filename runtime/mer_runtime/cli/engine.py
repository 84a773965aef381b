"""What ``mer-run`` loads a bundle with."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mer_runtime.console import say
from mer_runtime.proof.choice import EngineChoice
from mer_runtime.recognizer import Recognizer


class EngineOptions(NamedTuple):
    """What loading a bundle takes, and what it is to listen to."""

    threads: int | None
    detector: Path | None
    detect_size: int
    backend: EngineChoice | None
    audio_track: int | None


def load_engine(bundle: Path, engine: EngineOptions, *, prove: bool = True) -> Recognizer:
    """The bundle in an engine; says which, where that was asked for."""
    asked = engine._asdict()
    track = asked.pop("audio_track")
    recognizer = Recognizer.load(bundle, prove=prove, **asked)
    recognizer.audio_track = track
    for name, result in recognizer.considered.items():
        say(f"{name}: {result}", err=True)
    if engine.backend is not None:
        say(f"Backend: {recognizer.backend.name}", err=True)
    return recognizer
