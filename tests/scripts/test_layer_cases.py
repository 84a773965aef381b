"""Layers cut out of a quantised graph, and the inputs that are worst for them.

On this machine's engines; what saturates is computed in numpy here, and in QEMU where it is.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Load = Callable[[str], ModuleType]

#: Weight's shape and attributes.
CONVOLUTIONS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "pointwise": ((16, 32, 1, 1), {}),
    "strided": ((16, 16, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "dilated": ((16, 16, 3, 3), {"dilations": [2, 2], "pads": [2, 2, 2, 2]}),
    "joined pixels": ((32, 12, 3, 2), {"strides": [2, 1], "pads": [1, 1, 0, 0]}),
    "depthwise": ((16, 1, 3, 3), {"group": 16, "pads": [1, 1, 1, 1]}),
    "in one dimension": ((16, 32, 3), {"pads": [1, 1]}),
}
LAYERS = [*CONVOLUTIONS, "MatMul"]


def write_graph(
    name: str, dtype: str = "uint8", *, most: int = 64, integer_bias: bool = True
) -> onnx.ModelProto:
    """A layer between Q/DQ pairs, behind a transposition that moves dequantised values.

    Pairs of weights sum to ``2 * most`` at most.
    """
    generator = np.random.default_rng(0)
    shape, attributes = CONVOLUTIONS.get(name, ((32, 24), {}))
    is_conv = name in CONVOLUTIONS
    channels = shape[0] if is_conv else shape[1]
    kind = np.iinfo(dtype)
    zero_point = np.array((int(kind.min) + int(kind.max) + 1) // 2 + 3, dtype)
    constants: dict[str, NDArray[Any]] = {
        "weight": generator.integers(-most, most + 1, shape).astype(np.int8),
        "weight_scale": generator.uniform(0.001, 0.01, channels).astype(np.float32),
        "data_scale": np.array(0.05, np.float32),
        "zero_point": zero_point,
        "output_scale": np.array(0.1, np.float32),
        "lowest": np.array(kind.min, dtype),  # so that rounding does the ReLU's work
    }
    order = [0, 1, *range(2, len(shape))] if is_conv else [0, 1]
    nodes = [
        helper.make_node("QuantizeLinear", ["data", "data_scale", "zero_point"], ["data_q"]),
        helper.make_node("DequantizeLinear", ["data_q", "data_scale", "zero_point"], ["data_dq"]),
        helper.make_node("Transpose", ["data_dq"], ["moved"], perm=order),
        helper.make_node(
            "DequantizeLinear", ["weight", "weight_scale"], ["weight_dq"], axis=int(not is_conv)
        ),
    ]
    inputs = ["moved", "weight_dq"]
    if is_conv:
        bias = generator.integers(-5000, 5000, channels).astype(np.int32)
        constants["bias_scale"] = constants["data_scale"] * constants["weight_scale"]
        if integer_bias:
            constants["bias"] = bias
            dequantise = ["bias", "bias_scale"]
            nodes.append(helper.make_node("DequantizeLinear", dequantise, ["bias_dq"], axis=0))
            inputs.append("bias_dq")
        else:
            constants["bias"] = (bias * constants["bias_scale"]).astype(np.float32)
            inputs.append("bias")
    nodes += [
        helper.make_node("Conv" if is_conv else "MatMul", inputs, ["sums"], **attributes),
        helper.make_node("Relu", ["sums"], ["rectified"]),
        helper.make_node("QuantizeLinear", ["rectified", "output_scale", "lowest"], ["out"]),
    ]
    wide = [None] * len(shape)
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, wide)],
        [
            helper.make_tensor_value_info(
                "out", helper.np_dtype_to_tensor_dtype(zero_point.dtype), wide
            )
        ],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def read_layer(load_script: Load, model: onnx.ModelProto) -> Any:
    (layer,), products = load_script("integer_layers").find_integer_layers(model)
    assert not products
    return layer


def test_layer_is_read_from_its_graph(load_script: Load) -> None:
    layer = read_layer(load_script, write_graph("strided"))
    assert layer.name == "Conv 16x16x3x3 strides 2 uint8 to uint8 with ReLU"
    assert (layer.data.zero_point, layer.data.ends) == (131, (0, 255))
    assert layer.pads == [(1, 1), (1, 1)]
    assert layer.integer_bias
    assert np.abs(layer.bias).max() == pytest.approx(2.1, rel=0.3)  # float, not steps
    plain = read_layer(load_script, write_graph("strided", integer_bias=False))
    assert not plain.integer_bias
    assert np.allclose(plain.bias, layer.bias)
    assert read_layer(load_script, write_graph("MatMul")).rows.shape == (24, 32)


def test_product_of_two_activations_is_found(load_script: Load) -> None:
    model = write_graph("MatMul")
    graph = model.graph
    (weight,) = (t for t in graph.initializer if t.name == "weight")
    graph.initializer.remove(weight)
    graph.input.append(helper.make_tensor_value_info("weight", TensorProto.INT8, [32, 24]))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), "weight_zero"))
    (pair,) = (node for node in graph.node if node.output[0] == "weight_dq")
    pair.input[1:] = ["data_scale", "weight_zero"]
    layers, (product,) = load_script("integer_layers").find_integer_layers(model)
    assert not layers
    assert product.name == "MatMul uint8 by int8"
    case = load_script("layer_cases").make_product_case(product)
    first, second = case.inputs["first"].astype(np.int64), case.inputs["second"].astype(np.int64)
    assert np.array_equal(case.low, first @ second)
    assert case.low.max() == 128 * (255 - 131) * 127  # extremes throughout


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
@pytest.mark.parametrize("name", LAYERS)
def test_engines_are_right_where_nothing_can_overflow(
    load_script: Load, tmp_path: Path, engine: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever this machine's processor is: pairs sum to 128 at most."""
    for dtype, integer_bias in (("uint8", True), ("int8", True), ("uint8", False)):
        if engine == "onnx" and not (dtype == "uint8" and integer_bias):
            continue  # it computes other layers in float on x86
        layer = read_layer(load_script, write_graph(name, dtype, integer_bias=integer_bias))
        for number, case in enumerate(load_script("layer_cases").make_cases(layer)):
            case.write(tmp_path, number)
        load_script("drive_layers").main(engine, str(tmp_path))
    said = capsys.readouterr().out
    assert said.count('"name"') == said.count('"wrong": 0,') >= 3, said


def saturate(layer: Any, read: NDArray[np.int64]) -> NDArray[np.int64]:
    """What vpmaddubsw makes of unsigned inputs (channels, pairs of inputs): sums of pairs in 16
    bits, (channels,)."""
    products = (read * layer.rows.reshape(len(layer.rows), -1)).reshape(len(read), -1, 2)
    return np.asarray(products.sum(axis=2).clip(-(2**15), 2**15 - 1).sum(axis=1))


@pytest.mark.parametrize("most", [64, 127])
def test_windows_are_the_worst(load_script: Load, most: int) -> None:
    """They find every channel in which some input could overflow, and no other."""
    layer = read_layer(load_script, write_graph("pointwise", most=most))
    cases = load_script("layer_cases")
    pairs = layer.rows.reshape(16, 16, 2)
    largest = {1: pairs.clip(min=0).sum(axis=2).max(1), -1: -pairs.clip(max=0).sum(axis=2).min(1)}
    found = 0
    for sign, sums in largest.items():
        read, places = cases._place_windows(layer, sign, np.random.default_rng(0))
        windows = np.stack([read[(0, slice(None), *place[2:])] for place in places])
        exact = (windows * layer.rows.reshape(16, -1)).sum(axis=1)
        signed = (
            layer.rows.reshape(16, -1).clip(min=0)
            if sign == 1
            else layer.rows.reshape(16, -1).clip(max=0)
        )
        assert np.array_equal(exact, 255 * signed.sum(axis=1))
        wrong = saturate(layer, windows) != exact
        assert np.array_equal(wrong, sums > 128)
        found += int(wrong.sum())
    assert (found > 0) == (most > 64)


@pytest.mark.parametrize("name", LAYERS)
def test_one_wrong_weight_is_found(
    load_script: Load, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kernel that is off by one product, on this machine."""
    layer = read_layer(load_script, write_graph(name))
    case = next(load_script("layer_cases").make_cases(layer))
    (weight,) = (t for t in case.model.graph.initializer if t.name == "weight")
    steps = numpy_helper.to_array(weight).copy()
    steps.flat[0] += 1
    weight.CopyFrom(numpy_helper.from_array(steps, "weight"))
    case.write(tmp_path, 0)
    load_script("drive_layers").main("onnx", str(tmp_path))
    assert '"wrong": 0,' not in capsys.readouterr().out


def test_plain_rounding_keeps_values_and_no_rule(load_script: Load) -> None:
    layer = read_layer(load_script, write_graph("pointwise"))
    plain = layer.round_plainly()
    shape = (-1, 1, 1, 1)
    values = layer.rows * layer.scales.reshape(shape).astype(float)
    again = plain.rows * plain.scales.reshape(shape).astype(float)
    assert np.abs(again - values).max() <= plain.scales.max() / 2
    assert (np.abs(plain.rows).reshape(16, -1).max(axis=1) == 127).all()
    pairs = np.abs(plain.rows.reshape(16, 16, 2))
    assert pairs.sum(axis=2).max() > 128


@pytest.mark.skipif(not shutil.which("qemu-x86_64-static"), reason="needs qemu-user-static")
@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_haswell_saturates_and_the_rule_prevents_it(
    load_script: Load, tmp_path: Path, engine: str
) -> None:
    checks, cases = load_script("cpu_checks"), load_script("layer_cases")
    haswell = load_script("emulation").emulate_x86("Haswell")
    layer = read_layer(load_script, write_graph("pointwise"))
    rows = {}
    for name, one in (("kept", layer), ("broken", layer.round_plainly())):
        (tmp_path / name).mkdir()
        for number, case in enumerate(cases.make_cases(one)):
            case.write(tmp_path / name, number)
        rows[name] = checks.drive_layers(name, engine, haswell, "Haswell", tmp_path / name)
    assert rows["kept"].right
    assert rows["kept"].result == "3 cases, 0 of them wrong"
    assert not rows["broken"].right
    assert "Conv 16x32x1x1 uint8 to uint8 with ReLU" in rows["broken"].result
