"""The deployment graphs against the PyTorch network."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from mer import Checkpoint, load_checkpoint
from mer.models import Standardiser, build_model
from mer_export.network.deploy import ReferenceNet, export_encoder, export_head
from mer_export.network.encoder import DeploymentEncoder
from mer_export.network.graphs import Graphs, export_graphs
from mer_export.network.head import DeploymentHead
from mer_runtime.spec import AudioSpec, Spec, VideoSpec

#: Float32 sums in another order: about 1e-6 of logits that reach 80 on noise.
RTOL, ATOL = 1e-5, 1e-4


def run(model: ModelProto, **inputs: NDArray[Any]) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return np.asarray(session.run(None, inputs)[0])


def infer(graphs: Graphs, mfcc: NDArray[np.float32], faces: NDArray[np.uint8]) -> Any:
    features = run(graphs.encoder, faces=faces)
    return run(graphs.head, mfcc=mfcc[None], features=features[None])[0]


def random_window(spec: Any, seed: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    generator = np.random.default_rng(seed)
    mfcc = generator.normal(0, 60, spec.audio.shape).astype(np.float32)
    faces = generator.integers(0, 256, spec.video.shape, np.uint8)
    return mfcc, faces


def test_graphs_answer_as_pytorch_does(exported: tuple[Checkpoint, Graphs], answer: Any) -> None:
    checkpoint, graphs = exported
    answers = []
    for seed in range(2):
        mfcc, faces = random_window(checkpoint.spec, seed)
        logits = infer(graphs, mfcc, faces)
        np.testing.assert_allclose(logits, answer(checkpoint, mfcc, faces), rtol=RTOL, atol=ATOL)
        answers.append(logits)
    assert np.ptp(answers, axis=0).max() > 0.1, "the inputs make no difference"


@pytest.mark.parametrize("missing", ["voice", "face"])
def test_missing_modality_is_raw_zeros(
    exported: tuple[Checkpoint, Graphs], answer: Any, missing: str
) -> None:
    checkpoint, graphs = exported
    mfcc, faces = random_window(checkpoint.spec, 2)
    whole = infer(graphs, mfcc, faces)
    (mfcc if missing == "voice" else faces)[...] = 0
    logits = infer(graphs, mfcc, faces)
    np.testing.assert_allclose(logits, answer(checkpoint, mfcc, faces), rtol=RTOL, atol=ATOL)
    assert np.abs(logits - whole).max() > 0.1


@torch.inference_mode()
@pytest.mark.parametrize("fusion", ["ia", "it", "lt"])
@pytest.mark.parametrize("seed", range(3))
def test_same_function_whatever_the_weights(fusion: Any, seed: int) -> None:
    """Random weights and batch statistics, in float64, where rounding hides nothing; the spec's
    constants are such as float32 holds."""
    generator = np.random.default_rng(seed)
    spec = Spec(
        fusion=fusion,
        num_heads=4 if fusion != "ia" else 1,
        audio=AudioSpec(
            mean=tuple(map(float, generator.integers(-100, 100, 10))),
            std=tuple(map(float, generator.integers(5, 100, 10))),
        ),
        video=VideoSpec(
            frames=3,
            size=64,
            scale=2.0**-8,
            mean=tuple(generator.integers(10, 40, 3) / 64) if seed else (0.0,) * 3,
            std=tuple(2.0 ** -generator.integers(0, 3, 3)),
        ),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(spec).double()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.momentum = 1.0
                module.weight.uniform_(-1.5, 1.5)
                module.bias.normal_(0, 0.5)
        mfcc = torch.randn(4, *spec.audio.shape).double() * 60
        faces = torch.randint(0, 256, (4, 3, 8, 8, 3)).double()
    faces = faces.repeat_interleave(8, 2).repeat_interleave(8, 3)
    standardised = Standardiser(spec).double()(mfcc, faces)
    model(*standardised)
    model.eval()
    expected = model(*standardised)
    checkpoint = Checkpoint(model, spec)
    encoder = DeploymentEncoder(model.visual_model, spec.video).eval()
    features = encoder(faces.flatten(0, 1)).unflatten(0, (4, 3))
    logits = DeploymentHead(checkpoint).double().eval()(mfcc, features)
    assert expected.std(dim=0).max() > 0.01, "the inputs make no difference"
    assert (logits - expected).abs().max() <= 1e-10 * expected.abs().max()


def test_standardisation_is_inside(small_model: Any) -> None:
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
    torch.testing.assert_close(logits, expected, rtol=RTOL, atol=ATOL)


def test_any_number_of_crops_gives_the_same_features(
    fitted: tuple[Path, Path], graphs_once: None
) -> None:
    graphs = export_graphs(load_checkpoint(fitted[0]))
    crops = np.random.default_rng(0).integers(0, 256, (15, 32, 32, 3), np.uint8)
    alone = np.concatenate([run(graphs.encoder, faces=crops[i : i + 1]) for i in range(15)])
    assert np.ptp(alone, axis=0).max() > 0.01
    for count in range(1, 16):
        features = run(graphs.encoder, faces=crops[:count])
        assert features.shape == (count, 1024)
        # Kernels for other batches sum in another order.
        np.testing.assert_allclose(features, alone[:count], rtol=1e-4, atol=1e-5)


def test_shapes_of_inputs_and_outputs(exported: tuple[Checkpoint, Graphs]) -> None:
    def shapes(model: ModelProto) -> dict[str, tuple[Any, ...]]:
        return {
            value.name: tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
            for value in (*model.graph.input, *model.graph.output)
        }

    _, graphs = exported
    assert shapes(graphs.encoder) == {
        "faces": ("crops", 224, 224, 3),
        "features": ("crops", 1024),
    }
    assert shapes(graphs.head) == {
        "mfcc": (1, 10, 113),
        "features": (1, 15, 1024),
        "logits": (1, 8),
    }


def test_encoder_leaves_the_number_of_crops_alone(exported: tuple[Checkpoint, Graphs]) -> None:
    """Nothing computes with shapes, and no shuffle or batch normalisation is left."""
    _, graphs = exported
    for model in (graphs.encoder, graphs.head):
        kinds = {node.op_type for node in model.graph.node}
        assert kinds.isdisjoint({"Shape", "Expand", "Tile", "Gather", "BatchNormalization"})
    kinds = {node.op_type for node in graphs.encoder.graph.node}
    assert "Reshape" not in kinds
    # NHWC to NCHW, once, at the start.
    assert sum(node.op_type == "Transpose" for node in graphs.encoder.graph.node) == 1


def test_graphs_name_no_machine(exported: tuple[Checkpoint, Graphs]) -> None:
    for _, model in exported[1].items():
        data = model.SerializeToString()
        for trace in (b".py", b"site-packages", str(Path.home()).encode() + b"/"):
            assert trace not in data


def test_same_checkpoint_gives_the_same_bytes(small_model: Any, graphs_once: None) -> None:
    """Traced again in the same process, and the names of tensors with it."""
    checkpoint = Checkpoint(*small_model)
    first = export_graphs(checkpoint)
    assert export_encoder(checkpoint).SerializeToString() == first.encoder.SerializeToString()
    assert export_head(checkpoint).SerializeToString() == first.head.SerializeToString()


def test_graphs_pass_onnx_own_check(exported: tuple[Checkpoint, Graphs]) -> None:
    for _, model in exported[1].items():
        onnx.checker.check_model(model, full_check=True)
        assert {entry.version for entry in model.opset_import if not entry.domain} == {18}


def test_spec_of_another_colour_order_needs_no_other_graph(small_model: Any) -> None:
    """Colours are put in order before the graph; its hash doesn't know them."""
    model, spec = small_model
    bgr = dataclasses.replace(spec, video=dataclasses.replace(spec.video, colour="bgr"))
    first, second = (DeploymentEncoder(model.visual_model, s.video) for s in (spec, bgr))
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)
