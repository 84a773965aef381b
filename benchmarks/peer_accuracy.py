"""A peer's answers beside ours: both brought to the emotions that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mer.data.recording import Recording
from mer_runtime.intervals import wilson_interval
from mer_runtime.spec import RAVDESS_LABELS

Scores = Mapping[str, float]
#: What both speak of. A peer knows no calm, which counts as neutral for all.
NAMES = {"calm": "neutral", "fear": "fearful", "surprise": "surprised"}


def shared_name(label: str) -> str:
    """A label of ours or of the peer's as one of the seven."""
    return NAMES.get(label, label)


def choose(scores: Scores) -> str:
    """The one of the seven with the most; what counts as the same is added up."""
    merged: dict[str, float] = {}
    for label, score in scores.items():
        merged[shared_name(label)] = merged.get(shared_name(label), 0.0) + score
    return max(merged, key=merged.__getitem__)


def score_answers(
    recordings: Sequence[Recording], answers: Sequence[Scores | None]
) -> dict[str, Any]:
    """Prec1 in percent with its 95 % interval; a clip without an answer counts as wrong.

    Args:
        answers: scores by label, None where no face was found.
    """
    pairs = zip(recordings, answers, strict=True)
    answered = [
        shared_name(RAVDESS_LABELS[recording.emotion]) == choose(scores)
        for recording, scores in pairs
        if scores is not None
    ]
    clips, right = len(recordings), sum(answered)
    low, high = wilson_interval(right, clips)
    return {
        "clips": clips,
        "answered": len(answered),
        "right": right,
        "prec1": round(100 * right / clips, 2),
        "low": round(low, 2),
        "high": round(high, 2),
    }
