"""What the gate measured, as data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from mer.evaluate.comparison import Comparison
from mer.evaluate.metrics import Interval
from mer_runtime.feeds import Modality


@dataclass(frozen=True)
class GoldenReport:
    """How the engine answered the golden inputs.

    Attributes:
        cases: how many inputs.
        max_difference, mean_difference: |Δlogit| between engine and float reference.
        agreement: percent of inputs with the same most probable label.
        tolerance: what the difference had to stay within, the largest of all feeds.
        sqnr: signal to noise of the crops' features, dB; None where there is no noise.
        bias: share of that noise that the crops have in common, 0 to 1.
    """

    cases: int
    max_difference: float
    mean_difference: float
    agreement: float
    tolerance: float
    sqnr: float | None
    bias: float


@dataclass(frozen=True)
class ModalityReport:
    """Engine against float reference on the validation clips, fed with ``modality``.

    Percentages, but for ``comparison``, whose A is the engine and B the float reference, and
    ``noise``, the root mean square of what is added to the logits. Intervals are of 95 %: Wilson's
    for prec1 and prec5. Expected calibration errors: ``ece_float`` and ``ece`` at ``temperature``,
    the bundle's for such windows, ``ece_own`` of the float model at ``own_temperature``, which its
    checkpoint has.
    """

    modality: Modality
    own_temperature: float
    temperature: float
    prec1_float: float
    prec5_float: float
    prec1: float
    prec5: float
    prec1_float_interval: Interval
    prec5_float_interval: Interval
    prec1_interval: Interval
    prec5_interval: Interval
    ece_own: float
    ece_float: float
    ece: float
    noise: float
    agreement_interval: tuple[float, float]
    comparison: Comparison

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        told = dataclasses.asdict(self)
        del told["comparison"]
        rounded = {name: _round(value) for name, value in told.items()}
        return {**rounded, "n": self.comparison.n, **self.comparison.to_dict()}


def _round(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_round(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


@dataclass(frozen=True)
class GateReport:
    """What the gate measured; ``to_dict`` goes into the manifest.

    Attributes:
        kind: ``golden``: the golden inputs alone were compared; ``validation``: validation clips
            too, so accuracy is proved.
        engine: what gave the answers.
        golden: on the golden inputs.
        modalities: on the validation clips: both modalities, voice alone, face alone.
        max_drop: points of prec1 that were allowed to be lost.
    """

    kind: str
    engine: str
    golden: GoldenReport
    modalities: tuple[ModalityReport, ...] = ()
    max_drop: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        told: dict[str, Any] = {
            "kind": self.kind,
            "engine": self.engine,
            "golden": dataclasses.asdict(self.golden),
        }
        if self.modalities:
            told["max_drop"] = self.max_drop
            told["validation"] = [report.to_dict() for report in self.modalities]
        return told
