"""The lean runtime of mer-edge: a bundle and a clip in, an emotion out."""

import os

# Before anything imports ONNX Runtime: from 1.29 on it reports to its maker otherwise, and leaves a
# number for the device in the user's cache. Who wants that sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

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
