"""What ships: checkpoints with the ranges of their calibration, and one bundle ready to run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mer import load_checkpoint
from mer.weights import PAPER, SHIPPED, shipped_checkpoint
from mer_calibration import DIALECTS, Ranges
from mer_export import ExportOptions, ExportReport, export_bundle
from mer_export.feeds import hash_preprocessing
from mer_export.ranges import ranges_file
from mer_runtime import Recognizer
from mer_runtime.bundle import load_bundle, shipped_bundle
from mer_runtime.feeds import MODALITIES
from mer_runtime.inputs.face import DETECTOR_VARIABLE

#: Bytes: weights in half precision, and the graphs of a quantised bundle.
MOST_WEIGHTS, MOST_GRAPHS, MOST_COMPACT = 4_200_000, 2_200_000, 1_200_000
#: Of the machine that made them: float sums of PyTorch's and the engine's, and their hashes.
ANSWERS = ("gate", "digest", "files")


@pytest.mark.parametrize("name", SHIPPED)
def test_checkpoint_has_ranges_of_its_preprocessing(name: str) -> None:
    path = shipped_checkpoint(name)
    checkpoint = load_checkpoint(path)
    assert path.stat().st_size <= MOST_WEIGHTS
    fusion, encoder = (name, "efficientface") if name in PAPER else ("gated", "compact")
    assert (checkpoint.spec.fusion, checkpoint.spec.encoder) == (fusion, encoder)
    ranges = Ranges.read(ranges_file(path))
    ranges.require({}, hash_preprocessing(checkpoint.spec))
    assert ranges.clips >= 100
    assert set(ranges.dialects) == set(DIALECTS)
    for dialect in DIALECTS:
        noise = ranges.of(dialect).noise
        assert noise.sqnr > 30, dialect
        assert set(noise.logits) == set(MODALITIES)


def test_one_file_of_ranges_for_each() -> None:
    folder = shipped_checkpoint("ia").parent
    assert set(folder.glob("*.json")) == {ranges_file(shipped_checkpoint(one)) for one in SHIPPED}


@pytest.fixture(scope="module", params=["ia", "ia-compact"])
def report(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> ExportReport:
    folder = tmp_path_factory.mktemp("shipped") / f"{request.param}-int8"
    checkpoint = shipped_checkpoint(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(DETECTOR_VARIABLE, raising=False)
        options = ExportOptions(target="onnx", cpu="x86", timing=False)
        return export_bundle(checkpoint, folder, options=options)


def test_bundle_is_what_the_exporter_makes(report: ExportReport) -> None:
    shipped, exported = shipped_bundle(report.bundle.name), report.bundle
    assert shipped is not None
    for name in ("encoder.onnx.gz", "head.onnx.gz", "ranges.json"):
        assert (shipped / name).read_bytes() == (exported / name).read_bytes(), name
    ours, made = (read_manifest(folder) for folder in (shipped, exported))
    for name in ANSWERS:
        assert ours.pop(name)
        assert made.pop(name)
    assert ours == made
    kept, given = load_bundle(shipped).golden(), load_bundle(exported).golden()
    # Integers are the same everywhere.
    np.testing.assert_allclose(kept.answers, given.answers, atol=1e-3)
    np.testing.assert_allclose(kept.reference, given.reference, atol=1e-3)
    assert kept.tolerance == given.tolerance


@pytest.mark.parametrize("target", ["onnx", "openvino", "tensorrt"])
def test_largest_bundle_is_small(target: Any, graphs_once: None, tmp_path: Path) -> None:
    """``lt`` has the largest head. Layers that its ranges leave in float are counted apart."""
    if target == "openvino":
        pytest.importorskip("openvino")
    checkpoint = shipped_checkpoint("lt")
    cpu = "x86" if target == "onnx" else None
    report = export_bundle(
        checkpoint, tmp_path / "lt", ExportOptions(target=target, cpu=cpu, timing=False)
    )
    assert (report.float_size > 0) == bool(report.float_layers)
    # A packed int8 encoder alone takes 1.2 to 1.4 MB.
    assert 1_200_000 < report.graph_size - report.float_size <= MOST_GRAPHS


def read_manifest(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest


def test_bundle_is_small_and_answers_as_it_did(sample_clip: Path, report: ExportReport) -> None:
    recognizer = Recognizer.load(report.bundle.name, threads=1)
    graphs = (recognizer.bundle.encoder, recognizer.bundle.head)
    assert sum(file.stat().st_size for file in graphs) == report.graph_size
    most = MOST_COMPACT if report.bundle.name == "ia-compact-int8" else MOST_GRAPHS
    assert report.graph_size - report.float_size <= most
    assert recognizer.bundle.precision == "int8"
    assert recognizer.self_test().passed
    assert recognizer.predict(sample_clip).face
