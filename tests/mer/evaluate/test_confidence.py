"""Temperature scaling and calibration error against a search and against sums by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from mer.evaluate.confidence import (
    HIGHEST,
    LOWEST,
    expected_calibration_error,
    fit_temperature,
    measure_confidence,
)

Clips = tuple[NDArray[np.float64], NDArray[np.int64]]


def draw_clips(factor: float, n: int = 2000) -> Clips:
    """Logits whose classes are drawn from softmax(logits / factor): ``factor`` calibrates them."""
    generator = np.random.default_rng(5)
    logits = generator.normal(0, 1.5, (n, 8))
    # Gumbel's trick: the argmax is distributed as the softmax says.
    classes = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    return factor * logits, classes


def cross_entropy(clips: Clips, temperature: float) -> float:
    logits, classes = (torch.from_numpy(part) for part in clips)
    return functional.cross_entropy(logits / temperature, classes).item()


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_temperature_is_the_one_that_was_drawn_with(factor: float) -> None:
    clips = draw_clips(factor)
    temperature = fit_temperature(*clips)
    # 2 000 clips leave a few percent of chance; the drawing is fixed.
    assert temperature == pytest.approx(factor, rel=0.05)
    assert temperature == fit_temperature(*clips)
    least = cross_entropy(clips, temperature)
    for near in (0.999, 1.001):
        assert cross_entropy(clips, near * temperature) > least


def test_answers_all_right_or_all_wrong_reach_the_bounds() -> None:
    logits = np.eye(8)
    assert fit_temperature(logits, np.arange(8)) == LOWEST
    assert fit_temperature(logits, (np.arange(8) + 1) % 8) == HIGHEST
    assert fit_temperature(np.full((3, 8), 2.5), [0, 1, 2]) == 1.0


def test_large_logits_neither_overflow_nor_lose_the_fit() -> None:
    logits, classes = draw_clips(4.0)
    shifted = fit_temperature(logits + 1e6, classes)
    # An offset of 1e6 costs float64 six of its sixteen digits.
    assert shifted == pytest.approx(fit_temperature(logits, classes), rel=1e-6)
    assert fit_temperature(1e4 * logits, classes) == HIGHEST


def test_calibration_error_by_hand() -> None:
    # Two classes, confidences 0.9 (right, wrong) and 0.6 (right): with ten bins two bins count.
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    ece = expected_calibration_error(np.log(p), [0, 1, 1], bins=10)
    assert ece == pytest.approx(100 * (2 / 3 * abs(0.5 - 0.9) + 1 / 3 * abs(1 - 0.6)))
    # In one bin: 2 of 3 right at a mean confidence of 0.8.
    assert expected_calibration_error(np.log(p), [0, 1, 1], bins=1) == pytest.approx(
        100 * abs(2 / 3 - 0.8)
    )


def test_calibration_error_at_a_temperature() -> None:
    logits, classes = draw_clips(4.0)
    warm = expected_calibration_error(logits, classes, temperature=4.0)
    assert warm == pytest.approx(expected_calibration_error(logits / 4, classes))
    # Calibrated by construction; 2 000 clips leave chance of about a point.
    assert warm < 3 < 10 < expected_calibration_error(logits, classes)


def test_measure_says_what_it_changes() -> None:
    clips = draw_clips(4.0)
    confidence = measure_confidence(*clips)
    assert confidence.temperature == fit_temperature(*clips)
    assert confidence.ece_before == expected_calibration_error(*clips)
    assert confidence.ece < confidence.ece_before
    assert set(confidence.to_dict()) == {"temperature", "ece_before", "ece"}


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        (np.zeros((0, 8)), [], "shape"),
        (np.zeros((2, 8)), [0], "shape"),
        (np.zeros(8), [0], "shape"),
        ([[0.0, np.nan]], [0], "not finite"),
        ([[0.0, np.inf]], [0], "not finite"),
        ([[0.0, 1.0]], [2], "below 2"),
        ([[0.0, 1.0]], [-1], "below 2"),
    ],
)
def test_input_that_can_t_be_judged(logits: object, targets: list[int], message: str) -> None:
    for judge in (fit_temperature, expected_calibration_error):
        with pytest.raises(ValueError, match=message):
            judge(logits, targets)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": np.inf}, {"bins": 0}])
def test_options_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        expected_calibration_error([[0.0, 1.0]], [1], **options)


def test_a_temperature_that_worsens_the_error_is_not_taken() -> None:
    """Two kinds of clips: the least cross-entropy is at 8.3, and less calibrated."""
    sure = np.tile([np.log(0.8 / 0.2), 0.0], (10, 1))
    wild = np.tile([8.0, 0.0], (2, 1))
    logits = np.concatenate([sure, wild])
    targets = np.array([0] * 8 + [1] * 2 + [0, 1])
    fitted = fit_temperature(logits, targets)
    before = expected_calibration_error(logits, targets)
    assert expected_calibration_error(logits, targets, temperature=fitted) > before
    confidence = measure_confidence(logits, targets)
    assert (confidence.temperature, confidence.ece, confidence.ece_before) == (1.0, before, before)
