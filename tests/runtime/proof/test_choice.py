"""``--backend``: real engines on bundles whose answers are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mer_runtime import BundleError, Recognizer
from mer_runtime.bundle import Bundle, load_bundle
from mer_runtime.cli import main
from mer_runtime.engines import Backend, open_backend
from mer_runtime.proof.choice import ENGINE_CHOICES, choose_backend
from mer_runtime.store import CACHE_VARIABLE

WriteBundle = Callable[..., Path]


def test_auto_tries_every_engine_that_can(write_tiny_bundle: WriteBundle) -> None:
    pytest.importorskip("openvino")
    bundle = load_bundle(write_tiny_bundle())
    choice = choose_backend(bundle, "auto", 1)
    assert [name.split()[0] for name in choice.considered] == ["onnxruntime", "openvino"]
    times = {
        name: float(result.removesuffix(" ms a window"))
        for name, result in choice.considered.items()
    }
    # Two graphs this small can take the same time to a tenth of a millisecond.
    assert times[choice.backend.name] == min(times.values())
    assert Recognizer(bundle, choice.backend).self_test().passed


def test_recognizer_takes_what_the_command_takes(
    write_tiny_bundle: WriteBundle, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("openvino")
    folder = write_tiny_bundle()
    option = next(p for p in main.params if p.name == "backend")
    assert tuple(option.type.choices) == ENGINE_CHOICES  # type: ignore[attr-defined]
    with caplog.at_level("INFO", "mer_runtime"):
        recognizer = Recognizer.load(folder, 1, backend="auto")
    assert [name.split()[0] for name in recognizer.considered] == ["onnxruntime", "openvino"]
    assert recognizer.backend.name in recognizer.considered
    assert f"{recognizer.backend.name} runs {folder} on 1 threads: the fastest" in caplog.text
    for engine in ENGINE_CHOICES[1:]:
        try:
            assert Recognizer.load(folder, 1, backend=engine).backend.name.startswith(engine)
        except BundleError as error:
            assert f"{engine} can't run a bundle for onnx" in str(error)  # noqa: PT017


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_named_engine(write_tiny_bundle: WriteBundle, engine: str) -> None:
    pytest.importorskip(engine)
    bundle = load_bundle(write_tiny_bundle())
    choice = choose_backend(bundle, engine, 1)  # type: ignore[arg-type]
    assert choice.backend.name.startswith(engine)
    assert choice.considered == {}


def test_openvino_bundle_has_one_engine(write_tiny_bundle: WriteBundle) -> None:
    pytest.importorskip("openvino")
    bundle = load_bundle(write_tiny_bundle(target="openvino"))
    assert choose_backend(bundle, "auto", 1).backend.name.startswith("openvino")
    with pytest.raises(BundleError, match="onnxruntime can't run a bundle for openvino"):
        choose_backend(bundle, "onnxruntime", 1)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("cached", [False, True])
def test_tensorrt_bundle_in_a_named_engine(
    write_tiny_bundle: WriteBundle, engine: str, cached: bool
) -> None:
    """Both read its packed ONNX, and what they keep of it."""
    pytest.importorskip(engine)
    bundle = load_bundle(write_tiny_bundle(target="tensorrt"))
    assert bundle.encoder.name == "encoder.onnx.gz"
    if cached:
        choose_backend(bundle, engine, 1)  # type: ignore[arg-type]
    choice = choose_backend(bundle, engine, 1)  # type: ignore[arg-type]
    assert choice.backend.name.startswith(engine)
    assert Recognizer(bundle, choice.backend).self_test().passed


def test_tensorrt_bundle_runs_on_a_cpu_too(write_tiny_bundle: WriteBundle) -> None:
    """Where there is no GPU, and says why TensorRT wasn't taken."""
    bundle = load_bundle(write_tiny_bundle(target="tensorrt"))
    try:
        choose_backend(bundle, "tensorrt", 1)
    except Exception as error:  # noqa: BLE001 - no TensorRT, no GPU, no driver: each has its own
        reason = " ".join(str(error).split())
    else:
        pytest.skip("this machine has TensorRT and a GPU")
    choice = choose_backend(bundle, "auto", 1)
    assert choice.backend.name.startswith(("onnxruntime", "openvino"))
    assert choice.considered["tensorrt"] == reason
    assert Recognizer(bundle, choice.backend).self_test().passed


def test_no_engine_answers_rightly(
    write_tiny_bundle: WriteBundle, edit_golden: Callable[..., None]
) -> None:
    pytest.importorskip("openvino")
    folder = write_tiny_bundle()
    edit_golden(folder, answers=load_bundle(folder).golden().answers + 1)
    bundle = load_bundle(folder)
    for engine in (None, "onnxruntime", "openvino"):
        name = engine or "onnxruntime"
        with pytest.raises(BundleError, match=rf"{name} .* is off its golden answers by 1"):
            choose_backend(bundle, engine, 1)  # type: ignore[arg-type]
        assert choose_backend(bundle, engine, 1, prove=False).backend.name.startswith(name)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=r"onnxruntime .* is off its golden answers by 1"):
        choose_backend(bundle, "auto", 1, prove=False)  # which is what auto is for


class Saturating:
    """A backend whose features are cut off, as sums are that saturate."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def encode(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        features = self._inner.encode(faces)
        return np.minimum(features, features.max() / 2)


def test_auto_goes_on_where_an_engine_answers_wrong(
    write_tiny_bundle: WriteBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    # Of its own: elsewhere the same bundle passed.
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    bundle = load_bundle(write_tiny_bundle())

    def open_saturating(bundle: Bundle, threads: int) -> Any:
        backend = open_backend(bundle, threads)
        return Saturating(backend) if bundle.target == "onnx" else backend

    monkeypatch.setattr("mer_runtime.proof.choice.open_backend", open_saturating)
    with pytest.raises(BundleError, match="onnxruntime") as refused:
        choose_backend(bundle, threads=1)
    choice = choose_backend(bundle, "auto", 1)
    assert choice.backend.name.startswith("openvino")
    assert choice.considered["onnxruntime"] == str(refused.value)
    assert choice.considered[choice.backend.name].endswith(" ms a window")
