"""What ``mer-export --inspect`` counts, against figures by hand and between formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mer_export import ExportOptions, ExportReport, export_bundle
from mer_export.inspection.bundles import inspect_bundle
from mer_export.inspection.layers import Reasons
from mer_runtime.bundle import load_bundle
from mer_runtime.errors import BundleError


def test_bundle_that_ships() -> None:
    found = inspect_bundle("ia-int8")
    assert (found.target, found.precision, found.dialect) == ("onnx", "int8", "x86")
    encoder, head = found.graphs
    layers = {layer.name: layer for layer in encoder.layers}
    last = layers["encoder.conv5.0"]
    assert last.precision == "int8"
    assert last.shape[0] == 1024
    # 15 crops, of which 7 x 7 places are left after five halvings of 224.
    assert last.macs == 15 * 7 * 7 * last.shape[0] * last.shape[1]
    assert layers["encoder.modulator.channel_gate.0"].precision == "fp32"
    in_float = {layer.name: layer.reason for layer in head.layers if layer.precision != "int8"}
    assert set(in_float) == {"network.audio_model.conv1d_0.0", "network.classifier_1.0"}
    assert all("fewer than 16" in str(reason) for reason in in_float.values())
    assert encoder.operations["QuantizeLinear", "int8"] > 50
    told = json.loads(json.dumps(found.to_dict()))
    assert told["graphs"][0]["macs"] == sum(layer.macs for layer in encoder.layers)
    assert told["files"]["encoder.onnx.gz"] == load_bundle("ia-int8").encoder.stat().st_size


def test_formats_and_precisions_multiply_alike(
    fitted: tuple[Path, Path], proved: ExportReport, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    counts: dict[str, dict[str, int]] = {}
    for target, precision in (("onnx", "fp32"), ("openvino", "fp32"), ("openvino", "fp16")):
        out = tmp_path / f"{target}-{precision}"
        export_bundle(
            fitted[0], out, ExportOptions(target=target, precision=precision, timing=False)
        )
        found = inspect_bundle(out)
        counts[out.name] = {one.name: sum(x.macs for x in one.layers) for one in found.graphs}
        layers = [layer for one in found.graphs for layer in one.layers]
        assert {layer.reason for layer in layers} == {None}
        weighted = {layer.precision for layer in layers if layer.shape}
        assert weighted == {"fp32"} if precision == "fp32" else {"fp16"} <= weighted
    assert len({tuple(one.items()) for one in counts.values()}) == 1
    assert {x.precision for x in inspect_bundle(proved.bundle).graphs[0].layers} >= {"int8"}


def test_reasons() -> None:
    manifest: dict[str, Any] = {
        "precision": "int8",
        "calibration": {"float_layers": ["a.weight", "b.weight"], "float_head": ["b.weight"]},
    }
    reasons = Reasons(manifest, "openvino's integers")
    assert reasons.find("a", "Conv", "fp32", (64, 64, 3)) == "the gate holds only so"
    assert reasons.find("b", "Conv", "fp32", (64, 64, 3)) == "--float-head asks for it"
    assert "two activations" in str(reasons.find("/MatMul", "MatMul", "fp32", ()))
    assert "fewer than 16" in str(reasons.find("c", "Gemm", "fp32", (8, 64)))
    assert reasons.find("c", "Conv", "int8", (64, 64, 3)) is None
    whole = Reasons({"precision": "fp32", "calibration": None}, "")
    assert whole.find("c", "Gemm", "fp32", (8, 64)) is None


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle"):
        inspect_bundle(tmp_path / "none")
