"""The paper's network: EfficientFace, two branches, three fusions."""

from mer.models.branches import AudioBranch, FrameBranch, VisualBranch
from mer.models.efficientface import EfficientFace
from mer.models.network import MultimodalNet
from mer.models.registry import ENCODERS, FUSIONS, build_encoder, build_model
from mer.models.standardisation import Standardiser

__all__ = [
    "ENCODERS",
    "FUSIONS",
    "AudioBranch",
    "EfficientFace",
    "FrameBranch",
    "MultimodalNet",
    "Standardiser",
    "VisualBranch",
    "build_encoder",
    "build_model",
]
