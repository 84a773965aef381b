"""The paper's network: EfficientFace, two branches, three fusions."""

from mer.models.branches import AudioBranch, FrameBranch, VisualBranch
from mer.models.efficientface import EfficientFace
from mer.models.network import MultimodalNet
from mer.models.own import add_model, is_fusion, own_hash, own_source, require_crops
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
    "add_model",
    "build_encoder",
    "build_model",
    "is_fusion",
    "own_hash",
    "own_source",
    "require_crops",
]
