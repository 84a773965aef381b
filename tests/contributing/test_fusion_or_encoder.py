"""``docs/contributing/fusion-or-encoder.md``, followed from training to an answer."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mer import load_checkpoint
from mer.checkpoint import load_encoder
from mer.errors import CheckpointError
from mer.models import build_model
from mer.weights import SHIPPED, shipped_checkpoint
from mer_export import ExportOptions, export_bundle
from mer_runtime import Recognizer, SpecError
from mer_runtime.spec import Spec


def test_guide(trained: tuple[Path, Path], sample_clip: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(trained[0])
    assert (checkpoint.spec.fusion, checkpoint.spec.encoder) == ("gate", "small")
    assert type(checkpoint.model).__name__ == "Gate"
    assert set(load_encoder(trained[0], "small")) == {
        f"{layer}.{part}" for layer in ("first", "second") for part in ("weight", "bias")
    }
    report = export_bundle(
        trained[0], tmp_path / "out", ExportOptions(precision="fp32", timing=False)
    )
    recognizer = Recognizer.load(report.bundle, threads=1)
    assert recognizer.spec == checkpoint.spec
    assert recognizer.backend.feature_width == 32
    prediction = recognizer.predict(sample_clip)
    assert prediction.face
    assert prediction.voice
    assert prediction.label in recognizer.spec.labels
    assert "gate" not in SHIPPED


def test_weights_of_another_encoder(trained: tuple[Path, Path]) -> None:
    with pytest.raises(CheckpointError, match="it lacks first"):
        load_encoder(shipped_checkpoint(), "small")


@pytest.mark.parametrize("field", ["fusion", "encoder"])
def test_unknown(field: str) -> None:
    known = {"fusion": "ia, it, lt", "encoder": "efficientface"}[field]
    with pytest.raises(SpecError, match=f"there is no {field} nobody's: take {known}"):
        build_model(dataclasses.replace(Spec(), **{field: "nobody's"}))


def test_shipped_checkpoints_name_no_encoder() -> None:
    """They are older than the field, and so are bundles: their bytes stay what they are."""
    assert "encoder" not in Spec().to_dict()
    assert Spec(encoder="small").to_dict()["encoder"] == "small"
    assert load_checkpoint(shipped_checkpoint()).spec.encoder == "efficientface"
