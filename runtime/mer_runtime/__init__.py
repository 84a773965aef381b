"""The lean runtime of mer-edge: a bundle and a clip in, an emotion out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mer_runtime.lazy_imports import make_getattr
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

__getattr__ = make_getattr(
    __name__,
    {
        ".bundle": ("Bundle", "load_bundle"),
        ".engines.builder": ("EngineError",),
        ".errors": (
            "BundleError",
            "FaceDetectorError",
            "MediaError",
            "MerError",
            "MerWarning",
            "MissingExtraError",
            "MissingModalityError",
            "OutputError",
            "SpecError",
        ),
        ".inputs.listing": ("MEDIA_SUFFIXES", "MediaListing", "list_media"),
        ".inputs.waveform": ("mix_down",),
        ".live.overlay": ("write_overlay",),
        ".live.page": ("PageServer",),
        ".live.session": ("Input", "LiveSession"),
        ".live.sources": ("Notice", "SourceError", "camera", "microphone", "parse_source"),
        ".prediction": ("Analysis", "Prediction"),
        ".proof.self_test": ("SelfTest",),
        ".recognizer": ("Recognizer",),
        ".spec": ("AudioSpec", "RAVDESS_LABELS", "Spec", "VideoSpec"),
        ".timeline": ("Timeline", "write_timeline"),
    },
)

# Here, because none of our packages imports an engine before this one is imported.
switch_off_telemetry()
