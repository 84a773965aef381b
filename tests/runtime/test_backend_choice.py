"""``--backend``: real engines on bundles whose answers are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mer_runtime import BundleError, Recognizer
from mer_runtime.backends.choice import choose_backend
from mer_runtime.bundle import load_bundle, write_manifest

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


@pytest.fixture
def wrong_bundle(write_tiny_bundle: WriteBundle) -> Path:
    """A bundle whose golden answers no engine gives."""
    folder = write_tiny_bundle()
    with np.load(folder / "golden.npz") as data:
        golden = dict(data)
    golden["answers"] = golden["answers"] + 1
    np.savez(folder / "golden.npz", **golden)
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("digest", "files", "format", "format_version"):
        manifest.pop(name, None)
    write_manifest(folder, manifest)
    return folder


def test_an_engine_that_answers_otherwise_is_not_taken(wrong_bundle: Path) -> None:
    pytest.importorskip("openvino")
    bundle = load_bundle(wrong_bundle)
    with pytest.raises(BundleError, match="off its golden answers by 1"):
        choose_backend(bundle, "openvino", 1)
    with pytest.raises(BundleError, match=r"onnxruntime .* is off its golden answers"):
        choose_backend(bundle, "auto", 1)
