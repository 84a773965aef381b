"""Engines on graphs whose answers are known, and on graphs that aren't a bundle's."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mer_runtime.bundle import load_bundle, write_manifest
from mer_runtime.engines import check_shapes, open_backend
from mer_runtime.errors import BundleError
from mer_runtime.proof.choice import choose_backend

WriteBundle = Callable[..., Path]

#: float32 sums of a thousand pixels; bfloat16, which OpenVINO picks by itself where the CPU has
#: it, would be off by 1e-2.
TOLERANCE = 1e-4


@pytest.fixture(params=["onnx", "openvino"])
def target(request: pytest.FixtureRequest) -> str:
    if request.param == "openvino":
        pytest.importorskip("openvino")
    return str(request.param)


def test_answers_are_the_graphs(
    target: str, write_tiny_bundle: WriteBundle, tiny_model: Any
) -> None:
    backend = open_backend(load_bundle(write_tiny_bundle(target=target)), threads=1)
    generator = np.random.default_rng(1)
    faces = generator.integers(0, 256, tiny_model.spec.video.shape, np.uint8)
    mfcc = generator.normal(0, 60, tiny_model.spec.audio.shape).astype(np.float32)
    features = backend.encode(faces)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, tiny_model.encode(faces), atol=TOLERANCE)
    logits = backend.classify(mfcc, features)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, tiny_model.classify(mfcc, features), atol=TOLERANCE)


def test_any_number_of_crops(target: str, write_tiny_bundle: WriteBundle, tiny_model: Any) -> None:
    """In any order, and each answer stays as it was given."""
    backend = open_backend(load_bundle(write_tiny_bundle(target=target)), threads=1)
    faces = np.random.default_rng(2).integers(0, 256, tiny_model.spec.video.shape, np.uint8)
    counts = (1, 7, 12, 1, 6)
    given = [backend.encode(faces[-n:]) for n in counts]
    for n, features in zip(counts, given, strict=True):
        np.testing.assert_allclose(features, tiny_model.encode(faces[-n:]), atol=TOLERANCE)


@pytest.mark.parametrize("width", [1, 40])
def test_feature_width_is_the_heads(
    width: int, target: str, write_tiny_bundle: WriteBundle, make_tiny_model: Callable[..., Any]
) -> None:
    model = make_tiny_model(width)
    folder = write_tiny_bundle(
        target=target, encoder=model.encoder_graph(), head=model.head_graph()
    )
    backend = open_backend(load_bundle(folder), threads=1)
    assert backend.feature_width == width
    assert backend.encode(np.zeros((3, 32, 32, 3), np.uint8)).shape == (3, width)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": {"batch": 12}}, r"its encoder has faces \(12 x 32 x 32 x 3\)"),
        ({"encoder": {"size": 64}}, r"its encoder has faces \(\? x 64 x 64 x 3\)"),
        ({"encoder": {"name": "crops"}}, r"its encoder has crops \(\? x 32 x 32 x 3\)"),
        ({"head": {"frames": 15}}, r"its head has .*features \(1 x 15 x 6\)"),
        ({"head": {"output": "answers"}}, r"its head has .*answers \(1 x 8\)"),
    ],
)
def test_graph_of_another_shape(
    change: dict[str, dict[str, Any]],
    message: str,
    target: str,
    write_tiny_bundle: WriteBundle,
    tiny_model: Any,
) -> None:
    graphs = {name: getattr(tiny_model, f"{name}_graph")(**how) for name, how in change.items()}
    refuse(write_tiny_bundle(target=target, **graphs), message)


def test_graphs_of_two_models(
    target: str, write_tiny_bundle: WriteBundle, make_tiny_model: Callable[..., Any]
) -> None:
    head = make_tiny_model(width=7).head_graph()
    refuse(write_tiny_bundle(target=target, head=head), r"its encoder has .*features \(\? x 6\)")


def test_more_classes_than_labels(
    target: str, write_tiny_bundle: WriteBundle, make_tiny_model: Callable[..., Any]
) -> None:
    head = make_tiny_model(classes=9).head_graph()
    refuse(write_tiny_bundle(target=target, head=head), r"logits \(1 x 9\), .*logits \(1 x 8\)")


def test_graph_without_tensors(write_tiny_bundle: WriteBundle) -> None:
    """No engine loads one, but a backend must not stumble over it."""
    bundle = load_bundle(write_tiny_bundle())
    with pytest.raises(BundleError, match="its encoder has nothing"):
        check_shapes(bundle, {}, {})


def test_features_of_open_width(write_tiny_bundle: WriteBundle) -> None:
    bundle = load_bundle(write_tiny_bundle())
    encoder = {"faces": (None, 32, 32, 3), "features": (None, None)}
    head = {"mfcc": (1, 10, 113), "features": (1, 12, None), "logits": (1, 8)}
    with pytest.raises(BundleError, match="leaves the width of features open"):
        check_shapes(bundle, encoder, head)


@pytest.mark.parametrize("graph", ["encoder", "head"])
def test_file_that_is_no_graph(graph: str, target: str, write_tiny_bundle: WriteBundle) -> None:
    """Its hash fits, but no engine can read it."""
    folder = write_tiny_bundle(target=target)
    suffix = "xml.gz" if target == "openvino" else "onnx"
    (folder / f"{graph}.{suffix}").write_bytes(b"not a graph")
    content = json.loads((folder / "manifest.json").read_text())
    write_manifest(folder, {k: v for k, v in content.items() if k not in ("files", "digest")})
    refuse(folder, r"(ONNX Runtime|OpenVINO) can't load its graphs: .")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("damage", ["cut", "packed text"])
def test_packed_onnx_that_is_damaged(
    engine: Any, damage: str, write_tiny_bundle: WriteBundle
) -> None:
    """A TensorRT bundle's, in the engines that stand in for TensorRT."""
    pytest.importorskip(engine)
    folder = write_tiny_bundle(target="tensorrt")
    file = folder / "encoder.onnx.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if damage == "cut" else gzip.compress(b"text"))
    content = json.loads((folder / "manifest.json").read_text())
    write_manifest(folder, {k: v for k, v in content.items() if k not in ("files", "digest")})
    told = r"encoder\.onnx\.gz can't be unpacked: ." if damage == "cut" else "."
    with pytest.raises(BundleError, match=f"(ONNX Runtime|OpenVINO) can't load its graphs: {told}"):
        choose_backend(load_bundle(folder), engine, 1)


@pytest.mark.parametrize("damage", ["cut", "packed text"])
def test_packed_graph_that_is_damaged(damage: str, write_tiny_bundle: WriteBundle) -> None:
    pytest.importorskip("openvino")
    folder = write_tiny_bundle(target="openvino")
    file = folder / "encoder.xml.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if damage == "cut" else gzip.compress(b"<net>"))
    content = json.loads((folder / "manifest.json").read_text())
    write_manifest(folder, {k: v for k, v in content.items() if k not in ("files", "digest")})
    refuse(folder, r"OpenVINO can't load its graphs: .")


class TestOpenvinoPrecision:
    """OpenVINO computes in what the manifest says, and in nothing else."""

    @pytest.fixture(autouse=True)
    def _openvino(self) -> None:
        pytest.importorskip("openvino")

    @pytest.mark.parametrize("precision", ["f32", "f16", "bf16"])
    def test_known(self, precision: str, write_tiny_bundle: WriteBundle, tiny_model: Any) -> None:
        folder = write_tiny_bundle(target="openvino", engine={"inference_precision": precision})
        backend = open_backend(load_bundle(folder), threads=1)
        faces = np.full(tiny_model.spec.video.shape, 200, np.uint8)
        # A few percent: bfloat16 has 8 bits of fraction.
        np.testing.assert_allclose(
            backend.encode(faces), tiny_model.encode(faces), rtol=0.05, atol=0.01
        )

    @pytest.mark.parametrize(
        "engine",
        [{}, {"inference_precision": "i8"}, {"inference_precision": None}, {"dialect": "x86"}],
    )
    def test_missing_or_unknown(
        self, engine: dict[str, Any], write_tiny_bundle: WriteBundle
    ) -> None:
        folder = write_tiny_bundle(target="openvino", engine=engine)
        refuse(folder, r"engine\.inference_precision must be one of f32, f16, bf16, not")


def refuse(folder: Path, message: str) -> None:
    """The engine refuses a bundle whose files are in order, in one line."""
    bundle = load_bundle(folder)
    with pytest.raises(BundleError, match=message) as caught:
        open_backend(bundle, threads=1)
    assert "\n" not in str(caught.value)
