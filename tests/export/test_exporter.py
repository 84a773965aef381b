"""Whole exports: what a bundle holds, and that a failed one leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mer import load_checkpoint
from mer_export import ExportOptions, ExportReport, export_bundle
from mer_export.drafting import replacing
from mer_export.errors import GateError
from mer_export.proof.limits import FLOAT_LIMITS, SETTLED_SPREAD, find_limits
from mer_runtime import Recognizer
from mer_runtime.bundle import load_bundle
from mer_runtime.errors import FaceDetectorError, OutputError
from mer_runtime.files import hash_file


def test_manifest_carries_what_a_device_needs(bundle: Path, small_model: Any) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["target"] == "onnx"
    assert manifest["precision"] == "fp32"
    assert manifest["spec"] == small_model[1].to_dict()
    assert manifest["face_detector"] is None
    assert manifest["gate"]["kind"] == "golden"
    golden = manifest["gate"]["golden"]
    assert golden["cases"] == 12
    assert golden["max_difference"] <= golden["tolerance"] == 1e-3
    assert "validation" not in manifest["gate"]
    assert manifest["calibration"] is None
    assert manifest["saturation"] is None
    assert set(manifest["doubtful_margins"]) == {"both", "audio", "video"}
    assert all(0 <= margin < 1e-3 for margin in manifest["doubtful_margins"].values())
    assert manifest["engine"] == {}
    assert manifest["temperatures"] == {"both": 1, "audio": 1, "video": 1}
    assert manifest["graphs"] == {"encoder": "encoder.onnx", "head": "head.onnx"}
    assert manifest["checkpoint"]["name"] == "model.safetensors"
    assert set(manifest["versions"]) >= {"torch", "onnx", "onnxruntime"}
    for name, entry in manifest["files"].items():
        assert entry["sha256"] == hash_file(bundle / name)
    graphs = {"encoder.onnx", "head.onnx"}
    assert set(manifest["files"]) == graphs | {"golden.npz", "no_face.npy"}


def test_int8_manifest_carries_what_was_proved(proved: ExportReport, calibration: Any) -> None:
    manifest = json.loads((proved.bundle / "manifest.json").read_text())
    found = calibration.ranges.of("x86")
    certificate = manifest["saturation"]
    assert certificate["limit"] == 128
    assert 64 < certificate["largest"] <= 128
    # Two weights to a pair, and the model has 1.85 million weights; the depthwise have none. Layers
    # are widened to whole blocks, and the first one to pairs of outputs.
    assert 800_000 < certificate["pairs"] < 1_100_000
    assert certificate["layers"] > 50
    assert "2 i + 1" in certificate["rule"]
    gate = manifest["gate"]
    assert gate["kind"] == "validation"
    limits = find_limits("int8", "onnx", found.noise)
    assert gate["golden"]["tolerance"] == max(limits.golden.values())
    assert gate["golden"]["sqnr"] >= limits.sqnr
    assert 0 < gate["golden"]["bias"] <= limits.bias
    golden = load_bundle(proved.bundle).golden()
    assert golden.tolerance == limits.device
    assert manifest["temperatures"] == proved.temperatures.to_dict()
    assert golden.temperatures.to_dict() == manifest["temperatures"]
    for one in gate["validation"]:
        shown = one["modality"]
        assert 0 < one["noise"] <= limits.noise[shown]
        low, high = one["agreement_interval"]
        assert low <= one["agreement"] <= high
        # The larger of what was predicted and what was seen.
        least = SETTLED_SPREAD * found.noise.logits[shown].margin
        assert least - 1e-6 <= manifest["doubtful_margins"][shown] < 3 * least


def test_bundle_answers_as_its_checkpoint(bundle: Path, answer: Any) -> None:
    recognizer = Recognizer.load(bundle)
    spec = recognizer.spec
    generator = np.random.default_rng(5)
    mfcc = generator.normal(0, 60, spec.audio.shape).astype(np.float32)
    faces = generator.integers(0, 256, spec.video.shape, np.uint8)
    checkpoint = load_checkpoint(bundle.parent / "model.safetensors")
    # The gate's own bound; what is seen is 1e-6.
    np.testing.assert_allclose(
        recognizer.infer(mfcc, faces), answer(checkpoint, mfcc, faces), atol=1e-3
    )


@pytest.mark.corpus
def test_reference_checkpoint_answers_on_the_device(tmp_path: Path, shared: Path) -> None:
    """The public implementation's weights, through export and runtime, give its own logits."""
    with np.load(shared / "oracle" / "ia.npz") as oracle:
        weights = {n[2:]: torch.from_numpy(oracle[n]) for n in oracle if n.startswith("w:")}
        torch.save({"state_dict": weights}, tmp_path / "reference.pth")
        report = export_bundle(
            tmp_path / "reference.pth",
            tmp_path / "out",
            ExportOptions(precision="fp32", timing=False),
        )
        recognizer = Recognizer.load(report.bundle)
        spec = recognizer.spec
        assert spec.audio.sample_rate == 22_050
        assert spec.audio.shape == (10, 156)
        assert spec.video.colour == "bgr"
        videos = oracle["video_u8"].reshape(2, 15, 3, 224, 224).transpose(0, 1, 3, 4, 2)
        for i in range(2):
            mfcc, faces = oracle["audio"][i], np.ascontiguousarray(videos[i])
            for inputs, name in (
                ((mfcc, faces), "logits"),
                ((mfcc, None), "logits_video_missing"),
                ((None, faces), "logits_audio_missing"),
            ):
                # The bound that checkpoints are held to; what is seen is 6e-5.
                np.testing.assert_allclose(recognizer.infer(*inputs), oracle[name][i], atol=1e-4)


def test_face_detector_travels_with_the_bundle(
    tmp_path: Path, write_checkpoint: Callable[..., Path], yunet: Path, graphs_once: None
) -> None:
    report = export_bundle(
        write_checkpoint(),
        tmp_path / "out",
        ExportOptions(precision="fp32", face_detector=yunet, timing=False),
    )
    assert report.face_detector
    assert "YuNet inside" in report.format()
    loaded = load_bundle(report.bundle)
    assert loaded.face_detector is not None
    assert hash_file(loaded.face_detector) == hash_file(yunet)


def test_bundle_there_is_replaced(
    fitted: tuple[Path, Path], graphs_once: None, tmp_path: Path
) -> None:
    stages: list[tuple[str, int, int]] = []
    out = tmp_path / "out"
    report = export_bundle(
        fitted[0],
        out,
        ExportOptions(precision="fp32"),
        progress=lambda *stage: stages.append(stage),
    )
    assert stages == [("graphs", 0, 1), ("graphs", 1, 1)]
    assert report.timing is not None
    assert report.timing.engine_fp32 is None
    assert report.timing.pytorch > 0
    (out / "stale").write_text("from before")
    export_bundle(fitted[0], out, ExportOptions(precision="fp32", timing=False))
    assert not (out / "stale").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_report(proved: ExportReport) -> None:
    """As data, and as lines that say what was measured and what comes next."""
    told = json.loads(json.dumps(proved.to_dict()))
    assert told["gate"]["kind"] == "validation"
    assert told["timing"]["engine"] > 0
    assert told["timing"]["engine_fp32"] > 0
    assert told["size"] == sum(f.stat().st_size for f in proved.bundle.iterdir())
    assert told["graph_size"] == sum(f.stat().st_size for f in proved.bundle.glob("*.onnx.gz"))
    assert len(told["layers"]) == len(proved.layers) > 60
    assert told["float_layers"] == []
    text = proved.format()
    for words in ("Exported onnx int8", "ECE", "flips", "both", "audio", "video", "mer-run"):
        assert words in text
    assert len(proved.format_layers().splitlines()) == len(proved.layers) + 1


def test_temperature_is_fitted_to_the_validation_actors(proved: ExportReport) -> None:
    """And is what the runtime divides by."""
    assert Recognizer.load(proved.bundle).bundle.temperatures == proved.temperatures
    fitted = proved.temperatures.to_dict()
    assert all(0.05 <= temperature <= 20 for temperature in fitted.values())
    assert len(set(fitted.values())) > 1  # each kind of window has its own


class TestNothingIsLeftBehind:
    """Every failure: an error of ours, no bundle, no draft."""

    def test_failed_gate(
        self,
        tmp_path: Path,
        write_checkpoint: Callable[..., Path],
        monkeypatch: pytest.MonkeyPatch,
        graphs_once: None,
    ) -> None:
        checkpoint = write_checkpoint()
        monkeypatch.setitem(FLOAT_LIMITS, "fp32", 1e-12)  # type: ignore[attr-defined]
        with pytest.raises(GateError, match="no bundle was written"):
            export_bundle(checkpoint, tmp_path / "out", ExportOptions(precision="fp32"))
        assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]

    def test_somebodys_folder(self, tmp_path: Path, write_checkpoint: Callable[..., Path]) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").write_text("three years")
        with pytest.raises(OutputError, match="something else than a bundle"):
            export_bundle(write_checkpoint(), tmp_path / "out")
        assert (tmp_path / "out" / "thesis.txt").read_text() == "three years"

    def test_file_in_the_way(self, tmp_path: Path, write_checkpoint: Callable[..., Path]) -> None:
        (tmp_path / "out").write_text("")
        with pytest.raises(OutputError, match="file of that name"):
            export_bundle(write_checkpoint(), tmp_path / "out")

    def test_folder_that_another_export_fills(
        self, tmp_path: Path, write_checkpoint: Callable[..., Path]
    ) -> None:
        """Refused before the work of minutes, not after it."""
        checkpoint = write_checkpoint()
        with replacing(tmp_path / "out"), pytest.raises(OutputError, match="another export"):
            export_bundle(
                checkpoint,
                tmp_path / "out",
                ExportOptions(precision="fp32"),
                progress=lambda *stage: pytest.fail("it works already"),
            )
        assert [p.name for p in (tmp_path / "out").iterdir()] == []

    def test_parent_that_is_no_folder(
        self, tmp_path: Path, write_checkpoint: Callable[..., Path]
    ) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError):
            export_bundle(
                write_checkpoint(), tmp_path / "file" / "out", ExportOptions(precision="fp32")
            )

    def test_detector_that_is_none(
        self, tmp_path: Path, write_checkpoint: Callable[..., Path]
    ) -> None:
        (tmp_path / "yunet.onnx").write_bytes(b"not a network")
        with pytest.raises(FaceDetectorError, match="not a YuNet"):
            export_bundle(
                write_checkpoint(),
                tmp_path / "out",
                ExportOptions(face_detector=tmp_path / "yunet.onnx"),
            )
        assert not (tmp_path / "out").exists()
