"""Every pair of target and precision, from a checkpoint to its own engine."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mer import Checkpoint, save_checkpoint
from mer_export import export_bundle
from mer_export.golden import answer
from mer_export.targets import EXPORTS
from mer_runtime import BundleError, MissingExtraError, Recognizer
from mer_runtime.backends import open_backend
from mer_runtime.bundle import load_bundle


@pytest.fixture(scope="module", params=EXPORTS, ids=" ".join)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, small_model: Any
) -> Path:
    target, precision = request.param
    folder = tmp_path_factory.mktemp("export")
    save_checkpoint(folder / "model.safetensors", *small_model)
    return export_bundle(
        folder / "model.safetensors", folder / "out", target=target, precision=precision
    ).bundle


def test_engine_answers_as_the_reference(exported: Path, small_model: Any) -> None:
    recognizer = Recognizer.load(exported, threads=1)
    assert recognizer.bundle.target in recognizer.backend.name
    generator = np.random.default_rng(11)
    for _ in range(2):
        mfcc = generator.normal(0, 60, recognizer.spec.audio.shape).astype(np.float32)
        faces = generator.integers(0, 256, recognizer.spec.video.shape, np.uint8)
        expected = answer(Checkpoint(*small_model), mfcc, faces)
        logits = recognizer.infer(mfcc, faces)
        # The gate's bound for float32, and relative to logits that reach 80 on noise.
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-3)
    first = recognizer.infer(mfcc, None)
    kept = first.copy()
    recognizer.infer(None, faces)
    np.testing.assert_array_equal(first, kept, "an answer was overwritten by the next one")


def test_golden_answers_are_reproduced_from_disk(exported: Path) -> None:
    result = Recognizer.load(exported).self_test()
    assert result.passed
    assert result.max_difference <= 1e-5  # the same engine, graph and machine


def test_second_export_gives_the_same_bytes(exported: Path) -> None:
    bundle = load_bundle(exported)
    again = export_bundle(
        exported.parent / "model.safetensors",
        exported.parent / "again",
        target=bundle.target,
        precision=bundle.precision,
    ).bundle
    files = sorted(file.name for file in exported.iterdir())
    assert files == sorted(file.name for file in again.iterdir())
    for name in files:
        assert (exported / name).read_bytes() == (again / name).read_bytes(), name


class TestMissingOpenvino:
    """One line that says which package and which extra."""

    @pytest.fixture(autouse=True)
    def _hide(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "openvino", None)

    def test_at_export(self, tmp_path: Path, small_model: Any) -> None:
        save_checkpoint(tmp_path / "model.safetensors", *small_model)
        with pytest.raises(MissingExtraError, match=r"pip install 'mer-edge\[openvino\]'"):
            export_bundle(tmp_path / "model.safetensors", tmp_path / "out", target="openvino")
        assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]

    def test_on_the_device(self, exported: Path) -> None:
        bundle = load_bundle(exported)
        if bundle.target == "openvino":
            with pytest.raises(MissingExtraError, match="needs the package openvino"):
                open_backend(bundle)
        else:
            assert open_backend(bundle, threads=1).name.startswith("onnxruntime")


def test_graph_of_another_spec(exported: Path) -> None:
    bundle = load_bundle(exported)
    audio = dataclasses.replace(bundle.spec.audio, n_mfcc=12, mean=(), std=())
    other = dataclasses.replace(bundle, spec=dataclasses.replace(bundle.spec, audio=audio))
    with pytest.raises(BundleError, match="its spec says"):
        open_backend(other)


def test_graph_that_is_none(exported: Path, tmp_path: Path) -> None:
    bundle = load_bundle(exported)
    graph = tmp_path / bundle.graph.name
    graph.write_bytes(b"not a graph")
    broken = type(bundle)(tmp_path, bundle.manifest, bundle.spec, bundle.target, bundle.precision)
    with pytest.raises(BundleError, match="the graph"):
        open_backend(broken)
