"""Models, data, training and evaluation of face-and-voice emotion recognition (needs torch)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from mer.data.preparation import PreparationSummary, prepare_cache
    from mer.errors import CacheError, CheckpointError, CorpusError, TrainingError
    from mer.evaluate.comparison import Comparison
    from mer.evaluate.evaluation import Evaluation, compare_models, evaluate_model
    from mer.evaluate.own_clips import FolderEvaluation, evaluate_folder
    from mer.models import MultimodalNet, add_model
    from mer.train.pretraining import PretrainingRecipe, pretrain_encoder
    from mer.train.seeds import SeedsSummary, train_seeds
    from mer.train.training import TrainingSummary, train_model
    from mer.weights import shipped_checkpoint

__all__ = [
    "CacheError",
    "Checkpoint",
    "CheckpointError",
    "Comparison",
    "CorpusError",
    "Evaluation",
    "FolderEvaluation",
    "MultimodalNet",
    "PreparationSummary",
    "PretrainingRecipe",
    "SeedsSummary",
    "TrainingError",
    "TrainingSummary",
    "add_model",
    "compare_models",
    "evaluate_folder",
    "evaluate_model",
    "load_checkpoint",
    "prepare_cache",
    "pretrain_encoder",
    "save_checkpoint",
    "shipped_checkpoint",
    "train_model",
    "train_seeds",
]

_HOMES = {
    "CacheError": "errors",
    "Checkpoint": "checkpoint",
    "CheckpointError": "errors",
    "Comparison": "evaluate.comparison",
    "CorpusError": "errors",
    "Evaluation": "evaluate.evaluation",
    "FolderEvaluation": "evaluate.own_clips",
    "MultimodalNet": "models",
    "PreparationSummary": "data.preparation",
    "PretrainingRecipe": "train.pretraining",
    "SeedsSummary": "train.seeds",
    "TrainingError": "errors",
    "TrainingSummary": "train.training",
    "add_model": "models",
    "compare_models": "evaluate.evaluation",
    "evaluate_folder": "evaluate.own_clips",
    "evaluate_model": "evaluate.evaluation",
    "load_checkpoint": "checkpoint",
    "prepare_cache": "data.preparation",
    "pretrain_encoder": "train.pretraining",
    "save_checkpoint": "checkpoint",
    "shipped_checkpoint": "weights",
    "train_model": "train.training",
    "train_seeds": "train.seeds",
}


def __getattr__(name: str) -> Any:
    # Late, so that a command can say that torch is missing before anything imports it.
    if name in _HOMES:
        return getattr(import_module(f"mer.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'mer' has no attribute {name!r}")
