"""The deployment graph against the PyTorch network, in ONNX Runtime and in OpenVINO."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from mer import Checkpoint
from mer.models import build_model
from mer_export.deploy import ReferenceNet, export_onnx
from mer_export.golden import answer

#: Float32 sums in another order: about 1e-6 of logits that reach 80 on noise.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-4}


@pytest.fixture(scope="module", params=["ia", "it", "lt"])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, small_model: Any
) -> tuple[Checkpoint, Path]:
    model, spec = small_model
    if request.param != "ia":
        spec = dataclasses.replace(spec, fusion=request.param, num_heads=4)
        torch.manual_seed(3)
        head = build_model(spec).eval()
        shared = {n: v for n, v in model.state_dict().items() if n in head.state_dict()}
        head.load_state_dict(shared, strict=False)
        model = head
    checkpoint = Checkpoint(model, spec, {})
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    export_onnx(checkpoint, path)
    return checkpoint, path


def random_window(spec: Any, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    mfcc = generator.normal(0, 60, spec.audio.shape).astype(np.float32)
    faces = generator.integers(0, 256, spec.video.shape, np.uint8)
    return mfcc, faces


def test_graph_answers_as_pytorch_does(exported: tuple[Checkpoint, Path]) -> None:
    checkpoint, path = exported
    session = onnxruntime.InferenceSession(str(path))
    answers = []
    for seed in range(3):
        mfcc, faces = random_window(checkpoint.spec, seed)
        logits = session.run(["logits"], {"mfcc": mfcc[None], "faces": faces[None]})[0][0]
        np.testing.assert_allclose(logits, answer(checkpoint, mfcc, faces), **TOLERANCE)
        answers.append(logits)
    assert np.ptp(answers, axis=0).max() > 0.1, "the inputs make no difference"


def test_standardisation_is_inside_the_graph(small_model: Any) -> None:
    """The graph's raw inputs, standardised by hand, give the bare network's answer."""
    model, spec = small_model
    mfcc, faces = random_window(spec, 0)
    audio = (mfcc - np.array(spec.audio.mean)[:, None]) / np.array(spec.audio.std)[:, None]
    video = (faces / 255 - np.array(spec.video.mean)) / np.array(spec.video.std)
    with torch.inference_mode():
        expected = model(
            torch.tensor(audio[None], dtype=torch.float32),
            torch.tensor(video.transpose(0, 3, 1, 2)[None], dtype=torch.float32),
        )
        logits = ReferenceNet(Checkpoint(model, spec))(
            torch.tensor(mfcc[None]), torch.tensor(faces[None])
        )
    torch.testing.assert_close(logits, expected, **TOLERANCE)


def test_graph_is_static_and_names_no_machine(exported: tuple[Checkpoint, Path]) -> None:
    _, path = exported
    model = onnx.load(path)
    shapes = {
        value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"mfcc": (1, 10, 113), "faces": (1, 15, 224, 224, 3), "logits": (1, 8)}
    data = path.read_bytes()
    for trace in (b".py", b"site-packages", str(Path.home()).encode() + b"/"):
        assert trace not in data


def test_same_checkpoint_gives_the_same_bytes(
    exported: tuple[Checkpoint, Path], tmp_path: Path
) -> None:
    checkpoint, path = exported
    export_onnx(checkpoint, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()
