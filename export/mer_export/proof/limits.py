"""How far an engine's answers may be from the float model's: what its calibration predicts.

Rounding to 8 bits adds noise whose size a calibration measures. A fault adds more, or something
that isn't noise. So no limit here is a round number of logits: each is a multiple of what was
measured, or the outcome of a test at a level that is written down. How often these rules are wrong
either way stands in ``docs/explanation/gate.md``, and ``scripts/simulate_gate.py`` computes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mer_calibration.measure.noise import Noise
from mer_export.targets import find_target
from mer_runtime.bundle import Precision, Target
from mer_runtime.feeds import MODALITIES, Modality

#: Largest |Δlogit| of float graphs from the float model: roundings of float32, and of float16. That
#: of int8 is for layers that stay float, whose weights are stored as float16.
FLOAT_LIMITS: Mapping[Precision, float] = {"fp32": 1e-3, "fp16": 0.1, "int8": 1e-2}
#: The same where the engine wasn't run at export, and computes in other types.
REMOTE_FLOAT_LIMITS: Mapping[Precision, float] = {"fp32": 1e-2, "fp16": 0.2, "int8": 5e-2}

#: Largest |Δlogit| on a golden input, in root mean squares of the noise. Golden inputs are no
#: clips of the corpus; the sixteen shipped pairs of model and dialect stay under 4.
GOLDEN_SPREAD = 6.0
#: Decibels that the features of the golden crops may have less than those of the clips; those of
#: the shipped bundles have 3 more, those of a small model in the tests 1 less.
GOLDEN_DECIBELS = 3.0
#: No more decibels are asked for: a calibration on few clips that are alike promises more than
#: other crops can hold. The features of what ships have 34 on clips.
GOLDEN_ENOUGH = 33.0
#: Share of the features' noise, in root mean squares, that the golden crops have in common.
#: Rounding differs from crop to crop (0.23 to 0.36 in the shipped bundles); a fault is in all.
GOLDEN_BIAS = 0.6
#: Noise of the golden crops' features in root mean squares of what tells these crops apart. One
#: answer to all of them has 1 or more, whatever noise its calibration predicts; the shipped
#: bundles have 0.03 to 0.06.
GOLDEN_LOSS = 0.5
#: Largest |Δlogit| between an engine's answers and a device's: other kernels round otherwise now
#: and then, so that both have noise of the same size.
DEVICE_SPREAD = 6.0
#: How many times as large as predicted noise may be on the validation clips.
NOISE_FACTOR = 1.75
#: An answer whose two best classes are closer than so many root mean squares of what rounding
#: does to their difference isn't settled.
SETTLED_SPREAD = 4.5

#: Percent of answers that have to be the float model's.
LEAST_AGREEMENT = 98.0
#: Points of prec1 that may be lost, or one clip, if that is more.
MAX_DROP = 0.5
#: Chance of refusing a bundle that agrees in ``LEAST_AGREEMENT`` percent, or that loses nothing.
LEVEL = 0.01


@dataclass(frozen=True)
class Limits:
    """What a bundle is held to.

    Attributes:
        golden: largest |Δlogit| from the float model on golden inputs, by what they show.
        sqnr: least signal to noise of the golden crops' features, dB.
        predicted: signal to noise of the features that the calibration predicts, dB.
        bias: largest share of the features' noise that the golden crops have in common.
        loss: largest noise of their features, against what tells the crops apart.
        noise: largest root mean square of what is added to the logits of validation clips, by
            what they show; empty where no calibration predicts it.
        device: largest |Δlogit| that a device may show from the bundle's own golden answers.
    """

    golden: Mapping[Modality, float]
    sqnr: float
    predicted: float
    bias: float
    loss: float
    noise: Mapping[Modality, float]
    device: float


def find_limits(precision: Precision, target: Target, noise: Noise | None) -> Limits:
    """The limits of a bundle.

    Args:
        noise: what its calibration predicts; None for float graphs.
    """
    floats = (REMOTE_FLOAT_LIMITS if find_target(target).remote else FLOAT_LIMITS)[precision]
    if noise is None:
        golden = dict.fromkeys(MODALITIES, FLOAT_LIMITS[precision])
        return Limits(golden, 0.0, math.inf, math.inf, math.inf, {}, floats)
    # A calibration set may lack one kind of window; it gets the largest noise of the others.
    largest = max(one.rms for one in noise.logits.values())
    rms = {
        shown: noise.logits[shown].rms if shown in noise.logits else largest for shown in MODALITIES
    }
    return Limits(
        golden={shown: max(GOLDEN_SPREAD * rms[shown], floats) for shown in MODALITIES},
        sqnr=min(noise.sqnr - GOLDEN_DECIBELS, GOLDEN_ENOUGH),
        predicted=noise.sqnr,
        bias=GOLDEN_BIAS,
        loss=GOLDEN_LOSS,
        noise={shown: max(NOISE_FACTOR * rms[shown], floats) for shown in MODALITIES},
        device=max(DEVICE_SPREAD * largest, floats),
    )


def find_doubtful_margins(noise: Mapping[Modality, float]) -> dict[Modality, float]:
    """How close two classes must be for rounding to decide between them.

    Args:
        noise: root mean square of what rounding adds to the difference of the two best.
    """
    largest = max(noise.values())
    return {shown: SETTLED_SPREAD * noise.get(shown, largest) for shown in MODALITIES}


def agreement_p_value(differing: int, clips: int) -> float:
    """Chance of so many differing answers or more, were ``LEAST_AGREEMENT`` percent alike."""
    return binomial_tail(differing, clips, 1 - LEAST_AGREEMENT / 100)


def loss_p_value(lost: int, gained: int) -> float:
    """Chance of a loss like this, were each flip as likely a gain (exact, one-sided McNemar)."""
    return binomial_tail(lost, lost + gained, 0.5)


def binomial_tail(least: int, trials: int, chance: float) -> float:
    """Chance of ``least`` successes or more."""
    terms = (
        math.comb(trials, k) * chance**k * (1 - chance) ** (trials - k)
        for k in range(least, trials + 1)
    )
    return min(1.0, sum(terms))


def find_agreement_interval(same: int, clips: int, level: float = 0.05) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share, percent (Biometrika 1934), by bisection."""

    def solve(is_above: bool) -> float:
        low, high = 0.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            tail = (
                binomial_tail(same, clips, middle)
                if not is_above
                else 1 - binomial_tail(same + 1, clips, middle)
            )
            too_low = tail < level / 2 if not is_above else tail > level / 2
            low, high = (middle, high) if too_low else (low, middle)
        return 100 * low

    return (0.0 if same == 0 else solve(False)), (100.0 if same == clips else solve(True))


def signal_to_noise(exact: NDArray[np.float32], given: NDArray[np.float32]) -> float:
    """Of features, in dB; infinite where there is no noise."""
    noise = float(np.square(given.astype(np.float64) - exact).sum())
    signal = float(np.square(exact.astype(np.float64)).sum())
    return 10 * math.log10(signal / noise) if noise and signal else math.inf


def measure_bias(
    exact: NDArray[np.float32], given: NDArray[np.float32], predicted: float = math.inf
) -> float:
    """Share of the noise of features (crops, F) that all crops have in common, in rms.

    The noise is that of these crops or the predicted one, whichever is larger. Crops of one face
    are rounded alike, the more so the smaller they are: where they have less noise than the clips,
    what they have in common is less than it looks.

    Args:
        predicted: signal to noise, dB.
    """
    added = given.astype(np.float64) - exact
    signal = _root_mean_square(exact.astype(np.float64))
    total = max(_root_mean_square(added), signal * 10 ** (-predicted / 20))
    return _root_mean_square(added.mean(axis=0)) / total if total else 0.0


def measure_loss(exact: NDArray[np.float32], given: NDArray[np.float32]) -> float:
    """Noise of features (crops, F) in root mean squares of how far they are from their mean."""
    exact = exact.astype(np.float64)
    apart = _root_mean_square(exact - exact.mean(axis=0))
    noise = _root_mean_square(given.astype(np.float64) - exact)
    return noise / apart if apart else math.inf if noise else 0.0


def _root_mean_square(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.square(values).mean()))
