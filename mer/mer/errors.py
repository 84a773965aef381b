"""Errors of training and evaluation; their base is ``mer_runtime.errors.MerError``."""

from __future__ import annotations

from pathlib import Path

from mer_runtime.errors import MerError


class CheckpointError(MerError, ValueError):
    """A checkpoint can't be read, or isn't one of ours or of the reference implementation."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


class CorpusError(MerError, ValueError):
    """A folder of recordings or photos isn't laid out as expected, or is empty."""


class CacheError(MerError, ValueError):
    """A prepared cache is missing, incomplete, or was made with another spec."""


class TrainingError(MerError, RuntimeError):
    """Training can't start or go on: no data, loss not finite, or a run that differs."""
