"""The search for the bundle that fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mer_export import exporter
from mer_export.errors import OptionError
from mer_export.tuning.candidates import Candidate, Tuning, choose, mark_front
from mer_export.tuning.search import tune
from mer_runtime import Recognizer
from mer_runtime.intervals import Interval


def candidate(name: str, milliseconds: float, prec1: float) -> Candidate:
    latency = Interval(milliseconds, 0.9 * milliseconds, 1.1 * milliseconds)
    interval = (prec1 - 5, prec1 + 5)
    return Candidate(name, "onnx", "int8", None, prec1, interval, 80.0 - prec1, latency, 2_000_000)


FAST, MIDDLE, RIGHT = candidate("a", 4, 70), candidate("b", 8, 79), candidate("c", 20, 80)
BEATEN = candidate("d", 9, 75)
REFUSED = Candidate("e", "openvino", "int8", "the gate refuses it")


def test_front_is_what_nothing_beats() -> None:
    marked = mark_front([RIGHT, REFUSED, BEATEN, MIDDLE, FAST])
    assert [one.checkpoint for one in marked] == ["a", "b", "d", "c", "e"]
    assert [one.on_front for one in marked] == [True, True, False, True, False]


@pytest.mark.parametrize(
    ("latency", "drop", "chosen"),
    [
        (9.0, None, MIDDLE),  # the most right whose whole interval is below
        (8.5, None, FAST),  # 8.8 is the upper bound of the next
        (None, 1.0, MIDDLE),  # the fastest that loses no more
        (None, 0.0, RIGHT),
        (30.0, 10.0, FAST),
        (5.0, 5.0, None),
    ],
)
def test_what_fits(latency: float | None, drop: float | None, chosen: Candidate | None) -> None:
    assert choose([RIGHT, REFUSED, BEATEN, MIDDLE, FAST], latency, drop) is chosen


def test_nothing_fits_is_told_with_the_front() -> None:
    marked = mark_front([FAST, RIGHT, BEATEN])
    text = Tuning(tuple(marked), None, None, 40, 2, 3.0, None).tell_nearest()
    assert text.startswith("no bundle takes at most 3 ms here, so none is written: a-onnx-int8")
    assert "c-onnx-int8 takes 22.0 ms and loses 0.00" in text


def test_bound_is_needed(fitted: tuple[Path, Path]) -> None:
    with pytest.raises(OptionError, match=r"--max-latency 8ms, --max-drop 0\.5"):
        tune([fitted[0]], fitted[1])


def test_real_search(
    fitted: tuple[Path, Path],
    calibration: Any,
    graphs_once: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each candidate is proved on the corpus, and the one that fits is a bundle that runs."""
    # What calibrating this checkpoint on this cache gave, made once for all tests.
    monkeypatch.setattr(exporter, "calibrate", lambda *args, **options: calibration)
    stages: set[str] = set()
    found = tune(
        [fitted[0]],
        fitted[1],
        tmp_path / "best",
        max_drop=50,
        targets=["onnx"],
        precisions=["fp32", "int8"],
        progress=lambda stage, done, total: stages.add(stage),
    )
    assert stages >= {"graphs", "reference", "gate", "timing"}
    assert {one.precision for one in found.candidates} == {"fp32", "int8"}
    assert found.chosen is not None
    assert found.chosen.name in found.format()
    told = json.loads(json.dumps(found.to_dict()))
    assert told["chosen"] == found.chosen.name
    assert told["clips"] == found.clips > 0
    bundle = Recognizer.load(tmp_path / "best").bundle
    assert bundle.precision == found.chosen.precision
    assert bundle.manifest["gate"]["kind"] == "validation"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
