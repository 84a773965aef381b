"""A bundle of two graphs so small that numpy can answer for it."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mer_runtime import Recognizer
from mer_runtime.bundle import write_manifest, write_no_face
from mer_runtime.feeds import Temperatures
from mer_runtime.files import pack_graph
from mer_runtime.golden import Golden, write_golden
from mer_runtime.inputs.face import DETECTOR_VARIABLE
from mer_runtime.proof.signals import signal_crop, signal_mfcc
from mer_runtime.spec import Spec, VideoSpec

OPSET = 18


@dataclass(frozen=True)
class TinyModel:
    """The mean colour of each crop, projected; its mean over time and that of the MFCCs, projected.

    ``encode`` and ``classify`` are the graphs' formulas in float64.
    """

    spec: Spec
    colours: NDArray[np.float32]  # (3, F)
    faces: NDArray[np.float32]  # (F, classes)
    voices: NDArray[np.float32]  # (n_mfcc, classes)

    def encode(self, faces: NDArray[np.uint8]) -> NDArray[np.float64]:
        return np.asarray(faces.mean(axis=(1, 2)) @ self.colours.astype(np.float64))

    def classify(
        self, mfcc: NDArray[np.float32], features: NDArray[np.floating[Any]]
    ) -> NDArray[np.float64]:
        seen = features.astype(np.float64).mean(axis=0) @ self.faces
        return np.asarray(seen + mfcc.astype(np.float64).mean(axis=1) @ self.voices)

    def encoder_graph(
        self, batch: str | int = "n", name: str = "faces", size: int | None = None
    ) -> onnx.ModelProto:
        size = size or self.spec.video.size
        return _model(
            [
                helper.make_node("Cast", [name], ["pixels"], to=TensorProto.FLOAT),
                helper.make_node("ReduceMean", ["pixels", "axes"], ["colour"], keepdims=0),
                helper.make_node("MatMul", ["colour", "colours"], ["features"]),
            ],
            {name: (TensorProto.UINT8, [batch, size, size, 3])},
            {"features": (TensorProto.FLOAT, [batch, self.colours.shape[1]])},
            {"axes": np.array([1, 2]), "colours": self.colours},
        )

    def head_graph(self, frames: int | None = None, output: str = "logits") -> onnx.ModelProto:
        width, classes = self.faces.shape
        return _model(
            [
                helper.make_node("ReduceMean", ["features", "first"], ["face"], keepdims=0),
                helper.make_node("ReduceMean", ["mfcc", "second"], ["voice"], keepdims=0),
                helper.make_node("MatMul", ["face", "faces"], ["seen"]),
                helper.make_node("MatMul", ["voice", "voices"], ["heard"]),
                helper.make_node("Add", ["seen", "heard"], [output]),
            ],
            {
                "mfcc": (TensorProto.FLOAT, [1, *self.spec.audio.shape]),
                "features": (TensorProto.FLOAT, [1, frames or self.spec.video.frames, width]),
            },
            {output: (TensorProto.FLOAT, [1, classes])},
            {
                "first": np.array([1]),
                "second": np.array([2]),
                "faces": self.faces,
                "voices": self.voices,
            },
        )


def _model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[Any]]],
    outputs: dict[str, tuple[int, list[Any]]],
    constants: dict[str, NDArray[Any]],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model)
    return model


@pytest.fixture(scope="session")
def make_tiny_model() -> Callable[..., TinyModel]:
    """A function that makes a ``TinyModel`` of a feature width and number of classes."""

    def make(width: int = 6, classes: int = 8) -> TinyModel:
        generator = np.random.default_rng((width, classes))
        spec = Spec(video=VideoSpec(frames=12, size=32))

        def draw(scale: float, *shape: int) -> NDArray[np.float32]:
            return generator.normal(0, scale, shape).astype(np.float32)

        return TinyModel(
            spec,
            colours=draw(1 / 255, 3, width),
            faces=draw(1, width, classes),
            voices=draw(0.1, spec.audio.n_mfcc, classes),
        )

    return make


@pytest.fixture(scope="session")
def tiny_model(make_tiny_model: Callable[..., TinyModel]) -> TinyModel:
    return make_tiny_model()


Convert = Callable[[onnx.ModelProto], dict[str, bytes]]


@pytest.fixture(scope="session")
def convert(tmp_path_factory: pytest.TempPathFactory) -> Convert:
    """A function from a graph to OpenVINO's files by suffix; each is converted only once."""
    done: dict[bytes, dict[str, bytes]] = {}

    def convert_once(graph: onnx.ModelProto) -> dict[str, bytes]:
        key = graph.SerializeToString()
        if key not in done:
            openvino = pytest.importorskip("openvino")
            folder = tmp_path_factory.mktemp("ir")
            onnx.save(graph, folder / "graph.onnx")
            model = openvino.convert_model(folder / "graph.onnx")
            openvino.save_model(model, folder / "graph.xml", compress_to_fp16=False)
            done[key] = {
                f"{suffix}.gz": gzip.compress((folder / f"graph{suffix}").read_bytes())
                for suffix in (".xml", ".bin")
            }
        return done[key]

    return convert_once


@pytest.fixture
def write_tiny_bundle(
    tmp_path: Path, tiny_model: TinyModel, convert: Convert
) -> Callable[..., Path]:
    """A function that writes a bundle of ``tiny_model``, or of other graphs, under ``tmp_path``."""

    def write(
        name: str = "tiny",
        *,
        target: str = "onnx",
        encoder: onnx.ModelProto | None = None,
        head: onnx.ModelProto | None = None,
        **manifest: Any,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        graphs = {
            "encoder": encoder or tiny_model.encoder_graph(),
            "head": head or tiny_model.head_graph(),
        }
        for stem, graph in graphs.items():
            if target == "openvino":
                for suffix, packed in convert(graph).items():
                    (folder / f"{stem}{suffix}").write_bytes(packed)
            else:
                onnx.save(graph, folder / f"{stem}.onnx")
                if target != "onnx":
                    pack_graph(folder / f"{stem}.onnx")
        spec = tiny_model.spec
        suffix = {"onnx": "onnx", "openvino": "xml.gz"}.get(target, "onnx.gz")
        temperatures = Temperatures.read(manifest.get("temperatures", 2.0))
        write_golden(folder, _golden(spec, tiny_model, temperatures))
        black = np.zeros((1, *spec.video.shape[1:]), np.uint8)
        write_no_face(folder, tiny_model.encode(black)[0].astype(np.float32))
        content: dict[str, Any] = {
            "target": target,
            "precision": "fp32",
            "graphs": {stem: f"{stem}.{suffix}" for stem in graphs},
            "spec": spec.to_dict(),
            "face_detector": None,
            "temperatures": temperatures.to_dict(),
            "doubtful_margins": {"both": 1e-3, "audio": 1e-3, "video": 1e-3},
            "engine": {"inference_precision": "f32"} if target == "openvino" else {},
        }
        write_manifest(folder, content | manifest)
        return folder

    return write


def _golden(spec: Spec, model: TinyModel, temperatures: Temperatures) -> Golden:
    """A face without a voice, and a voice without a face."""
    generator = np.random.default_rng(0)
    crops = generator.integers(0, 256, (2, *spec.video.shape[1:]), np.uint8)
    mfcc = generator.normal(0, 60, spec.audio.shape).astype(np.float32)
    steps = np.arange(spec.video.frames)
    black = np.zeros(spec.video.shape, np.uint8)
    answers = np.stack(
        [
            model.classify(np.zeros_like(mfcc), model.encode(crops[steps % 2])),
            model.classify(mfcc, model.encode(black)),
        ]
    ).astype(np.float32)
    return Golden(
        cases=("voice missing", "face missing"),
        mfcc=np.stack([np.zeros_like(mfcc), mfcc]),
        crops=crops,
        sequence=np.stack([steps % 2, np.full_like(steps, -1)]),
        features=model.encode(crops).astype(np.float32),
        reference=answers,
        answers=answers,
        tolerance=1e-3,
        temperatures=temperatures,
        signal_mfcc=signal_mfcc(spec.audio),
        signal_crop=signal_crop(spec.video),
    )


@pytest.fixture(scope="module")
def recognizer(bundle: Path) -> Recognizer:
    """The exported bundle, on one thread."""
    return Recognizer.load(bundle, threads=1)


@pytest.fixture
def no_detector_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The face detector is the one that ships."""
    monkeypatch.delenv(DETECTOR_VARIABLE, raising=False)
