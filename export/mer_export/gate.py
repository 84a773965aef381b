"""The check that lets a bundle be written: its own answers against the float reference's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer.comparison import Comparison, compare_logits
from mer.confidence import expected_calibration_error
from mer.metrics import ClassificationMetrics
from mer.protocols import Modality
from mer_calibration.trial import Shown
from mer_export.errors import GateError, NonFiniteError
from mer_runtime.bundle import Golden, Precision, Target

#: Largest |Δlogit| from the float reference on golden inputs. Rounding to 8 bits moves logits
#: that reach 20 by some tenths; a graph that is wrong moves them by several.
TOLERANCES: Mapping[Precision, float] = {"fp32": 1e-3, "fp16": 0.1, "int8": 1.5}
#: Largest |Δlogit| that a device may show from the bundle's own answers: other kernels sum in
#: another order, which near a rounding border is a step of the grid.
DEVICE_TOLERANCES: Mapping[Precision, float] = {"fp32": 1e-3, "fp16": 0.1, "int8": 0.5}
#: Engines that weren't run where the bundle was made, and compute in other types there.
REMOTE_TARGETS: tuple[Target, ...] = ("tensorrt", "tensorrt-rtx")
REMOTE_TOLERANCES: Mapping[Precision, float] = {"fp32": 1e-2, "fp16": 0.2, "int8": 1.0}

#: Points of prec1 that may be lost (or one clip, if that is more), and the agreement that is asked.
MAX_DROP = 0.5
LEAST_AGREEMENT = 98.0  # percent

Infer = Callable[[NDArray[np.float32] | None, NDArray[np.uint8] | None], NDArray[np.float32]]


@dataclass(frozen=True)
class GoldenReport:
    """How the engine answered the golden inputs.

    Attributes:
        cases: how many inputs.
        max_difference, mean_difference: |Δlogit| between engine and float reference.
        agreement: percent of inputs with the same most probable label.
        tolerance: what ``max_difference`` had to stay within.
    """

    cases: int
    max_difference: float
    mean_difference: float
    agreement: float
    tolerance: float


@dataclass(frozen=True)
class ModalityReport:
    """Engine against float reference on the validation clips, fed with ``modality``.

    Percentages, but for ``comparison``, whose A is the engine and B the float reference;
    ``ece_float`` and ``ece`` are at the bundle's temperature.
    """

    modality: str
    prec1_float: float
    prec5_float: float
    prec1: float
    prec5: float
    ece_float: float
    ece: float
    comparison: Comparison

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        told = dataclasses.asdict(self)
        del told["comparison"]
        rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in told.items()}
        return {**rounded, **self.comparison.to_dict()}


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


def golden_tolerance(target: Target, precision: Precision) -> float:
    """Largest |Δlogit| from a bundle's own golden answers that a device may show."""
    tolerances = REMOTE_TOLERANCES if target in REMOTE_TARGETS else DEVICE_TOLERANCES
    return tolerances[precision]


def check_golden(golden: Golden, infer: Infer, tolerance: float) -> tuple[Golden, GoldenReport]:
    """Replay the golden inputs on an engine and compare with the reference.

    Returns:
        The golden set with the engine's answers in it, and the report.

    Raises:
        NonFiniteError: an answer isn't finite.
        GateError: one differs from the reference by more than ``tolerance``.
    """
    answers = np.stack([infer(*golden.case(i)) for i in range(len(golden.cases))])
    for name, row in zip(golden.cases, answers, strict=True):
        if not np.isfinite(row).all():
            raise NonFiniteError(
                f"the engine's answer to the golden input '{name}' is not finite: no bundle was "
                "written"
            )
    difference = np.abs(answers - golden.reference)
    worst = int(difference.max(axis=1).argmax())
    report = GoldenReport(
        cases=len(golden.cases),
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        agreement=100 * float((answers.argmax(1) == golden.reference.argmax(1)).mean()),
        tolerance=tolerance,
    )
    if report.max_difference > tolerance:
        raise GateError(
            f"the engine differs from the float model by {report.max_difference:.2g} on the golden "
            f"input '{golden.cases[worst]}', more than {tolerance:g}: no bundle was written",
            shown=_name_shown(*golden.case(worst)),
        )
    return dataclasses.replace(golden, answers=answers), report


def _name_shown(mfcc: NDArray[np.float32] | None, faces: NDArray[np.uint8] | None) -> Shown:
    if faces is None:
        return "audio"
    return "video" if mfcc is None else "both"


def check_finite(modality: str, answers: NDArray[np.float32]) -> None:
    """Refuse logits that are no numbers.

    Raises:
        NonFiniteError: one isn't finite.
    """
    if not np.isfinite(answers).all():
        raise NonFiniteError(
            f"fed with {_describe(modality)}, the engine's answer to a validation clip is not "
            "finite: no bundle was written"
        )


def check_validation(
    modality: Modality,
    reference: NDArray[np.float32],
    answers: NDArray[np.float32],
    targets: NDArray[np.int64],
    *,
    temperature: float,
    max_drop: float = MAX_DROP,
) -> ModalityReport:
    """Compare logits (n, classes) of an engine with the float reference's, clip by clip.

    Raises:
        NonFiniteError: an answer isn't finite.
        GateError: too much prec1 is lost, or too few answers agree.
    """
    check_finite(modality, answers)
    scores = {}
    for name, logits in (("float", reference), ("engine", answers)):
        metrics = ClassificationMetrics(logits.shape[1])
        metrics.update(logits, targets)
        scores[name] = metrics.compute()
    report = ModalityReport(
        modality=modality,
        prec1_float=scores["float"].prec1,
        prec5_float=scores["float"].prec5,
        prec1=scores["engine"].prec1,
        prec5=scores["engine"].prec5,
        ece_float=expected_calibration_error(reference, targets, temperature=temperature),
        ece=expected_calibration_error(answers, targets, temperature=temperature),
        comparison=compare_logits(answers, reference, targets),
    )
    lost = report.prec1_float - report.prec1
    allowed = max(max_drop, 100 / len(targets))
    if lost > allowed + 1e-9:
        raise GateError(
            f"fed with {_describe(modality)}, the engine loses {lost:.2f} points of prec1 on the "
            f"validation actors ({report.prec1:.2f} against {report.prec1_float:.2f} %), more than "
            f"{allowed:.2f}: no bundle was written",
            modality,
        )
    if report.comparison.agreement < LEAST_AGREEMENT:
        raise GateError(
            f"fed with {_describe(modality)}, the engine answers like the float model in "
            f"{report.comparison.agreement:.2f} % of the validation clips, less than "
            f"{LEAST_AGREEMENT:g}: no bundle was written",
            modality,
        )
    return report


def _describe(modality: str) -> str:
    return {"both": "face and voice", "audio": "the voice alone", "video": "the face alone"}[
        modality
    ]
