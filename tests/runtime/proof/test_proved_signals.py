"""What a device prepares of the test signals is what was proved."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mer_runtime import BundleError, Recognizer
from mer_runtime.bundle import Bundle
from mer_runtime.proof.self_test import (
    CROP_TOLERANCE,
    MFCC_TOLERANCE,
    find_fault,
)

pytestmark = pytest.mark.usefixtures("folder")

WriteBundle = Callable[..., Path]
Resign = Callable[..., None]


SIGNALS = ("signal_mfcc", "signal_crop")


class TestInputsAndOutputsAsProved:
    """What no logit of the golden inputs shows: how inputs are prepared, outputs turned into
    probabilities. Each is refused in one line, though every hash is right."""

    @pytest.mark.parametrize(
        ("change", "fault"),
        [
            (lambda m: m["spec"]["audio"].update(sample_rate=16_050), "MFCCs of the test signal"),
            (lambda m: m["spec"]["audio"].update(n_fft=1024), "MFCCs of the test signal"),
            (lambda m: m["spec"]["audio"].update(amplitude="none"), "MFCCs of the test signal"),
            (lambda m: m["spec"]["video"].update(colour="bgr"), "pixels of the test signal's crop"),
            (lambda m: m["spec"]["video"].update(margin=0.1), "pixels of the test signal's crop"),
            (
                lambda m: m.update(temperatures=1.0),
                "temperature 1 of both is not the one",
            ),
            (lambda m: m["temperatures"].update(video=3), "temperature 3 of video is not the one"),
        ],
        ids=["rate", "window", "amplitude", "colour", "margin", "temperature", "one temperature"],
    )
    def test_manifest_that_says_otherwise(
        self,
        change: Callable[[dict[str, Any]], None],
        fault: str,
        tiny: Bundle,
        resign: Resign,
        folder: Path,
    ) -> None:
        assert Recognizer.load(tiny.path).self_test().passed
        resign(tiny.path, change)
        with pytest.raises(BundleError) as refused:
            Recognizer.load(tiny.path)
        (line,) = str(refused.value).splitlines()
        assert line.startswith(f"{tiny.path}: {fault}")
        assert line.endswith("export the bundle again")
        result = Recognizer.load(tiny.path, prove=False).self_test()
        assert not result.passed
        assert result.max_difference <= result.tolerance, "its graphs are right"
        assert result.fault.startswith(fault.rstrip(":"))
        assert len(list(folder.iterdir())) == 1, "the first one's pass"

    def test_rate_of_another_shape(self, tiny: Bundle, resign: Resign, folder: Path) -> None:
        resign(tiny.path, lambda m: m["spec"]["audio"].update(sample_rate=22_050))
        with pytest.raises(BundleError) as refused:
            Recognizer.load(tiny.path)
        (line,) = str(refused.value).splitlines()
        assert "spec" in line
        assert not folder.exists()

    def test_roundings_are_none(self, tiny: Bundle) -> None:
        """Other versions of numpy and OpenCV sum and enlarge with other roundings."""
        golden = tiny.golden()
        assert find_fault(tiny, golden) == ""

        def shift(mfcc: float, crop: int) -> str:
            moved = golden.signal_mfcc.copy(), golden.signal_crop.copy()
            moved[0][4, 7] += mfcc
            row, column, colour = np.argwhere(moved[1] < 200)[5]
            moved[1][row, column, colour] += crop
            signals = dict(zip(SIGNALS, moved, strict=True))
            return find_fault(tiny, dataclasses.replace(golden, **signals))

        assert shift(0.9 * MFCC_TOLERANCE, CROP_TOLERANCE) == ""
        assert shift(1.1 * MFCC_TOLERANCE, 0) == "MFCCs of the test signal are off by 0.055"
        assert shift(0, CROP_TOLERANCE + 1) == "pixels of the test signal's crop are off by 4"

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_no_number(self, bad: float, tiny: Bundle) -> None:
        golden = tiny.golden()
        broken = golden.signal_mfcc.copy()
        broken[2, 50] = bad
        assert "MFCCs" in find_fault(tiny, dataclasses.replace(golden, signal_mfcc=broken))
