"""Bundles against the float checkpoint on the test actors: what is counted, and what is kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from mer.data.cache import Cache
from mer_calibration import Ranges

Load = Callable[[str], ModuleType]


@pytest.fixture
def script(load_script: Load) -> ModuleType:
    return load_script("measure_accuracy")


def test_unsettled_answers_are_counted(script: ModuleType) -> None:
    floats = np.array([[0, 1.0, 3], [0, 2.9, 3], [0, 3, 2.95], [4, 0, 0], [0, 5, 0]], np.float32)
    logits = floats.copy()
    logits[1, 1] += 0.15  # another answer, and close
    logits[4] = [5, 0, 0]  # another, and sure of it
    assert script.count_unsettled(logits, floats, 0.1) == {
        "unsettled": 2,
        "differing": 2,
        "differing_unsettled": 1,
    }
    assert script.count_unsettled(logits, floats, 0.0)["unsettled"] == 0
    assert script.count_unsettled(logits, logits, 9.0) == {
        "unsettled": 5,
        "differing": 0,
        "differing_unsettled": 0,
    }


@pytest.fixture
def small(
    fitted: tuple[Path, Path],
    proved: Any,
    graphs_once: None,
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The figures' file, where the small checkpoint ships as ``ia`` with its ranges."""
    shutil.copy(fitted[0], tmp_path / "ia.safetensors")
    shutil.copy(proved.bundle / "ranges.json", tmp_path / "ia.ranges.json")
    monkeypatch.setattr(script, "shipped_checkpoint", lambda fusion: tmp_path / "ia.safetensors")
    monkeypatch.setattr(script, "DATA", tmp_path / "accuracy.json")
    monkeypatch.setattr(script, "write_all_tables", lambda: None)
    return tmp_path / "accuracy.json"


def run(script: ModuleType, *arguments: Any) -> None:
    done = CliRunner().invoke(script.main, [str(one) for one in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_rows(
    script: ModuleType,
    small: Path,
    fitted: tuple[Path, Path],
    calibration: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(script, "PAIRS", [("onnx", "fp32"), ("onnx", "int8")])
    ours = ("fusion", "target", "precision", "modality")
    others = [
        {"fusion": "ia", "target": "onnx", "precision": "int8", "modality": "both", "n": -1},
        {"fusion": "lt", "target": "onnx", "precision": "int8", "modality": "both", "n": -2},
    ]
    digest = Cache.open(fitted[1]).digest
    small.write_text(json.dumps({"corpus": digest, "rows": others, "pixels": []}))
    run(script, fitted[1], "--fusion", "ia", "--precision", "int8")
    kept = json.loads(small.read_text())
    assert kept["corpus"] == digest
    assert [tuple(row[key] for key in ours) for row in kept["rows"]] == [
        *(("ia", "onnx", "int8", modality) for modality in ("both", "audio", "video")),
        ("lt", "onnx", "int8", "both"),
    ]
    noise = Ranges.of(calibration.ranges, "x86").noise
    for row in kept["rows"][:3]:
        assert row["n"] == 8
        assert row["agreement"] == 100 * (1 - row["differing"] / 8)
        assert row["features_sqnr"] == pytest.approx(noise.sqnr, abs=3)
        assert row["differing_unsettled"] <= min(row["differing"], row["unsettled"])
    assert kept["rows"][3]["n"] == -2, "another fusion's row isn't measured again"


def test_other_corpus_keeps_nothing(
    script: ModuleType, small: Path, fitted: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "PAIRS", [("onnx", "fp32")])
    monkeypatch.setattr(script, "DRAWS", 2)
    row = {"fusion": "lt", "target": "onnx", "precision": "fp32", "modality": "both"}
    small.write_text(json.dumps({"corpus": "another", "rows": [row], "pixels": []}))
    run(script, fitted[1], "--fusion", "ia", "--precision", "fp32")
    kept = json.loads(small.read_text())
    assert {row["fusion"] for row in kept["rows"]} == {"ia"}
    assert all(row["agreement"] == 100 and row["features_sqnr"] > 90 for row in kept["rows"])
    assert [(row["draw"], row["modality"]) for row in kept["pixels"]] == [
        (draw, modality) for draw in range(2) for modality in ("both", "video")
    ]
    assert kept["pixels"][0]["max_logit_difference"] != kept["pixels"][2]["max_logit_difference"]
