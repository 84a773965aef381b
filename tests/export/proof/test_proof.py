"""Bundles proved on a corpus, and what is handed on of that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mer_export import ExportOptions, ExportReport, export_bundle, exporter
from mer_runtime import Recognizer


def test_proof_on_validation_actors(proved: ExportReport) -> None:
    manifest = json.loads((proved.bundle / "manifest.json").read_text())
    gate = manifest["gate"]
    assert gate == proved.gate.to_dict()
    assert gate["kind"] == "validation"
    assert gate["engine"].startswith("onnxruntime")
    assert gate["max_drop"] == 0.5
    assert [one["modality"] for one in gate["validation"]] == ["both", "audio", "video"]
    for one in gate["validation"]:
        assert one["agreement"] >= 98
        assert one["prec1"] >= one["prec1_float"] - 12.5  # one clip of eight
    assert manifest["calibration"]["float_layers"] == list(proved.float_layers) == []
    assert manifest["calibration"]["clips"] == 16
    assert len(manifest["calibration"]["clips_sha256"]) == 64
    assert manifest["temperatures"] == proved.temperatures.to_dict()
    assert proved.temperatures.both != 1
    assert Recognizer.load(proved.bundle).self_test().passed


def test_given_ranges_are_proved_on_the_corpus(
    proved: ExportReport,
    fitted: tuple[Path, Path],
    tmp_path: Path,
    graphs_once: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No second calibration: the same integers, and a proof of their own."""
    monkeypatch.setattr(exporter, "calibrate", lambda *args, **options: pytest.fail("calibrates"))
    report = export_bundle(
        fitted[0],
        tmp_path / "out",
        ExportOptions(ranges=proved.bundle, cpu="x86", timing=False),
        calibration=fitted[1],
    )
    assert report.gate.kind == "validation"
    for again, first in zip(report.gate.modalities, proved.gate.modalities, strict=True):
        assert (again.prec1, again.prec5) == (first.prec1, first.prec5)
        assert again.comparison.agreement == first.comparison.agreement
        # PyTorch's float32 sums depend on its threads, of which the first had others.
        assert again.comparison.max_logit_difference == pytest.approx(
            first.comparison.max_logit_difference, abs=1e-4
        )
    for name in ("encoder.onnx.gz", "head.onnx.gz", "ranges.json"):
        assert (report.bundle / name).read_bytes() == (proved.bundle / name).read_bytes()
