"""Models, data, training and evaluation of face-and-voice emotion recognition (needs torch)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mer_runtime.lazy_imports import make_getattr

if TYPE_CHECKING:
    from mer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from mer.data.preparation import PreparationSummary, prepare_cache
    from mer.errors import CacheError, CheckpointError, CorpusError, TrainingError
    from mer.evaluate.comparison import Comparison
    from mer.evaluate.evaluation import Evaluation, compare_models, evaluate_model
    from mer.evaluate.own_clips import FolderEvaluation, evaluate_folder
    from mer.models import MultimodalNet, add_model
    from mer.train.photo_learner import PretrainingRecipe
    from mer.train.pretraining import pretrain_encoder
    from mer.train.series import Draw, Series, train_series
    from mer.train.training import TrainingSummary, train_model
    from mer.weights import shipped_checkpoint

__all__ = [
    "CacheError",
    "Checkpoint",
    "CheckpointError",
    "Comparison",
    "CorpusError",
    "Draw",
    "Evaluation",
    "FolderEvaluation",
    "MultimodalNet",
    "PreparationSummary",
    "PretrainingRecipe",
    "Series",
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
    "train_series",
]

__getattr__ = make_getattr(
    __name__,
    {
        ".checkpoint": ("Checkpoint", "load_checkpoint", "save_checkpoint"),
        ".data.preparation": ("PreparationSummary", "prepare_cache"),
        ".errors": ("CacheError", "CheckpointError", "CorpusError", "TrainingError"),
        ".evaluate.comparison": ("Comparison",),
        ".evaluate.evaluation": ("Evaluation", "compare_models", "evaluate_model"),
        ".evaluate.own_clips": ("FolderEvaluation", "evaluate_folder"),
        ".models": ("MultimodalNet", "add_model"),
        ".train.photo_learner": ("PretrainingRecipe",),
        ".train.pretraining": ("pretrain_encoder",),
        ".train.series": ("Draw", "Series", "train_series"),
        ".train.training": ("TrainingSummary", "train_model"),
        ".weights": ("shipped_checkpoint",),
    },
)
