"""Two models on the same clips: how often they agree, and whether their difference is chance.

A corpus' test split has a few hundred clips, so that the intervals of two prec1 overlap even
where one model is clearly worse. Clip by clip the comparison is much sharper.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer.evaluate.metrics import BOOTSTRAP_RESAMPLES, Interval


@dataclass(frozen=True)
class Comparison:
    """Model A against model B.

    Attributes:
        n: clips.
        agreement: percent of clips that both answer alike, rightly or not.
        only_a, only_b: clips that only this model answers rightly.
        mcnemar_p: two-sided exact McNemar test (McNemar 1947) of ``only_a`` against ``only_b``.
        prec1_difference: prec1 of A minus that of B, in points.
        interval: its 95 % bootstrap interval over clips, in points.
        max_logit_difference, mean_logit_difference: |Δlogit| over all clips and classes.
    """

    n: int
    agreement: float
    only_a: int
    only_b: int
    mcnemar_p: float
    prec1_difference: float
    interval: Interval
    max_logit_difference: float
    mean_logit_difference: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; ``agreement`` in percent, differences of prec1 in points."""
        return {
            "agreement": round(self.agreement, 4),
            "only_a": self.only_a,
            "only_b": self.only_b,
            "mcnemar_p": round(self.mcnemar_p, 6),
            "prec1_difference": round(self.prec1_difference, 4),
            "prec1_difference_interval": [round(bound, 4) for bound in self.interval],
            "max_logit_difference": self.max_logit_difference,
            "mean_logit_difference": self.mean_logit_difference,
        }


def compare_logits(
    logits_a: NDArray[np.float32],
    logits_b: NDArray[np.float32],
    targets: NDArray[np.int64],
    *,
    seed: int = 0,
) -> Comparison:
    """Compare two models' logits (n, classes) on clips whose classes are ``targets`` (n,).

    ``seed`` draws the bootstrap.

    Raises:
        ValueError: the shapes differ, or there are no clips.
    """
    if logits_a.shape != logits_b.shape or len(logits_a) != len(targets) or not len(targets):
        raise ValueError(
            f"logits of shapes {logits_a.shape} and {logits_b.shape} for {len(targets)} clips"
        )
    answers_a, answers_b = logits_a.argmax(axis=1), logits_b.argmax(axis=1)
    right_a, right_b = answers_a == targets, answers_b == targets
    gain = right_a.astype(np.int64) - right_b.astype(np.int64)
    only_a, only_b = int((gain > 0).sum()), int((gain < 0).sum())
    difference = np.abs(logits_a.astype(np.float64) - logits_b)
    return Comparison(
        n=len(targets),
        agreement=100 * float((answers_a == answers_b).mean()),
        only_a=only_a,
        only_b=only_b,
        mcnemar_p=mcnemar_p_value(only_a, only_b),
        prec1_difference=100 * float(gain.mean()),
        interval=_bootstrap_mean(gain, seed),
        max_logit_difference=float(difference.max()),
        mean_logit_difference=float(difference.mean()),
    )


def mcnemar_p_value(only_a: int, only_b: int) -> float:
    """p of a split at least this uneven among the discordant clips, were it a fair coin's."""
    discordant = only_a + only_b
    tail = sum(math.comb(discordant, k) for k in range(min(only_a, only_b) + 1))
    return min(1.0, 2 * tail / (1 << discordant))


def _bootstrap_mean(gain: NDArray[np.int64], seed: int) -> Interval:
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, len(gain), (BOOTSTRAP_RESAMPLES, len(gain)))
    low, high = np.percentile(gain[drawn].mean(axis=1), (2.5, 97.5))
    return 100 * float(low), 100 * float(high)
