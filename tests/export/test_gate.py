"""The gate lets the reference's own answers pass and nothing that is clearly different."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mer import Checkpoint
from mer_export.errors import GateError
from mer_export.gate import check_golden
from mer_export.golden import answer, golden_reference
from mer_runtime.bundle import Golden


@pytest.fixture(scope="module")
def checkpoint(small_model: Any) -> Checkpoint:
    return Checkpoint(*small_model)


@pytest.fixture(scope="module")
def golden(checkpoint: Checkpoint) -> Golden:
    return golden_reference(checkpoint, 1e-3)


def infer_with(checkpoint: Checkpoint, error: float, case: int | None = None) -> Any:
    """The reference as an engine whose first logit is off by ``error`` (in one case)."""
    calls = iter(range(1000))

    def infer(mfcc: Any, faces: Any) -> Any:
        spec = checkpoint.spec
        logits = answer(
            checkpoint,
            np.zeros(spec.audio.shape, np.float32) if mfcc is None else mfcc,
            np.zeros(spec.video.shape, np.uint8) if faces is None else faces,
        )
        if case is None or next(calls) == case:
            logits[0] += error
        return logits

    return infer


def test_exact_engine_passes(checkpoint: Checkpoint, golden: Golden) -> None:
    answered, report = check_golden(golden, infer_with(checkpoint, 0.0), 1e-3)
    assert report.max_difference < 1e-5  # the same sums
    assert report.agreement == 100
    assert report.cases == len(golden.cases)
    np.testing.assert_allclose(answered.answers, golden.reference, atol=1e-5)


def test_one_wrong_answer_fails_and_is_named(checkpoint: Checkpoint, golden: Golden) -> None:
    with pytest.raises(GateError, match="'face missing'"):
        check_golden(golden, infer_with(checkpoint, 2e-3, golden.cases.index("face missing")), 1e-3)


def test_answers_that_are_no_numbers_fail(checkpoint: Checkpoint, golden: Golden) -> None:
    with pytest.raises(GateError, match="not finite"):
        check_golden(golden, infer_with(checkpoint, float("nan")), 1e-3)
