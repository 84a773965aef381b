"""The lean runtime of mer-edge: a bundle and a clip in, an emotion out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mer_runtime.telemetry import switch_off_telemetry
from mer_runtime.version import __version__

if TYPE_CHECKING:
    from mer_runtime.bundle import Bundle, load_bundle
    from mer_runtime.engines.builder import EngineError
    from mer_runtime.errors import (
        BundleError,
        FaceDetectorError,
        MediaError,
        MerError,
        MerWarning,
        MissingExtraError,
        MissingModalityError,
        OutputError,
        SpecError,
    )
    from mer_runtime.inputs.listing import MEDIA_SUFFIXES, MediaListing, list_media
    from mer_runtime.inputs.waveform import mix_down
    from mer_runtime.live.overlay import write_overlay
    from mer_runtime.live.page import PageServer
    from mer_runtime.live.session import Input, LiveSession
    from mer_runtime.live.sources import Notice, SourceError, camera, microphone, parse_source
    from mer_runtime.prediction import Analysis, Prediction
    from mer_runtime.proof.self_test import SelfTest
    from mer_runtime.recognizer import Recognizer
    from mer_runtime.spec import RAVDESS_LABELS, AudioSpec, Spec, VideoSpec
    from mer_runtime.timeline import Timeline, write_timeline

__all__ = [
    "MEDIA_SUFFIXES",
    "RAVDESS_LABELS",
    "Analysis",
    "AudioSpec",
    "Bundle",
    "BundleError",
    "EngineError",
    "FaceDetectorError",
    "Input",
    "LiveSession",
    "MediaError",
    "MediaListing",
    "MerError",
    "MerWarning",
    "MissingExtraError",
    "MissingModalityError",
    "Notice",
    "OutputError",
    "PageServer",
    "Prediction",
    "Recognizer",
    "SelfTest",
    "SourceError",
    "Spec",
    "SpecError",
    "Timeline",
    "VideoSpec",
    "__version__",
    "camera",
    "list_media",
    "load_bundle",
    "microphone",
    "mix_down",
    "parse_source",
    "write_overlay",
    "write_timeline",
]

_HOMES = {
    "Analysis": "prediction",
    "AudioSpec": "spec",
    "Bundle": "bundle",
    "BundleError": "errors",
    "EngineError": "engines.builder",
    "FaceDetectorError": "errors",
    "Input": "live.session",
    "LiveSession": "live.session",
    "MEDIA_SUFFIXES": "inputs.listing",
    "MediaError": "errors",
    "MediaListing": "inputs.listing",
    "MerError": "errors",
    "MerWarning": "errors",
    "MissingExtraError": "errors",
    "MissingModalityError": "errors",
    "Notice": "live.sources",
    "OutputError": "errors",
    "PageServer": "live.page",
    "Prediction": "prediction",
    "RAVDESS_LABELS": "spec",
    "Recognizer": "recognizer",
    "SelfTest": "proof.self_test",
    "SourceError": "live.sources",
    "Spec": "spec",
    "SpecError": "errors",
    "Timeline": "timeline",
    "VideoSpec": "spec",
    "camera": "live.sources",
    "list_media": "inputs.listing",
    "load_bundle": "bundle",
    "microphone": "live.sources",
    "mix_down": "inputs.waveform",
    "parse_source": "live.sources",
    "write_overlay": "live.overlay",
    "write_timeline": "timeline",
}

# Here, because none of our packages imports an engine before this one is imported.
switch_off_telemetry()


def __getattr__(name: str) -> Any:
    # Late, so that a command can say in one line that it was interrupted while it loads.
    if name in _HOMES:
        return getattr(import_module(f"mer_runtime.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'mer_runtime' has no attribute {name!r}")
