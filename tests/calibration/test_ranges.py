"""Ranges on disk, and the graphs they belong to."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mer_calibration import (
    CalibrationError,
    DialectRanges,
    LogitNoise,
    Noise,
    Range,
    Ranges,
    hash_graph,
)
from mer_calibration.graph.weights import Rounding
from mer_runtime.errors import OutputError

X86 = DialectRanges(
    tensors={
        "encoder": {
            "relu_1": Range(0.0, 6.1, 0.0, 9.5, 1 / 3e5),
            "conv": Range(-0.1, 1 / 3, -7.25, 4.0, 0.25),
        },
        "head": {"gate": Range(0.0, 1.0, 0.0, 1.0, 0.0)},
    },
    bias_correction=(0.000125, -1e-06, 0.0),
    float_layers=("stem",),
    noise=Noise(
        33.25,
        {
            "both": LogitNoise(0.125, 1 / 3, 0.25, 64),
            "audio": LogitNoise(0.0, 0.0, 0.0, 64),
            "video": LogitNoise(0.5, 2.5, 0.75, 60),
        },
    ),
)
#: Nothing that isn't needed.
ARM = DialectRanges({"encoder": {}, "head": {}}, (), (), Noise(-3.5, {}))
RANGES = Ranges(
    graphs={"encoder": "e" * 64, "head": "d" * 64},
    spec="5" * 64,
    exponents={"encoder": {"conv.weight": (0, -12, 3), "other.weight": ()}, "head": {}},
    roundings={"encoder": {"conv.weight": Rounding((0, 7), "AAAA")}, "head": {}},
    pixel_means=(121.25, 0.0, 255.0),
    dialects={"x86": X86, "arm": ARM},
    clips=48,
    clips_sha256="c" * 64,
    corpus="prüfkorpus",
)


@pytest.fixture
def data() -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(RANGES.to_dict()))
    return copy


def test_round_trip_through_a_file(tmp_path: Path) -> None:
    path = tmp_path / "ranges.json"
    RANGES.write(path)
    assert Ranges.read(path) == RANGES
    assert [p.name for p in tmp_path.iterdir()] == ["ranges.json"]


@given(numbers=st.lists(st.floats(0, 1e300), min_size=2, max_size=2).map(sorted))
def test_floats_come_back_exactly(numbers: list[float]) -> None:
    found = Range(-numbers[0], numbers[1], numbers[0], numbers[1], 0.125)
    noise = Noise(numbers[1], {"video": LogitNoise(numbers[0], numbers[1], numbers[0], 9)})
    ranges = dataclasses.replace(
        RANGES,
        graphs={"head": "d"},
        exponents={"head": {}},
        roundings={"head": {}},
        dialects={"arm": DialectRanges({"head": {"t": found}}, tuple(numbers), (), noise)},
    )
    assert Ranges.from_dict(json.loads(json.dumps(ranges.to_dict()))) == ranges


def test_file_is_the_same_whatever_the_order(tmp_path: Path) -> None:
    RANGES.write(tmp_path / "a.json")
    turned = {
        graph: dict(reversed(tensors.items())) for graph, tensors in reversed(X86.tensors.items())
    }
    other = dataclasses.replace(X86, tensors=turned)
    dataclasses.replace(RANGES, dialects={"arm": ARM, "x86": other}).write(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "ranges.json").mkdir()
    with pytest.raises(OutputError, match=r"can't write .*ranges\.json"):
        RANGES.write(tmp_path / "ranges.json")
    assert [p.name for p in tmp_path.iterdir()] == ["ranges.json"]


@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", "3", '{"format": 1}', '{"format": 4}', "\udcff"]
)
def test_unreadable_file_is_named(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "ranges.json"
    if content is not None:
        path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(CalibrationError, match=r"ranges\.json"):
        Ranges.read(path)


def edit(*keys: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return change


CONV = ("dialects", "x86", "tensors", "encoder", "conv")
EXPONENTS = ("exponents", "encoder", "conv.weight")
ROUNDING = ("roundings", "encoder", "conv.weight")
NOISE = ("dialects", "x86", "noise")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit("format", value=4), "format 4 can't be read (this version reads 1)"),
        (edit("extra", value=1), "extra is unknown"),
        (lambda data: data.pop("spec"), "spec is missing"),
        (edit("spec", value=5), "spec must be a text"),
        (edit("clips", value=0), "clips must be"),
        (edit("clips", value=True), "clips must be"),
        (edit("clips", value=4.0), "clips must be"),
        (edit("graphs", value=[]), "graphs must be an object"),
        (edit("graphs", "encoder", value=7), "graphs.encoder must be a digest"),
        (edit("graphs", "third", value="a"), "must be those of the graphs listed"),
        (edit("exponents", value={"head": {}}), "exponents must be those of the graphs listed"),
        (edit("exponents", "head", value=[]), "exponents.head must be an object"),
        (edit(*EXPONENTS, value=[1, 2]), "exponents.encoder.conv.weight must be a text"),
        (edit(*EXPONENTS, value="1 2.5"), "conv.weight must be whole numbers"),
        (edit("roundings", value={"head": {}}), "roundings must be those of the graphs listed"),
        (edit("roundings", "head", value=[]), "roundings.head must be an object"),
        (edit("roundings", "head", value={"a": 1}), "roundings.head.a must be an object"),
        (edit(*ROUNDING, "more", value=""), "conv.weight must be scales and steps"),
        (lambda data: data["roundings"]["encoder"]["conv.weight"].pop("steps"), "scales and steps"),
        (edit(*ROUNDING, "steps", value=0), "conv.weight.steps must be a text"),
        (edit(*ROUNDING, "scales", value=[0]), "conv.weight.scales must be a text"),
        (edit(*ROUNDING, "scales", value="0.5 1"), "conv.weight.scales must be whole numbers"),
        (edit("pixel_means", value=128), "pixel_means must be a list"),
        (edit("pixel_means", value=[128, 256, 0]), "pixel_means must be from 0 to 255"),
        (edit("pixel_means", value=[True] * 3), "pixel_means must be a finite number"),
        (edit("pixel_means", value=[float("nan")]), "pixel_means must be a finite number"),
        (edit("dialects", value=[]), "dialects must be an object"),
        (edit("dialects", "x86", value=3), "dialects.x86 must be an object"),
        (edit("dialects", "x86", "more", value=3), "dialects.x86: more is unknown"),
        (lambda data: data["dialects"]["arm"].pop("noise"), "dialects.arm: noise is missing"),
        (edit("dialects", "x86", "float_layers", value="a"), "x86.float_layers must be a list"),
        (edit("dialects", "x86", "float_layers", value=[1]), "must be names of layers"),
        (
            edit("dialects", "x86", "bias_correction", value=[0.5]),
            "x86.bias_correction must be a text",
        ),
        (
            edit("dialects", "x86", "bias_correction", value="0.5 x"),
            "x86.bias_correction must be finite numbers",
        ),
        (
            edit("dialects", "x86", "bias_correction", value="0.5 inf"),
            "x86.bias_correction must be finite numbers",
        ),
        (edit(*NOISE, value=33.0), "dialects.x86.noise must be an object"),
        (edit(*NOISE, "sqnr", value=None), "x86.noise.sqnr must be a finite number"),
        (edit(*NOISE, "logits", value=[]), "x86.noise.logits must be an object"),
        (edit(*NOISE, "logits", "smell", value={}), "noise.logits must be of both, audio, video"),
        (edit(*NOISE, "logits", "both", value=1), "noise.logits.both must be an object"),
        (edit(*NOISE, "logits", "both", value={}), "noise.logits.both: largest is missing"),
        (edit(*NOISE, "logits", "both", "rms", value="1"), "both.rms must be a finite number"),
        (
            edit("dialects", "x86", "tensors", value={"head": {}}),
            "dialects.x86.tensors must be those of the graphs listed",
        ),
        (edit(*CONV[:-1], value=[1]), "dialects.x86.tensors.encoder must be an object"),
        (edit(*CONV, value=3), "x86.tensors.encoder.conv must be an object"),
        (edit(*CONV, "more", value=3), "x86.tensors.encoder.conv: more is unknown"),
        (
            lambda data: data["dialects"]["x86"]["tensors"]["encoder"]["conv"].pop("low"),
            "low is missing",
        ),
        (edit(*CONV, "high", value="1"), "encoder.conv.high must be a finite number"),
        (edit(*CONV, "high", value=True), "encoder.conv.high must be a finite number"),
        (edit(*CONV, "high", value=float("nan")), "encoder.conv.high must be a finite number"),
        (edit(*CONV, "high", value=float("inf")), "encoder.conv.high must be a finite number"),
        (edit(*CONV, "low", value=0.1), "encoder.conv.low must be at most 0"),
        (edit(*CONV, "high", value=-0.1), "encoder.conv.low must be at most 0"),
        (edit(*CONV, "seen_low", value=99), "encoder.conv.seen_low must be at most seen_high"),
        (edit(*CONV, "clipped", value=1.1), "encoder.conv.clipped must be 0 to 1"),
    ],
)
def test_malformed_ranges_are_refused(
    change: Callable[[dict[str, Any]], Any], message: str, data: dict[str, Any]
) -> None:
    change(data)
    with pytest.raises(CalibrationError, match=re.escape(message)):
        Ranges.from_dict(data)


def test_dialects() -> None:
    assert RANGES.of("x86") is X86
    again = re.escape("mer-export CHECKPOINT --calibration CACHE")
    with pytest.raises(
        CalibrationError, match=f"no ranges for openvino, only for arm, x86: .*{again}"
    ):
        RANGES.of("openvino")
    replaced = RANGES.replace("arm", X86).replace("openvino", ARM)
    assert replaced.dialects == {"x86": X86, "arm": X86, "openvino": ARM}
    assert RANGES.dialects == {"x86": X86, "arm": ARM}, "the one replaced in is left alone"


def test_require() -> None:
    RANGES.require({"encoder": "e" * 64, "head": "d" * 64}, "5" * 64)
    RANGES.require({"head": "d" * 64}, "5" * 64)
    again = re.escape("mer-export CHECKPOINT --calibration CACHE")
    with pytest.raises(CalibrationError, match=f"another graph 'head'.*{again}"):
        RANGES.require({"encoder": "e" * 64, "head": "a" * 64}, "5" * 64)
    with pytest.raises(CalibrationError, match=f"no ranges of the graph 'clip'.*{again}"):
        RANGES.require({"clip": "a" * 64}, "5" * 64)
    with pytest.raises(CalibrationError, match=f"another preprocessing spec.*{again}"):
        RANGES.require({"encoder": "e" * 64}, "6" * 64)


# --- hash_graph -----------------------------------------------------------------------------


def make_graph(weight: float = 2.0, notes: str = "") -> onnx.ModelProto:
    """y = relu(weight * x), its relu inside a function; notes wherever ONNX allows some."""
    constant = numpy_helper.from_array(np.float32([weight]), "w")
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("x", "y")]
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["m"], "mul"),
        helper.make_node("Rectify", ["m"], ["y"], "rectify", domain="ours"),
    ]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ours", 1)]
    rectify = helper.make_function(
        "ours", "Rectify", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opsets[:1]
    )
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], [constant])
    model = helper.make_model(graph, opset_imports=opsets, functions=[rectify], ir_version=10)
    if notes:
        model.producer_name = model.producer_version = notes
        places: list[Any] = [
            model,
            model.graph,
            *model.graph.node,
            *model.graph.input,
            *model.graph.output,
            *model.graph.initializer,
            *model.functions,
            *model.functions[0].node,
        ]
        for place in places:
            place.doc_string = notes
            place.metadata_props.add(key="source", value=notes)
    return model


def test_hash_ignores_notes() -> None:
    plain, noted = make_graph(), make_graph(notes="made by me")
    before = noted.SerializeToString()
    assert hash_graph(plain) == hash_graph(noted)
    assert noted.SerializeToString() == before
    assert len(hash_graph(plain)) == 64


def test_hash_tells_graphs_apart() -> None:
    other = make_graph()
    other.graph.node[0].op_type = "Add"
    inner = make_graph()
    inner.functions[0].node[0].op_type = "Sigmoid"
    hashes = {hash_graph(m) for m in (make_graph(), make_graph(2.5), other, inner)}
    assert len(hashes) == 4


def test_hash_survives_a_file(tmp_path: Path) -> None:
    onnx.save(make_graph(), tmp_path / "g.onnx")
    assert hash_graph(onnx.load(tmp_path / "g.onnx")) == hash_graph(make_graph())
