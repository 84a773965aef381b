"""Following is compared with detection in every frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mer_runtime import Recognizer

Load = Callable[[str], ModuleType]


def test_both_ways(load_script: Load, sample_clip: Path) -> None:
    script = load_script("measure_following")
    recognizer = Recognizer.load("ia-int8", threads=1)
    every, third = (script.Way(recognizer, n).answer(sample_clip) for n in (1, 3))
    assert (every.looked, every.found) == (15, 15)
    assert third.looked < 15
    assert third.found == 15
    told = script.describe([(every, third)], [int(every.logits.argmax())])
    assert (told["n"], told["same"]) == (1, 1)
    assert [row["every"] for row in told["rows"]] == [1, 3]
    assert told["rows"][0]["prec1"] == 100
    assert told["largest_difference"] == pytest.approx(
        np.abs(every.logits - third.logits).max(), abs=1e-4
    )


def test_far_faces(load_script: Load) -> None:
    script = load_script("measure_following")
    small, large = (script.measure_size(size) for size in (320, 640))
    assert large["smallest"] < small["smallest"] < 100
