"""Paired comparison: counts by hand, McNemar's p against SciPy's binomial test."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from mer.evaluate.comparison import compare_logits, mcnemar_p_value


def logits_for(answers: list[int], classes: int = 3) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[answers]


def test_counts_by_hand() -> None:
    targets = np.array([0, 1, 2, 0, 1])
    a = logits_for([0, 1, 2, 1, 2])  # right, right, right, wrong, wrong
    b = logits_for([0, 2, 2, 0, 0])  # right, wrong, right, right, wrong otherwise
    paired = compare_logits(a, b, targets)
    assert paired.n == 5
    assert paired.agreement == pytest.approx(40)
    assert (paired.only_a, paired.only_b) == (1, 1)
    assert paired.prec1_difference == pytest.approx(0)
    assert paired.mcnemar_p == 1
    assert paired.max_logit_difference == 1
    assert paired.mean_logit_difference == pytest.approx(6 / 15)


def test_model_against_itself() -> None:
    a = logits_for([0, 1, 2])
    paired = compare_logits(a, a, np.array([0, 2, 2]))
    assert paired.agreement == 100
    assert paired.interval == (0, 0)
    assert paired.mcnemar_p == 1
    assert paired.max_logit_difference == 0


def test_sign_and_interval_of_a_clear_difference() -> None:
    targets = np.zeros(200, np.int64)
    a = logits_for([0] * 180 + [1] * 20)
    b = logits_for([0] * 120 + [1] * 80)
    paired = compare_logits(a, b, targets)
    assert paired.prec1_difference == pytest.approx(30)
    low, high = paired.interval
    # The normal interval of 60 gains among 200 clips: 30 ± 6.35 points.
    assert low == pytest.approx(30 - 6.35, abs=1)
    assert high == pytest.approx(30 + 6.35, abs=1)
    assert paired.mcnemar_p < 1e-9
    swapped = compare_logits(b, a, targets)
    assert swapped.prec1_difference == -paired.prec1_difference
    assert (swapped.only_a, swapped.only_b) == (paired.only_b, paired.only_a)


@pytest.mark.parametrize(
    ("only_a", "only_b"), [(0, 0), (1, 0), (5, 1), (3, 3), (20, 41), (400, 300)]
)
def test_mcnemar_is_the_exact_binomial_test(only_a: int, only_b: int) -> None:
    n = only_a + only_b
    expected = binomtest(only_a, n).pvalue if n else 1.0
    assert mcnemar_p_value(only_a, only_b) == pytest.approx(expected, rel=1e-9)


def test_shapes_must_fit() -> None:
    with pytest.raises(ValueError, match="logits of shapes"):
        compare_logits(logits_for([0, 1]), logits_for([0]), np.array([0, 1]))
    with pytest.raises(ValueError, match="logits of shapes"):
        compare_logits(logits_for([]), logits_for([]), np.array([]))
