"""``mer-export`` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from mer_export.cli import main
from mer_runtime.bundle import load_bundle


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_report_as_text(tmp_path: Path, write_checkpoint: Callable[..., Path]) -> None:
    result = run(write_checkpoint(), "--target", "onnx", "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert "gate: 5 golden inputs" in result.stdout
    assert f"mer-run {tmp_path / 'out'} CLIP" in result.stdout


def test_report_as_json(tmp_path: Path, write_checkpoint: Callable[..., Path]) -> None:
    report = json.loads(run(write_checkpoint(), "--out", tmp_path / "out", "--json").stdout)
    assert report["gate"]["max_difference"] <= 1e-3
    assert report["size"] == sum(f.stat().st_size for f in (tmp_path / "out").iterdir())


def test_shipped_checkpoint_without_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run()
    assert result.exit_code == 0
    assert load_bundle(tmp_path / "ia-onnx-fp32").spec.fusion == "ia"


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
    out = ("--out", tmp_path / "out")
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
    result = run(tmp_path / "own.pth", "--spec", tmp_path / "spec.json", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert load_bundle(tmp_path / "out").spec.audio.sample_rate == 8000


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
        self.check(run(write_checkpoint(), "--out", "/proc/nowhere/out"), "can't write")

    def test_spec_that_is_none(self, tmp_path: Path, write_checkpoint: Callable[..., Path]) -> None:
        (tmp_path / "spec.json").write_text('{"audio": {"sample_rate": 12}}')
        result = run(write_checkpoint(), "--spec", tmp_path / "spec.json")
        self.check(result, "audio.sample_rate must be")

    def test_unknown_target(self) -> None:
        self.check(run("--target", "abacus"), "abacus", code=2)
