"""Errors of calibration; their base is ``mer_runtime.errors.MerError``."""

from __future__ import annotations

from collections.abc import Sequence

from mer_runtime.errors import MerError


class CalibrationError(MerError, ValueError):
    """A calibration set is empty or not finite, or ranges belong to another graph or spec."""


class DialectError(MerError, ValueError):
    """A quantised graph isn't of the dialect that its engine reads rightly."""

    def __init__(self, tensor: str, reason: str) -> None:
        super().__init__(f"tensor '{tensor}' {reason}")
        self.tensor = tensor


class SaturationError(MerError, ValueError):
    """A quantised graph can overflow on x86 without VNNI (``mer_calibration.graph.saturation``)."""

    def __init__(
        self, layer: str, channel: int, places: Sequence[int], total: int, limit: int
    ) -> None:
        pair = " and ".join(map(str, places))
        super().__init__(
            f"layer '{layer}' can overflow on x86 processors without VNNI: in output channel "
            f"{channel} weights {pair} sum to {total} steps, more than {limit}: calibrate again"
        )
        self.layer, self.channel = layer, channel
