"""Noise by layer, measured on real float and quantised graphs."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mer_calibration import (
    DIALECTS,
    CalibrationError,
    Layer,
    Range,
    asymmetric_grid,
    compare_tensors,
    format_layers,
    layers_to_dicts,
)
from mer_calibration.graph.dialects import DialectName
from mer_calibration.graph.weights import apply_roundings
from mer_calibration.measure.equalisation import equalise, find_exponents, measure_peaks
from mer_calibration.measure.gptq import find_roundings
from mer_calibration.report.layers import measure_layers

GRID = asymmetric_grid(0, 8)


def make_model(quantised: bool) -> onnx.ModelProto:
    """x, a ReLU of it, and twice that; quantised, the ReLU's output on ``GRID``."""
    constants = [numpy_helper.from_array(np.float32(2), "two")]
    nodes = [helper.make_node("Relu", ["x"], ["r"], "relu")]
    source = "r"
    if quantised:
        constants += [
            numpy_helper.from_array(np.float32(GRID.scale), "scale"),
            numpy_helper.from_array(np.uint8(GRID.zero_point), "zero"),
        ]
        nodes += [
            helper.make_node("QuantizeLinear", ["r", "scale", "zero"], ["q"], "q"),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["r_dq"], "dq"),
        ]
        source = "r_dq"
    nodes += [
        helper.make_node("Mul", [source, "two"], ["y"], "double"),
        helper.make_node("ReduceSum", [source], ["total"], "sum", keepdims=0),
    ]
    infos = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n"]) for n in ("x", "y")}
    total = helper.make_tensor_value_info("total", TensorProto.FLOAT, [])
    graph = helper.make_graph(nodes, "g", [infos["x"]], [infos["y"], total], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


@pytest.fixture(scope="module")
def models() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    return make_model(quantised=False), make_model(quantised=True)


def give(*arrays: Any) -> list[dict[str, NDArray[Any]]]:
    return [{"x": np.asarray(array, np.float32)} for array in arrays]


def test_noise_is_summed_over_samples(models: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    generator = np.random.default_rng(0)
    arrays = [generator.normal(0, 2, n).astype(np.float32) for n in (1000, 10, 3000)]
    found = compare_tensors(*models, {"r": "r_dq", "y": "y", "x": "x"}, give(*arrays), threads=1)
    rectified = np.maximum(np.concatenate(arrays), 0).astype(np.float64)
    noise = np.square(GRID.round_trip(rectified) - rectified).sum()
    expected = 10 * math.log10(np.square(rectified).sum() / noise)
    # Grid and ONNX Runtime agree exactly, sums of float64 to their last digits.
    assert found["r"] == pytest.approx(expected, rel=1e-9)
    assert found["y"] == pytest.approx(expected, rel=1e-9)  # a factor changes no ratio
    assert found["x"] == math.inf
    # Uniform noise of a step 8 / 255 on a mean square of 2: about 44 dB.
    assert found["r"] == pytest.approx(10 * math.log10(2 / ((8 / 255) ** 2 / 24)), abs=1)


def test_silence_and_lost_signal(models: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    assert compare_tensors(*models, {"r": "r_dq"}, give([-1, -2])) == {"r": math.inf}
    assert compare_tensors(*models, {"r": "x"}, give([-1, -2])) == {"r": -math.inf}


def test_misuse(models: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    with pytest.raises(CalibrationError, match="no sample to compare on"):
        compare_tensors(*models, {"r": "r_dq"}, [])
    with pytest.raises(CalibrationError, match="no activation 'r_dq'"):
        compare_tensors(*models, {"r_dq": "r"}, give([1]))
    with pytest.raises(CalibrationError, match="no activation 'nowhere'"):
        compare_tensors(*models, {"r": "nowhere"}, give([1]))
    with pytest.raises(CalibrationError, match=r"sample 2: 'r' of .* 'r_dq' of .*not both finite"):
        compare_tensors(*models, {"r": "r_dq"}, give([1], [np.inf]))
    with pytest.raises(CalibrationError, match=r"differ in shape: \(2,\) and \(\)"):
        compare_tensors(*models, {"r": "total"}, give([1, 2]))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_layer_is_described(
    net: onnx.ModelProto,
    feeds: list[dict[str, NDArray[Any]]],
    ranges_of: Callable[..., dict[str, Range]],
    dialect: DialectName,
) -> None:
    """Also where a dialect doesn't round what a layer puts out, or folds zero-points."""
    ranges = ranges_of(net, feeds)
    found = measure_layers("encoder", net, ranges, DIALECTS[dialect], {}, feeds)
    tensors = {layer.tensor: layer for layer in found}
    # ``fc`` gives the graph's output, which isn't rounded.
    assert list(tensors) == ["stem_relu", "left_relu", "right_relu", "join_relu"]
    assert [layer.name for layer in found] == [
        f"{name}.weight" for name in ("stem", "left", "right", "join")
    ]
    for tensor, layer in tensors.items():
        assert (layer.graph, layer.op_type) == ("encoder", "Conv")
        assert (layer.low, layer.high) == (ranges[tensor].low, ranges[tensor].high)
        assert layer.clipped == ranges[tensor].clipped == 0
        # Rounding to 256 steps leaves some 40 dB, four layers of it still over 25.
        assert 25 < layer.sqnr < 60


def test_real_encoder_is_described(
    encoder: onnx.ModelProto,
    crops: dict[str, NDArray[Any]],
    ranges_of: Callable[..., dict[str, Range]],
) -> None:
    """Channels of it are made alike where a sum reads what was joined in space."""
    equal = equalise(encoder, find_exponents(encoder, measure_peaks(encoder, [crops])))
    assert any(node.name.endswith("_restored_mul") for node in equal.graph.node)
    ranges = ranges_of(equal, [crops])
    found = measure_layers("encoder", equal, ranges, DIALECTS["x86"], {}, [crops])
    assert len(found) == 68
    assert all(math.isfinite(layer.sqnr) for layer in found)


def test_noise_of_rounded_weights_is_seen(
    net: onnx.ModelProto,
    feeds: list[dict[str, NDArray[Any]]],
    ranges_of: Callable[..., dict[str, Range]],
) -> None:
    ranges, dialect = ranges_of(net, feeds), DIALECTS["x86"]
    rounded = apply_roundings(net, find_roundings(net, feeds, threads=1))
    spoilt = dict(rounded)
    left = rounded["left.weight"]
    spoilt["left.weight"] = dataclasses.replace(left, steps=left.steps // 2)
    fine, worse = (
        {
            layer.tensor: layer.sqnr
            for layer in measure_layers("encoder", net, ranges, dialect, weights, feeds)
        }
        for weights in (rounded, spoilt)
    )
    assert worse["left_relu"] < fine["left_relu"] - 10
    assert worse["join_relu"] < fine["join_relu"], "what follows has that noise in it"
    for other in ("stem_relu", "right_relu"):
        assert worse[other] == fine[other]


LAYERS = [
    Layer("encoder", "stem.0", "Conv", "relu", 0.0, 6.25, 0.0, 41.26),
    Layer("head", "gate", "Gemm", "sigmoid", 0.0, 1.0, 0.0, math.inf),
    Layer("encoder", "a.long.name", "MatMul", "m", -12.5, 1234.5, 1e-4, 9.0),
]


def test_table() -> None:
    assert format_layers(LAYERS).splitlines() == [
        "SQNR dB  clipped %    low  high  graph    op      layer",
        "    9.0      0.010  -12.5  1234  encoder  MatMul  a.long.name",
        "   41.3      0.000      0  6.25  encoder  Conv    stem.0",
        "    inf      0.000      0     1  head     Gemm    gate",
    ]
    assert format_layers([]).split() == format_layers(LAYERS).splitlines()[0].split()


def test_dicts_are_json() -> None:
    rows = json.loads(json.dumps(layers_to_dicts(LAYERS), allow_nan=False))
    assert [row["name"] for row in rows] == ["a.long.name", "stem.0", "gate"]
    assert rows[0] == {
        "graph": "encoder",
        "name": "a.long.name",
        "op_type": "MatMul",
        "tensor": "m",
        "low": -12.5,
        "high": 1234.5,
        "clipped": 1e-4,
        "sqnr": 9.0,
    }
    assert rows[2]["sqnr"] is None
