"""The lean runtime of mer-edge: a bundle and a clip in, an emotion out."""

from mer_runtime.engines.telemetry import switch_off_telemetry
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
from mer_runtime.recognizer import Prediction, Recognizer
from mer_runtime.spec import RAVDESS_LABELS, AudioSpec, Spec, VideoSpec

__version__ = "0.1.0"

__all__ = [
    "RAVDESS_LABELS",
    "AudioSpec",
    "BundleError",
    "FaceDetectorError",
    "MediaError",
    "MerError",
    "MerWarning",
    "MissingExtraError",
    "MissingModalityError",
    "OutputError",
    "Prediction",
    "Recognizer",
    "Spec",
    "SpecError",
    "VideoSpec",
    "__version__",
]

# Here, because none of our packages imports an engine before this one is imported.
switch_off_telemetry()
