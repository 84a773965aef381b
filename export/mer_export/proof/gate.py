"""The check that lets a bundle be written: its own answers against the float reference's."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mer.evaluate.comparison import compare_logits
from mer.evaluate.confidence import expected_calibration_error
from mer.evaluate.metrics import ClassificationMetrics
from mer_calibration.measure.noise import compare_logits as measure_noise
from mer_export.errors import GateError, NonFiniteError
from mer_export.proof.limits import (
    LEAST_AGREEMENT,
    LEVEL,
    MAX_DROP,
    Limits,
    agreement_p_value,
    find_agreement_interval,
    loss_p_value,
    measure_bias,
    measure_loss,
    signal_to_noise,
)
from mer_export.proof.outcome import GoldenReport, ModalityReport
from mer_runtime.feeds import Modality, name_modality
from mer_runtime.golden import Golden


def check_golden(
    golden: Golden,
    logits: NDArray[np.float32],
    features: NDArray[np.float32],
    limits: Limits,
) -> tuple[Golden, GoldenReport]:
    """Compare an engine's answers to the golden inputs with the reference's.

    Args:
        logits: (n, classes) of the cases.
        features: (k, F) of the golden crops.

    Returns:
        The golden set with the engine's answers in it, and the report.

    Raises:
        NonFiniteError: an answer or a feature isn't finite.
        GateError: a logit is farther from the reference's, or the features are noisier, than the
            limits say.
    """
    for name, row in zip(golden.cases, logits, strict=True):
        if not np.isfinite(row).all():
            raise NonFiniteError(
                f"the engine's answer to the golden input '{name}' is not finite: no bundle was "
                "written"
            )
    if not np.isfinite(features).all():
        raise NonFiniteError(
            "the engine's features of the golden crops are not finite: no bundle was written"
        )
    difference = np.abs(logits - golden.reference)
    cases = [golden.case(i) for i in range(len(golden.cases))]
    shown = [name_modality(face=crops is not None, voice=mfcc is not None) for mfcc, crops in cases]
    allowed = np.array([limits.golden[one] for one in shown])
    sqnr = signal_to_noise(golden.features, features)
    bias = measure_bias(golden.features, features, limits.predicted)
    report = GoldenReport(
        cases=len(golden.cases),
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        agreement=100 * float((logits.argmax(1) == golden.reference.argmax(1)).mean()),
        tolerance=float(allowed.max()),
        sqnr=round(sqnr, 2) if math.isfinite(sqnr) else None,
        bias=round(bias, 3),
    )
    over = difference.max(axis=1) / allowed
    worst = int(over.argmax())
    if over[worst] > 1:
        raise GateError(
            f"the engine differs from the float model by {difference[worst].max():.2g} on the "
            f"golden input '{golden.cases[worst]}', more than {allowed[worst]:.2g}: no bundle was "
            "written",
            shown=shown[worst],
        )
    if sqnr < limits.sqnr:
        raise GateError(
            f"the frame features of the golden crops have {sqnr:.1f} dB over their noise, less "
            f"than {limits.sqnr:.1f}: no bundle was written",
            shown="video",
        )
    loss = measure_loss(golden.features, features)
    if loss > limits.loss:
        raise GateError(
            f"what is added to the frame features of the golden crops is {loss:.0%} as large as "
            f"what tells these crops apart, more than {limits.loss:.0%}: no bundle was written",
            shown="video",
        )
    if bias > limits.bias:
        raise GateError(
            f"{bias:.0%} of what is added to the frame features of the golden crops is the same in "
            f"all of them, more than {limits.bias:.0%}: that isn't rounding: no bundle was written",
            shown="video",
        )
    return dataclasses.replace(golden, answers=logits, tolerance=limits.device), report


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
    own_temperature: float = 1.0,
    max_drop: float = MAX_DROP,
    noise: float | None = None,
) -> ModalityReport:
    """Compare logits (n, classes) of an engine with the float reference's, clip by clip.

    Args:
        temperature: the bundle's, for windows that show ``modality``.
        own_temperature: the checkpoint's.
        noise: largest root mean square of what may be added to the logits; None: any.

    Raises:
        NonFiniteError: an answer isn't finite.
        GateError: prec1 is lost, or too few answers agree, beyond chance; or there is more noise
            than the calibration predicts.
    """
    check_finite(modality, answers)
    scores, intervals = {}, {}
    for name, logits in (("float", reference), ("engine", answers)):
        metrics = ClassificationMetrics(logits.shape[1])
        metrics.update(logits, targets)
        scores[name] = metrics.compute()
        intervals[name] = metrics.compute_intervals()
    same = int((answers.argmax(axis=1) == reference.argmax(axis=1)).sum())
    report = ModalityReport(
        modality=modality,
        own_temperature=own_temperature,
        temperature=temperature,
        prec1_float=scores["float"].prec1,
        prec5_float=scores["float"].prec5,
        prec1=scores["engine"].prec1,
        prec5=scores["engine"].prec5,
        prec1_float_interval=intervals["float"]["prec1"],
        prec5_float_interval=intervals["float"]["prec5"],
        prec1_interval=intervals["engine"]["prec1"],
        prec5_interval=intervals["engine"]["prec5"],
        ece_own=expected_calibration_error(reference, targets, temperature=own_temperature),
        ece_float=expected_calibration_error(reference, targets, temperature=temperature),
        ece=expected_calibration_error(answers, targets, temperature=temperature),
        noise=measure_noise(answers, reference).rms,
        agreement_interval=find_agreement_interval(same, len(targets)),
        comparison=compare_logits(answers, reference, targets),
    )
    _check_loss([report], len(targets), max_drop, _describe(modality))
    _check_agreement(len(targets) - same, len(targets), _describe(modality), modality)
    if noise is not None and report.noise > noise:
        raise GateError(
            f"fed with {_describe(modality)}, the engine adds {report.noise:.2g} to the logits of "
            f"validation clips (root mean square), more than {noise:.2g}, which is what its "
            "calibration lets one expect: no bundle was written",
            modality,
        )
    return report


def check_together(reports: Sequence[ModalityReport], max_drop: float) -> None:
    """The same tests over all that was fed: what no feed alone shows, all may.

    Raises:
        GateError: prec1 is lost, or too few answers agree, beyond chance.
    """
    clips = sum(report.comparison.n for report in reports)
    same = sum(round(one.comparison.agreement / 100 * one.comparison.n) for one in reports)
    _check_loss(reports, clips, max_drop, "each modality and both")
    _check_agreement(clips - same, clips, "each modality and both", None)


def _check_loss(reports: Sequence[ModalityReport], clips: int, max_drop: float, fed: str) -> None:
    gained = sum(report.comparison.only_a for report in reports)
    lost = sum(report.comparison.only_b for report in reports)
    points = 100 * (lost - gained) / clips
    if points > max(max_drop, 100 / clips) + 1e-9 and loss_p_value(lost, gained) < LEVEL:
        raise GateError(
            f"fed with {fed}, the engine loses {points:.2f} points of prec1 on the validation "
            f"actors (+{gained} -{lost} clips), more than {max_drop:g} and beyond chance: no "
            "bundle was written",
            reports[0].modality if len(reports) == 1 else None,
        )


def _check_agreement(differing: int, clips: int, fed: str, modality: Modality | None) -> None:
    if agreement_p_value(differing, clips) < LEVEL:
        raise GateError(
            f"fed with {fed}, the engine answers like the float model in "
            f"{100 - 100 * differing / clips:.2f} % of the validation clips, which is less than "
            f"{LEAST_AGREEMENT:g} beyond chance: no bundle was written",
            modality,
        )


def _describe(modality: str) -> str:
    return {"both": "face and voice", "audio": "the voice alone", "video": "the face alone"}[
        modality
    ]
