"""The paper's network: EfficientFace, two branches, three fusions."""

from mer.models.branches import AudioBranch, VisualBranch
from mer.models.efficientface import EfficientFace
from mer.models.fusion import MultimodalNet, build_model
from mer.models.standardisation import Standardiser

__all__ = [
    "AudioBranch",
    "EfficientFace",
    "MultimodalNet",
    "Standardiser",
    "VisualBranch",
    "build_model",
]
