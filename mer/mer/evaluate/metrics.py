"""Metrics of a classifier over clips: ``update`` with logits, ``compute`` the scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mer_runtime.intervals import wilson_interval

BOOTSTRAP_RESAMPLES = 2_000

Interval = tuple[float, float]


@dataclass(frozen=True)
class ClassScores:
    """One class: ``n`` clips of it; ``recall``, ``precision``, ``f1`` in percent.

    A figure whose denominator is zero (a class without clips, or never answered) is None.
    """

    n: int
    recall: float | None
    precision: float | None
    f1: float | None


@dataclass(frozen=True)
class Scores:
    """What ``ClassificationMetrics.compute`` gives.

    Attributes:
        n: number of clips.
        loss: mean cross-entropy, in nats.
        prec1: percent of clips whose highest logit is the right class.
        prec5: percent whose right class is among the five highest (all, where there are fewer).
        uar: unweighted average recall in percent: the mean over the classes that have clips.
        confusion: (classes, classes) int64, true class by row, answer by column.
        per_class: one entry a class.
    """

    n: int
    loss: float
    prec1: float
    prec5: float
    uar: float
    confusion: NDArray[np.int64]
    per_class: tuple[ClassScores, ...]


class ClassificationMetrics:
    """Collects logits and right answers, then scores them.

    A tie between logits goes to the lower class number, as ``argmax`` has it.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._losses: list[NDArray[np.float64]] = []
        self._ranks: list[NDArray[np.int64]] = []
        self._answers: list[NDArray[np.int64]] = []
        self._targets: list[NDArray[np.int64]] = []

    def update(self, logits: ArrayLike, targets: ArrayLike) -> None:
        """Add a batch: logits (N, classes), class numbers (N,).

        Raises:
            ValueError: the shapes don't fit, or a target isn't a class.
        """
        scores = np.asarray(logits, np.float64)
        right = np.asarray(targets, np.int64)
        if scores.ndim != 2 or scores.shape != (len(right), self.num_classes):
            raise ValueError(
                f"logits of shape {scores.shape} for {len(right)} targets and "
                f"{self.num_classes} classes"
            )
        if not len(right):
            return
        if not (right.min() >= 0 and right.max() < self.num_classes):
            raise ValueError(f"a target is not a class number below {self.num_classes}")
        own = np.take_along_axis(scores, right[:, None], axis=1)
        peak = scores.max(axis=1, keepdims=True)
        log_sum = peak[:, 0] + np.log(np.exp(scores - peak).sum(axis=1))
        tied_before = (scores == own) & (np.arange(self.num_classes) < right[:, None])
        self._losses.append(log_sum - own[:, 0])
        self._ranks.append(((scores > own) | tied_before).sum(axis=1))
        self._answers.append(scores.argmax(axis=1))
        self._targets.append(right)

    def compute(self) -> Scores:
        """Score all that was added.

        Raises:
            ValueError: nothing was added.
        """
        targets, answers, ranks = self._collected()
        confusion = count_confusion(targets, answers, self.num_classes)
        return Scores(
            n=len(targets),
            loss=float(np.concatenate(self._losses).mean()),
            prec1=100 * float((ranks < 1).mean()),
            prec5=100 * float((ranks < 5).mean()),
            uar=100 * average_recall(confusion),
            confusion=confusion,
            per_class=tuple(score_class(confusion, c) for c in range(self.num_classes)),
        )

    def compute_intervals(self, *, seed: int = 0) -> dict[str, Interval]:
        """95 % intervals in percent of ``prec1`` and ``prec5`` (Wilson) and ``uar`` (bootstrap).

        ``seed`` draws the bootstrap.

        Raises:
            ValueError: nothing was added.
        """
        targets, answers, ranks = self._collected()
        n = len(targets)
        return {
            "prec1": wilson_interval(int((ranks < 1).sum()), n),
            "prec5": wilson_interval(int((ranks < 5).sum()), n),
            "uar": bootstrap_uar(targets, answers, self.num_classes, seed=seed),
        }

    def _collected(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Targets, answers and ranks of the right class (0: it has the highest logit)."""
        if not self._targets:
            raise ValueError("there is nothing to score")
        parts = self._targets, self._answers, self._ranks
        targets, answers, ranks = (np.concatenate(part) for part in parts)
        return targets, answers, ranks


def count_confusion(
    targets: NDArray[np.int64], answers: NDArray[np.int64], num_classes: int
) -> NDArray[np.int64]:
    """Counts (classes, classes): true class by row, answer by column."""
    flat = np.bincount(targets * num_classes + answers, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes).astype(np.int64)


def average_recall(confusion: NDArray[np.int64]) -> float:
    """Mean recall, 0 to 1, over the classes that have clips."""
    clips = confusion.sum(axis=1)
    present = clips > 0
    return float((confusion.diagonal()[present] / clips[present]).mean())


def score_class(confusion: NDArray[np.int64], c: int) -> ClassScores:
    """Recall, precision and F1 of class ``c``."""
    right, clips, answered = (
        int(confusion[c, c]),
        int(confusion[c].sum()),
        int(confusion[:, c].sum()),
    )
    return ClassScores(
        n=clips,
        recall=100 * right / clips if clips else None,
        precision=100 * right / answered if answered else None,
        f1=200 * right / (clips + answered) if clips + answered else None,
    )


def bootstrap_uar(
    targets: NDArray[np.int64],
    answers: NDArray[np.int64],
    num_classes: int,
    *,
    seed: int = 0,
) -> Interval:
    """95 % percentile interval of UAR in percent, clips drawn with replacement."""
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(BOOTSTRAP_RESAMPLES):
        drawn = generator.integers(0, len(targets), len(targets))
        values.append(average_recall(count_confusion(targets[drawn], answers[drawn], num_classes)))
    low, high = np.percentile(values, (2.5, 97.5))
    return 100 * float(low), 100 * float(high)
