"""Errors of calibration; their base is ``mer_runtime.errors.MerError``."""

from __future__ import annotations

from mer_runtime.errors import MerError


class CalibrationError(MerError, ValueError):
    """A calibration set is empty or not finite, or ranges belong to another graph or spec."""


class DialectError(MerError, ValueError):
    """A quantised graph isn't of the dialect that its engine reads rightly."""

    def __init__(self, tensor: str, reason: str) -> None:
        super().__init__(f"tensor '{tensor}' {reason}")
        self.tensor = tensor
