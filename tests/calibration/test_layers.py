"""Noise by layer, measured on real float and quantised graphs."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mer_calibration import (
    CalibrationError,
    Layer,
    asymmetric_grid,
    compare_tensors,
    format_layers,
    layers_to_dicts,
)

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


LAYERS = [
    Layer("encoder", "stem.0", "Conv", "relu", 0.0, 6.25, "mse", 0.0, 41.26, 7.5, {}),
    Layer(
        *("head", "gate", "Gemm", "sigmoid", 0.0, 1.0, "minmax", 0.0, math.inf, 0.0),
        {"both": 1.25, "audio": 100.0, "video": 0.0},
    ),
    Layer(
        "encoder", "a.long.name", "MatMul", "m", -12.5, 1234.5, "percentile", 1e-4, 9.0, 92.5, {}
    ),
]


def test_table() -> None:
    assert format_layers(LAYERS).splitlines() == [
        "share %  both %  audio %  video %  SQNR dB  clipped %    low  high"
        "  method      graph    op      layer",
        "  92.50       -        -        -      9.0      0.010  -12.5  1234"
        "  percentile  encoder  MatMul  a.long.name",
        "   7.50       -        -        -     41.3      0.000      0  6.25"
        "  mse         encoder  Conv    stem.0",
        "   0.00    1.25   100.00     0.00      inf      0.000      0     1"
        "  minmax      head     Gemm    gate",
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
        "method": "percentile",
        "clipped": 1e-4,
        "sqnr": 9.0,
        "error_share": 92.5,
        "shares": {},
    }
    assert rows[2]["sqnr"] is None
    assert rows[2]["shares"] == {"both": 1.25, "audio": 100.0, "video": 0.0}
