"""How far a classifier's confidence can be trusted: temperature scaling and calibration error.

Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017). One number, the temperature,
divides all logits: the answer stays, its probability comes nearer to how often it is right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mer_runtime.feeds import MODALITIES, Modality, Temperatures

#: Bounds of a fitted temperature, which clips that are all answered rightly would drive to zero.
LOWEST, HIGHEST = 0.05, 20.0
#: Halvings of the interval between the bounds' logarithms: more than float64 can tell apart.
BISECTIONS = 60


@dataclass(frozen=True)
class Confidence:
    """A fitted temperature and what it does to the clips that it was fitted on.

    Attributes:
        temperature: what logits are divided by.
        ece_before, ece: expected calibration error in percent at temperature 1 and at this one.
    """

    temperature: float
    ece_before: float
    ece: float

    def to_dict(self) -> dict[str, float]:
        """JSON-ready data."""
        return asdict(self)


def measure_confidence(logits: ArrayLike, targets: ArrayLike) -> Confidence:
    """Fit a temperature to logits (n, classes) and class numbers (n,), and say what it changes.

    Where the fitted one makes the calibration error larger, which the least cross-entropy may, the
    temperature stays 1.

    Raises:
        ValueError: see ``fit_temperature``.
    """
    temperature = fit_temperature(logits, targets)
    before = expected_calibration_error(logits, targets)
    after = expected_calibration_error(logits, targets, temperature=temperature)
    if after > before:
        return Confidence(1.0, before, before)
    return Confidence(temperature, before, after)


def gather_temperatures(confidence: Mapping[Modality, Confidence]) -> Temperatures:
    """The temperatures of all kinds of windows; of those not measured, that of the first."""
    first = next(iter(confidence.values()))
    return Temperatures(**{shown: confidence.get(shown, first).temperature for shown in MODALITIES})


def describe_confidence(confidence: Mapping[Modality, Confidence]) -> dict[str, dict[str, float]]:
    """JSON-ready data."""
    return {shown: one.to_dict() for shown, one in confidence.items()}


def fit_temperature(logits: ArrayLike, targets: ArrayLike) -> float:
    """The T from 0.05 to 20 with the least mean cross-entropy of softmax(logits / T).

    Args:
        logits: (n, classes), finite.
        targets: (n,) class numbers.

    Returns:
        T; 1 where logits don't differ between classes, so that any T does as well.

    Raises:
        ValueError: there are no clips, a logit isn't finite, or the shapes don't fit.
    """
    scores, right = _checked(logits, targets)
    own = np.take_along_axis(scores, right[:, None], axis=1)
    # Only differences count; against the right class's they can't lose digits to its size.
    scores = scores - own
    if not scores.any():
        return 1.0

    def slope(log_temperature: float) -> float:
        """Of the loss over 1/T, in which it is convex, so that the slope grows with 1/T."""
        probabilities = np.exp(_log_softmax(scores / math.exp(log_temperature)))
        return float((probabilities * scores).sum(axis=1).mean())

    low, high = math.log(LOWEST), math.log(HIGHEST)
    if slope(low) <= 0:
        return LOWEST
    if slope(high) >= 0:
        return HIGHEST
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return math.exp((low + high) / 2)


def expected_calibration_error(
    logits: ArrayLike, targets: ArrayLike, *, temperature: float = 1.0, bins: int = 15
) -> float:
    """ECE in percent: |accuracy - confidence| by bins of equal width, weighted by their clips.

    Confidence is the probability of the answer (of equals, the lower class number).

    Args:
        logits: (n, classes), finite.
        targets: (n,) class numbers.
        temperature: logits are divided by it.

    Raises:
        ValueError: as ``fit_temperature``, or ``temperature`` or ``bins`` is not above 0.
    """
    if not (temperature > 0 and math.isfinite(temperature) and bins > 0):
        raise ValueError(f"temperature {temperature} and bins {bins} must be above 0")
    scores, right = _checked(logits, targets)
    confidence = np.exp(_log_softmax(scores / temperature).max(axis=1))
    hit = scores.argmax(axis=1) == right
    # Bins are open below and closed above, as in the paper.
    places = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(places, weights=hit - confidence, minlength=bins)
    return 100 * float(np.abs(gaps).sum()) / len(right)


def _checked(
    logits: ArrayLike, targets: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    scores, right = np.asarray(logits, np.float64), np.asarray(targets, np.int64)
    if scores.ndim != 2 or right.shape != scores.shape[:1] or not scores.size:
        raise ValueError(f"logits of shape {scores.shape} for targets of shape {right.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("a logit is not finite")
    if right.min() < 0 or right.max() >= scores.shape[1]:
        raise ValueError(f"a target is not a class number below {scores.shape[1]}")
    return scores, right


def _log_softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
