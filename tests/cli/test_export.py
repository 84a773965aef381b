"""``mer-export`` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from mer.weights import shipped_checkpoint
from mer_export import exporter
from mer_export.cli import main
from mer_export.drafting import replacing
from mer_runtime.bundle import load_bundle

pytestmark = pytest.mark.usefixtures("graphs_once")
FLOAT = ("--precision", "fp32")


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_report_as_text(fitted: tuple[Path, Path], tmp_path: Path) -> None:
    result = run(fitted[0], *FLOAT, "--target", "onnx", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert "gate: 12 golden inputs" in result.stdout
    assert f"mer-run {tmp_path / 'out'} CLIP" in result.stdout


def test_report_as_json(fitted: tuple[Path, Path], tmp_path: Path) -> None:
    report = json.loads(run(fitted[0], *FLOAT, "--out", tmp_path / "out", "--json").stdout)
    assert report["gate"]["golden"]["max_difference"] <= 1e-3
    assert report["gate"]["kind"] == "golden"
    assert report["size"] == sum(f.stat().st_size for f in (tmp_path / "out").iterdir())
    assert report["precision"] == "fp32"
    assert report["advice"] is None


def test_calibration_with_its_table(
    fitted: tuple[Path, Path],
    calibration: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What calibrating this checkpoint on this cache gave, made once for all tests.
    monkeypatch.setattr(exporter, "calibrate", lambda *args, **options: calibration)
    options = ("--cpu", "x86", "--out", tmp_path / "out", "--layers")
    result = run(fitted[0], "--calibration", fitted[1], *options)
    assert result.exit_code == 0, result.stderr
    for words in ("int8", "validation", "agree", "SQNR dB", "encoder.conv5.0.weight"):
        assert words in result.stdout


def test_ranges_of_an_earlier_export(
    fitted: tuple[Path, Path], proved: Any, tmp_path: Path
) -> None:
    result = run(fitted[0], "--ranges", proved.bundle, "--out", tmp_path / "out", "--json")
    report = json.loads(result.stdout)
    assert (report["precision"], report["target"]) == ("int8", "onnx")
    assert report["layers"] == []


@pytest.mark.skipif(
    not shipped_checkpoint().with_name("ia.ranges.json").is_file(),
    reason="the shipped checkpoint's ranges aren't there",
)
def test_jetson_bundle_without_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("--target", "tensorrt")
    assert result.exit_code == 0, result.stderr
    bundle = load_bundle(tmp_path / "ia-tensorrt-int8")
    assert (bundle.target, bundle.precision) == ("tensorrt", "int8")
    assert bundle.spec.fusion == "ia"
    assert len(result.stdout.splitlines()) <= 6
    assert "copy ia-tensorrt-int8 to the device" in result.stdout


def test_shipped_checkpoint_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("ia-compact", "--precision", "fp32")
    assert result.exit_code == 0, result.stderr
    assert load_bundle(tmp_path / "ia-compact-onnx-fp32").spec.encoder == "compact"
    (tmp_path / "it").write_bytes(b"a file of one's own")
    result = run("it", "--precision", "fp32")
    assert result.exit_code == 1
    assert "it: " in result.stderr


@pytest.fixture
def foreign_weights(small_model: Any) -> dict[str, torch.Tensor]:
    """Weights for the reference's preprocessing, which standardises nothing: with logits of a
    few units all the same, as a trained model's are."""
    weights = dict(small_model[0].state_dict())
    weights["classifier_1.0.weight"] = weights["classifier_1.0.weight"] / 100
    return weights


def test_own_labels_and_heads(tmp_path: Path, foreign_weights: dict[str, torch.Tensor]) -> None:
    for name in ("classifier_1", "audio_model.classifier_1", "visual_model.classifier_1"):
        for part in (f"{name}.0.weight", f"{name}.0.bias"):
            foreign_weights[part] = foreign_weights[part][:3]
    torch.save(foreign_weights, tmp_path / "own.pth")
    out = (*FLOAT, "--out", tmp_path / "out")
    refused = run(tmp_path / "own.pth", *out)
    assert refused.exit_code == 1
    assert "--labels" in refused.stderr
    result = run(tmp_path / "own.pth", "--labels", "no, maybe, yes", "--num-heads", 2, *out)
    assert result.exit_code == 0, result.stderr
    spec = load_bundle(tmp_path / "out").spec
    assert spec.labels == ("no", "maybe", "yes")
    assert spec.num_heads == 2


def test_foreign_preprocessing_from_a_file(
    tmp_path: Path, foreign_weights: dict[str, torch.Tensor]
) -> None:
    torch.save(foreign_weights, tmp_path / "own.pth")
    (tmp_path / "spec.json").write_text(json.dumps({"audio": {"sample_rate": 8000}}))
    result = run(
        tmp_path / "own.pth", *FLOAT, "--spec", tmp_path / "spec.json", "--out", tmp_path / "out"
    )
    assert result.exit_code == 0, result.stderr
    assert load_bundle(tmp_path / "out").spec.audio.sample_rate == 8000


def test_inspect_as_json() -> None:
    told = json.loads(run("--inspect", "ia-int8", "--json").stdout)
    assert [graph["name"] for graph in told["graphs"]] == ["encoder", "head"]
    assert told["dialect"] == "x86"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--inspect", "ia-int8", "--seed", 3), "--seed changes nothing with --inspect"),
        (("ia", "--inspect", "ia-int8"), "CHECKPOINT changes nothing with --inspect"),
        ((*FLOAT, "--seed", 3), "--seed changes nothing here"),
        ((*FLOAT, "--float-head"), "--float-head changes nothing here: it goes with --precision"),
        ((*FLOAT, "--ranges", "x.json"), "--ranges changes nothing here"),
        (("--target", "openvino", "--cpu", "arm"), "--cpu changes nothing here"),
        (("--max-drop", 1), "--max-drop changes nothing here: it goes with --calibration"),
        (("--layers",), "--layers goes with int8's --calibration"),
        (("ia", "it"), "several go with --tune"),
        (("--max-latency", "8ms"), "--max-latency goes with --tune"),
        (("--tune", "--max-latency", "8ms"), "give it --calibration CACHE"),
        (("--tune", "--calibration", "x", "--max-latency", "soon"), "is not a time such as 8ms"),
        (("--tune", "--calibration", "x", "--cpu", "arm"), "--cpu changes nothing with --tune"),
    ],
)
def test_what_would_change_nothing_is_refused(options: tuple[object, ...], words: str) -> None:
    result = run(*options)
    assert result.exit_code == 2
    assert words in result.stderr.splitlines()[-1]


def test_spec_of_a_checkpoint_that_has_its_own(fitted: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text("{}")
    result = run(fitted[0], *FLOAT, "--spec", tmp_path / "spec.json", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "it says its preprocessing itself: give it no --spec" in result.stderr


class TestBadInput:
    """One line on standard error, exit 1 (2 for usage), nothing written."""

    def check(self, result: Any, *words: str, code: int = 1) -> None:
        assert result.exit_code == code
        lines = result.stderr.splitlines()
        assert "Traceback" not in result.stderr
        assert lines[-1].startswith("Error: ")
        for word in words:
            assert word in lines[-1]
        assert code == 2 or len(lines) == 1

    @pytest.mark.parametrize(
        "content", [b"", b"hello", b"PK\x03\x04 torn", b"\x08" + b"\0" * 7 + b"{"]
    )
    def test_no_checkpoint(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x.pth").write_bytes(content)
        self.check(run(tmp_path / "x.pth", "--out", tmp_path / "out"), "x.pth")
        assert not (tmp_path / "out").exists()

    def test_missing_checkpoint(self, tmp_path: Path) -> None:
        self.check(run(tmp_path / "x.pth"), "no such file")

    def test_truncated_checkpoint(
        self, tmp_path: Path, write_checkpoint: Callable[..., Path]
    ) -> None:
        path = write_checkpoint()
        path.write_bytes(path.read_bytes()[:-1000])
        self.check(run(path, "--out", tmp_path / "out"), "truncated")
        assert not (tmp_path / "out").exists()

    def test_output_that_cannot_be_written(self, write_checkpoint: Callable[..., Path]) -> None:
        result = run(write_checkpoint(), *FLOAT, "--out", "/proc/nowhere/out")
        self.check(result, "can't write")

    def test_spec_that_is_none(self, tmp_path: Path, write_checkpoint: Callable[..., Path]) -> None:
        (tmp_path / "spec.json").write_text('{"audio": {"sample_rate": 12}}')
        result = run(write_checkpoint(), "--spec", tmp_path / "spec.json")
        self.check(result, "audio.sample_rate must be")

    def test_unknown_target(self) -> None:
        self.check(run("--target", "abacus"), "abacus", code=2)

    def test_negative_drop(self) -> None:
        self.check(run("--max-drop", "-1"), "--max-drop", code=2)

    def test_no_ranges(self, tmp_path: Path, write_checkpoint: Callable[..., Path]) -> None:
        self.check(run(write_checkpoint(), "--out", tmp_path / "out"), "--calibration", "--ranges")
        assert not (tmp_path / "out").exists()

    def test_cache_that_is_none(
        self, tmp_path: Path, write_checkpoint: Callable[..., Path]
    ) -> None:
        result = run(write_checkpoint(), "--calibration", tmp_path, "--out", tmp_path / "out")
        self.check(result, "mer-prepare")

    def test_two_at_once(self, fitted: tuple[Path, Path], tmp_path: Path) -> None:
        with replacing(tmp_path / "out") as draft:
            result = run(fitted[0], *FLOAT, "--out", tmp_path / "out")
            self.check(result, "another export is writing it")
            assert draft.is_dir()
