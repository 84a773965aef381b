"""Metrics against hand-made cases, scikit-learn and published figures."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from sklearn import metrics as oracle

from mer.evaluate.metrics import (
    ClassificationMetrics,
    bootstrap_uar,
    count_confusion,
    score_class,
)
from mer_runtime.intervals import wilson_interval


def score(logits: np.ndarray, targets: np.ndarray, batch: int = 7) -> ClassificationMetrics:
    metrics = ClassificationMetrics(logits.shape[1])
    for start in range(0, len(targets), batch):
        metrics.update(logits[start : start + batch], targets[start : start + batch])
    return metrics


def test_hand_made_case() -> None:
    logits = np.log([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.6, 0.1, 0.3], [0.25, 0.25, 0.5]])
    metrics = ClassificationMetrics(3)
    metrics.update(logits, [0, 1, 2, 2])
    scores = metrics.compute()
    assert scores.n == 4
    assert scores.prec1 == 75
    assert scores.prec5 == 100  # fewer classes than five: any answer is among them
    assert scores.uar == pytest.approx(100 * (1 + 1 + 0.5) / 3)
    assert scores.loss == pytest.approx(-np.log([0.5, 0.8, 0.3, 0.5]).mean())
    assert scores.confusion.tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 1]]


@pytest.mark.parametrize("classes", [2, 5, 6, 8])
def test_equals_scikit_learn(classes: int) -> None:
    generator = np.random.default_rng(classes)
    targets = generator.integers(0, classes, 101)
    logits = generator.normal(0, 1, (101, classes))
    logits[np.arange(101), targets] += 1
    scores = score(logits, targets).compute()
    answers, labels = logits.argmax(axis=1), range(classes)
    powers = np.exp(logits)
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    assert scores.prec1 == pytest.approx(100 * oracle.accuracy_score(targets, answers))
    assert scores.uar == pytest.approx(100 * oracle.balanced_accuracy_score(targets, answers))
    assert scores.loss == pytest.approx(oracle.log_loss(targets, probabilities, labels=labels))
    assert (scores.confusion == oracle.confusion_matrix(targets, answers, labels=labels)).all()
    if classes > 5:
        top5 = oracle.top_k_accuracy_score(targets, logits, k=5, labels=labels)
        assert scores.prec5 == pytest.approx(100 * top5)
    expected = oracle.precision_recall_fscore_support(targets, answers, labels=labels)
    for c, (precision, recall, f1, n) in enumerate(zip(*expected, strict=True)):
        one = scores.per_class[c]
        assert (one.n, one.recall, one.f1) == pytest.approx((n, 100 * recall, 100 * f1))
        assert one.precision == pytest.approx(100 * precision)


def test_uar_leaves_out_absent_classes() -> None:
    logits = np.eye(4)[[0, 1, 3]]
    targets = np.array([0, 1, 1])
    scores = score(logits, targets).compute()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of the answer that is no target
        expected = oracle.balanced_accuracy_score(targets, logits.argmax(axis=1))
    assert scores.uar == pytest.approx(100 * expected) == 75
    absent = scores.per_class[2]
    assert (absent.n, absent.recall, absent.precision, absent.f1) == (0, None, None, None)


def test_tie_goes_to_the_lower_class() -> None:
    metrics = ClassificationMetrics(8)
    metrics.update(np.zeros((8, 8)), np.arange(8))
    scores = metrics.compute()
    assert scores.prec1 == 12.5  # class 0 alone
    assert scores.prec5 == 62.5  # classes 0 to 4
    assert scores.loss == pytest.approx(math.log(8))


def test_huge_logits_stay_finite() -> None:
    metrics = ClassificationMetrics(2)
    metrics.update([[1e4, -1e4]], [1])
    assert metrics.compute().loss == pytest.approx(2e4)


def test_batches_don_t_matter() -> None:
    generator = np.random.default_rng(0)
    logits, targets = generator.normal(size=(30, 8)), generator.integers(0, 8, 30)
    one, many = score(logits, targets, 30).compute(), score(logits, targets, 4).compute()
    assert one.loss == pytest.approx(many.loss)
    assert (one.confusion == many.confusion).all()


@pytest.mark.parametrize(
    ("logits", "targets"),
    [([[0.0, 1.0]], [2]), ([[0.0, 1.0]], [-1]), ([[0.0, 1.0, 2.0]], [0]), ([[0.0, 1.0]], [0, 1])],
)
def test_refuses_what_doesn_t_fit(logits: list[list[float]], targets: list[int]) -> None:
    with pytest.raises(ValueError, match="class"):
        ClassificationMetrics(2).update(logits, targets)


def test_nothing_to_score() -> None:
    with pytest.raises(ValueError, match="nothing"):
        ClassificationMetrics(2).compute()


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    # Newcombe (Statistics in Medicine 17, 1998), table I, method 3, four decimals.
    [(81, 263, 25.53, 36.62), (15, 148, 6.24, 16.05), (0, 20, 0.0, 16.11), (1, 29, 0.61, 17.18)],
)
def test_wilson_interval_as_published(hits: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(hits, n) == pytest.approx((low, high), abs=0.005)


def test_bootstrap_agrees_with_theory() -> None:
    # Two classes of 200 clips with recalls 0.8 and 0.6: variance of UAR is the mean of the
    # recalls' variances over 2. 10 %: 2 000 resamples fix a percentile to about 4 %.
    targets = np.repeat([0, 1], 200)
    answers = np.concatenate([np.arange(200) >= 160, np.arange(200) < 120]).astype(np.int64)
    low, high = bootstrap_uar(targets, answers, 2)
    spread = 100 * math.sqrt((0.8 * 0.2 + 0.6 * 0.4) / 200 / 4)
    assert (high - low) / 2 == pytest.approx(1.96 * spread, rel=0.1)
    assert (high + low) / 2 == pytest.approx(70, abs=1)


def test_intervals_are_seeded_and_hold_the_figure() -> None:
    generator = np.random.default_rng(3)
    logits, targets = generator.normal(size=(60, 8)), generator.integers(0, 8, 60)
    metrics = score(logits, targets)
    scores, intervals = metrics.compute(), metrics.compute_intervals(seed=5)
    assert intervals == metrics.compute_intervals(seed=5)
    assert intervals["uar"] != metrics.compute_intervals(seed=6)["uar"]
    for name, (low, high) in intervals.items():
        assert low < getattr(scores, name) < high


def test_class_that_is_never_answered() -> None:
    confusion = count_confusion(np.array([0, 1]), np.array([0, 0]), 2)
    one = score_class(confusion, 1)
    assert (one.recall, one.precision, one.f1) == (0, None, 0)
