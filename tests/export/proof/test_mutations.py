"""Faults planted in the shipped int8 model, each caught: by the golden inputs where they can show
it, by the checks of a graph or a bundle otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from mer import Checkpoint, load_checkpoint
from mer.evaluate.classifier import NetworkClassifier
from mer.weights import SHIPPED, shipped_checkpoint
from mer_calibration import DIALECTS, CalibrationError, Ranges, Recipe, SaturationError
from mer_calibration.graph import quantisation as quantisation_module
from mer_calibration.graph.dialects import DialectName
from mer_calibration.graph.grid import weight_scales, weight_steps
from mer_calibration.graph.weights import RoundedWeight, apply_roundings
from mer_calibration.recipe import ENCODER, Written
from mer_export.errors import GateError
from mer_export.feeds import hash_preprocessing
from mer_export.network.graphs import GraphNetwork, Graphs, export_graphs
from mer_export.proof.gate import check_golden
from mer_export.proof.golden import golden_reference
from mer_export.proof.limits import Limits, find_limits
from mer_export.ranges import find_ranges
from mer_runtime import Recognizer
from mer_runtime.bundle import load_bundle, shipped_bundle
from mer_runtime.feeds import MODALITIES, Temperatures
from mer_runtime.golden import Golden
from mer_runtime.proof.self_test import encode_crops, find_fault, replay
from mer_runtime.spec import Spec


@dataclass(frozen=True)
class Model:
    """A shipped checkpoint with its graphs, ranges and golden inputs."""

    checkpoint: Checkpoint
    floats: Graphs
    ranges: Ranges
    golden: Golden
    no_face: NDArray[np.float32]

    def limits(self, dialect: DialectName) -> Limits:
        return find_limits("int8", "onnx", self.ranges.of(dialect).noise)

    def write(self, dialect: DialectName) -> Written:
        return Recipe(dict(self.floats.items()), self.ranges).write(dialect)

    def open(self, written: Written | Graphs, kind: type[GraphNetwork] = GraphNetwork) -> Any:
        graphs = Graphs(written.encoder, written.head)
        return kind(graphs, self.checkpoint.spec, self.no_face)


@pytest.fixture(scope="module")
def models(graphs_once: None) -> Callable[[str], Model]:
    """Each fusion's, made once."""
    made: dict[str, Model] = {}

    def give(fusion: str) -> Model:
        if fusion not in made:
            path = shipped_checkpoint(fusion)
            checkpoint = load_checkpoint(path)
            floats = export_graphs(checkpoint)
            no_face = NetworkClassifier(checkpoint).no_face
            golden = golden_reference(checkpoint)
            made[fusion] = Model(checkpoint, floats, find_ranges(path), golden, no_face)
        return made[fusion]

    return give


@pytest.fixture(scope="module")
def ia(models: Callable[[str], Model]) -> Model:
    return models("ia")


@pytest.fixture(scope="module")
def right(ia: Model) -> Written:
    return ia.write("x86")


def check(model: Model, network: Any, dialect: DialectName = "x86") -> None:
    """Put a network's answers to the golden inputs to the gate."""
    spec, golden = model.checkpoint.spec, model.golden
    features = encode_crops(network, spec, golden)
    logits = replay(network, spec, model.no_face, golden, features)
    check_golden(golden, logits, features, model.limits(dialect))


# --- no false alarm -----------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_ships_passes(models: Callable[[str], Model], name: str, dialect: DialectName) -> None:
    model = models(name)
    written = model.write(dialect)
    check(model, model.open(written), dialect)


# --- faults of a graph, seen in its answers --------------------------------------------------


def change(model: ModelProto, name: str, edit: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    """Replace a constant."""
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    value = edit(numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(numpy_helper.from_array(value, name))


def names_of(model: ModelProto, part: str) -> list[str]:
    return [t.name for t in model.graph.initializer if part in t.name]


def swap_channels(written: Written) -> None:
    """Two outputs of the last convolution, weights, scales and bias."""
    for name in names_of(written.encoder, "encoder.conv5.0."):

        def swap(value: NDArray[Any]) -> NDArray[Any]:
            if value.ndim and value.shape[0] == 1024:
                value[[5, 9]] = value[[9, 5]]
            return value

        change(written.encoder, name, swap)


def drop_channel(written: Written) -> None:
    """Of the second stage, an input of all that follows."""

    def drop(value: NDArray[Any]) -> NDArray[Any]:
        value[int(np.abs(value.astype(int)).sum(axis=(1, 2, 3)).argmax())] = 0
        return value

    change(written.encoder, "encoder.stage2.units.2.3.weight_q", drop)


def widen_scale(written: Written) -> None:
    """A tensor is read with steps a tenth too wide."""
    change(written.encoder, "relu_scale", lambda scale: scale * np.float32(1.1))


def move_zero_point(written: Written, tensor: str) -> None:
    """What reads a tensor takes another zero-point than what made it."""
    part = written.encoder if tensor != "relu_1 of the head" else written.head
    graph = part.graph
    (name,) = (
        node.input[2]
        for node in graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] == tensor.split()[0]
    )
    (zero,) = (numpy_helper.to_array(t) for t in graph.initializer if t.name == name)
    graph.initializer.append(numpy_helper.from_array(zero + zero.dtype.type(1), "moved"))
    readers = [n for n in graph.node if n.op_type == "DequantizeLinear" and name in n.input]
    assert readers
    for node in readers:
        node.input[2] = "moved"


def leave_out_layer(written: Written) -> None:
    """A depthwise convolution of the third stage hands its input on."""
    graph = written.encoder.graph
    (node,) = (
        n
        for n in graph.node
        if n.op_type == "Conv" and "stage3.units.3.2.weight" in " ".join(n.input)
    )
    data, output = node.input[0], node.output[0]
    graph.node.remove(node)
    for other in graph.node:
        for i, name in enumerate(other.input):
            if name == output:
                other.input[i] = data


def turn_colours(written: Written) -> None:
    """The first convolution takes red for blue: of four joined pixels each."""
    (name,) = names_of(written.encoder, "encoder.stem.0.weight_q")

    def turn(value: NDArray[Any]) -> NDArray[Any]:
        pixels = value.reshape(len(value), -1, 3, *value.shape[2:])
        return np.ascontiguousarray(pixels[:, :, ::-1]).reshape(value.shape)

    change(written.encoder, name, turn)


def change_correction(written: Written) -> None:
    """One feature in ten gets what belongs to the next."""
    change(
        written.encoder,
        "features_correction",
        lambda correction: np.roll(correction, 1) + np.float32(0.05),
    )


def shift_bias(written: Written) -> None:
    """A bias of another channel in the head."""
    (name,) = names_of(written.head, "audio_model.conv1d_2.0.bias_q")
    change(written.head, name, lambda bias: np.roll(bias, 1))


FAULTS: dict[str, Callable[[Written], None]] = {
    "swapped channels": swap_channels,
    "dropped channel": drop_channel,
    "wrong scale": widen_scale,
    "layer left out": leave_out_layer,
    "BGR for RGB in the graph": turn_colours,
    "stale bias correction": change_correction,
    "bias of another channel": shift_bias,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_of_a_graph(ia: Model, right: Written, fault: str) -> None:
    wrong = dataclasses.replace(right, encoder=copy(right.encoder), head=copy(right.head))
    FAULTS[fault](wrong)
    with pytest.raises(GateError):
        check(ia, ia.open(wrong))


#: Early and late, behind a ReLU and signed, and one of the head.
MOVED = ("relu", "conv2d_4", "conv2d_27", "conv2d_39", "relu_24", "relu_45", "relu_1 of the head")


@pytest.mark.parametrize("tensor", MOVED)
def test_zero_point_off_by_one(ia: Model, right: Written, tensor: str) -> None:
    wrong = dataclasses.replace(right, encoder=copy(right.encoder), head=copy(right.head))
    move_zero_point(wrong, tensor)
    with pytest.raises(GateError):
        check(ia, ia.open(wrong))


def copy(model: ModelProto) -> ModelProto:
    copied = ModelProto()
    copied.CopyFrom(model)
    return copied


def test_head_of_another_fusion(models: Callable[[str], Model], ia: Model) -> None:
    wrong = Graphs(ia.write("x86").encoder, models("it").write("x86").head)
    with pytest.raises(GateError):
        check(ia, ia.open(wrong))


class OneFrame(GraphNetwork):
    """An engine that reads the first crop of a batch again and again."""

    def encode(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        return super().encode(np.repeat(faces[:1], len(faces), axis=0))


class SameFeature(GraphNetwork):
    """A head that sees a window's first frame 15 times."""

    def classify(
        self, mfcc: NDArray[np.float32] | None, features: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        assert features is not None
        return super().classify(mfcc, np.repeat(features[:1], len(features), axis=0))


@pytest.mark.parametrize("kind", [OneFrame, SameFeature])
def test_one_frame_repeated(ia: Model, right: Written, kind: type[GraphNetwork]) -> None:
    with pytest.raises(GateError):
        check(ia, ia.open(right, kind))


def test_stale_ranges(ia: Model) -> None:
    """Ranges of weights before some more training are refused by their hash; where that is
    forged, the answers give them away."""
    tuned = Graphs(copy(ia.floats.encoder), ia.floats.head)
    for name in ("encoder.conv5.0.weight", "encoder.conv5.0.bias"):
        change(tuned.encoder, name, lambda value: value * np.float32(1.5))
    with pytest.raises(CalibrationError, match="another graph 'encoder'"):
        ia.ranges.require(tuned.hashes(), hash_preprocessing(ia.checkpoint.spec))
    written = Recipe(dict(tuned.items()), ia.ranges).write("x86")
    floats = ia.open(tuned)
    golden = dataclasses.replace(
        ia.golden,
        features=encode_crops(floats, ia.checkpoint.spec, ia.golden),
        reference=replay(floats, ia.checkpoint.spec, ia.no_face, ia.golden),
    )
    with pytest.raises(GateError):
        check(dataclasses.replace(ia, golden=golden), ia.open(written))


def test_saturating_weights(ia: Model) -> None:
    """Each weight at its nearest step on the finest scales, as before there was a rule."""
    recipe = Recipe(dict(ia.floats.items()), ia.ranges)
    equal, ranges = recipe.equal[ENCODER], ia.ranges.of("x86").tensors[ENCODER]
    nearest = {}
    for name, rounded in apply_roundings(equal, ia.ranges.roundings[ENCODER]).items():
        (tensor,) = (t for t in equal.graph.initializer if t.name == name)
        weight = numpy_helper.to_array(tensor)
        scales = weight_scales(weight, rounded.axis)
        steps = weight_steps(weight, scales, rounded.axis)
        nearest[name] = RoundedWeight(steps, scales, rounded.axis)
    with pytest.raises(SaturationError, match=r"layer 'encoder\.\S+' can overflow.*channel \d+"):
        quantisation_module.quantise_graph(
            equal, ranges, DIALECTS["x86"], (), ia.ranges.pixel_means, nearest
        )


# --- faults of a bundle, seen before it answers ------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda spec: replace(spec, "audio", sample_rate=22_050, hop_length=708), "MFCCs"),
        (lambda spec: replace(spec, "audio", top_db=60.0), "MFCCs"),
        (lambda spec: replace(spec, "video", colour="bgr"), "pixels"),
        (lambda spec: replace(spec, "video", margin=0.1), "pixels"),
    ],
    ids=["MFCCs of another rate", "MFCCs cut off elsewhere", "BGR for RGB", "wrong crop"],
)
def test_fault_of_preprocessing(spoil: Callable[[Spec], Spec], told: str) -> None:
    bundle = load_bundle("ia-int8")
    assert find_fault(bundle, bundle.golden()) == ""
    wrong = dataclasses.replace(bundle, spec=spoil(bundle.spec))
    assert wrong.spec.audio.shape == bundle.spec.audio.shape, "else it is refused by its shape"
    assert told in find_fault(wrong, bundle.golden())


def replace(spec: Spec, part: str, **changes: Any) -> Spec:
    return dataclasses.replace(spec, **{part: dataclasses.replace(getattr(spec, part), **changes)})


def test_wrong_resize(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest pixel in place of a blend of four."""
    import cv2

    bundle = load_bundle("ia-int8")
    monkeypatch.setattr(cv2, "INTER_LINEAR", cv2.INTER_NEAREST)
    assert "pixels" in find_fault(bundle, bundle.golden())


def test_temperature_lost() -> None:
    bundle = load_bundle("ia-int8")
    for shown in MODALITIES:
        others = bundle.temperatures.to_dict() | {shown: 1.5}
        wrong = dataclasses.replace(bundle, temperatures=Temperatures(**others))
        fault = f"temperature 1.5 of {shown} is not the one proved"
        assert fault in find_fault(wrong, bundle.golden())


def test_shipped_bundle_proves_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With nothing remembered."""
    monkeypatch.setenv("MER_CACHE", str(tmp_path))
    path = shipped_bundle("ia-int8")
    assert path is not None
    assert Recognizer.load(path).self_test().passed
