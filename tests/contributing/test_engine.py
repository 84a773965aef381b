"""``docs/contributing/engine.md``, followed from export to an answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from mer_export import ExportOptions, export_bundle
from mer_export.errors import ExportError
from mer_runtime import BundleError, Recognizer
from mer_runtime.bundle import load_bundle
from mer_runtime.engines import open_backend


def test_guide(
    follow: Callable[[str], None], trained: tuple[Path, Path], sample_clip: Path, tmp_path: Path
) -> None:
    follow("engine.md")
    folder = tmp_path / "out"
    report = export_bundle(
        trained[0], folder, ExportOptions(target="plain", precision="fp32", timing=False)
    )
    assert report.gate.engine.startswith("plain "), "the gate asked another engine"
    recognizer = Recognizer.load(folder, threads=1)
    assert recognizer.backend.name.startswith("plain ")
    assert recognizer.predict(sample_clip).label in recognizer.spec.labels
    with pytest.raises(BundleError, match="openvino can't run a bundle for plain; plain can"):
        Recognizer.load(folder, threads=1, backend="openvino")
    bundle = load_bundle(folder)
    with pytest.raises(BundleError, match=r"no engine for abacus, only for onnx, .*, plain"):
        open_backend(dataclasses.replace(bundle, target="abacus"), 1)


def test_unknown_target(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="there is no target abacus: take onnx, openvino"):
        export_bundle(out=tmp_path / "out", options=ExportOptions(target="abacus"))
