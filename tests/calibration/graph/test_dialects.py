"""Violations planted in graphs that are otherwise right are refused, with the tensor's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mer_calibration import (
    DIALECTS,
    Dialect,
    DialectError,
    Quantised,
    asymmetric_grid,
    check_dialect,
    symmetric_grid,
)
from mer_calibration.graph.dialects import round_to_half

Name = Literal["tensorrt", "x86", "arm"]
Planted = tuple[ModelProto, Dialect]


@pytest.fixture
def graph(
    net: ModelProto, feeds: list[Any], quantise: Callable[..., Quantised]
) -> Callable[[Name], Planted]:
    """A right graph in a dialect, to be damaged."""

    def make(dialect: Name) -> Planted:
        return quantise(net, feeds, dialect, plain=True).model, DIALECTS[dialect]

    return make


def replace(model: ModelProto, name: str, value: NDArray[Any]) -> None:
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(value, name))


def check_refused(planted: Planted, tensor: str, reason: str) -> None:
    with pytest.raises(DialectError, match=reason) as caught:
        check_dialect(*planted)
    assert caught.value.tensor == tensor
    assert str(caught.value).startswith(f"tensor '{tensor}' ")
    assert "\n" not in str(caught.value)


def test_zero_point(graph: Callable[[Name], Planted]) -> None:
    planted = graph("tensorrt")
    replace(planted[0], "join_relu_zero_point", np.int8(3))
    check_refused(planted, "join_relu", "zero-point 3, where tensorrt has 0")
    x86 = graph("x86")
    replace(x86[0], "join_relu_zero_point", np.uint8(3))
    check_dialect(*x86)  # uint8 may have any


def test_negative_zero_point(graph: Callable[[Name], Planted]) -> None:
    planted = graph("tensorrt")
    replace(planted[0], "mean_zero_point", np.int8(-3))
    check_refused(planted, "mean", "zero-point -3, where tensorrt has 0")


@pytest.mark.parametrize(
    ("dialect", "dtype"), [("tensorrt", np.uint8), ("arm", np.uint8), ("x86", np.int8)]
)
def test_type_of_activations(
    graph: Callable[[Name], Planted], dialect: Name, dtype: type[np.integer[Any]]
) -> None:
    planted = graph(dialect)
    replace(planted[0], "join_relu_zero_point", np.array(0, dtype))
    check_refused(planted, "join_relu", f"is {dtype.__name__}, where {dialect} has")


def test_type_of_activations_is_not_left_out(graph: Callable[[Name], Planted]) -> None:
    """Without a zero-point ``QuantizeLinear`` gives uint8: TensorRT-RTX reads it as int8."""
    planted = graph("tensorrt")
    (node,) = (n for n in planted[0].graph.node if n.name == "join_relu_quantize")
    del node.input[2:]
    check_refused(planted, "join_relu", "no zero-point, and so is uint8")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_scales_of_each_channel(graph: Callable[[Name], Planted], dialect: Name) -> None:
    """TensorRT-RTX accepts them for activations, and computes something else."""
    planted = graph(dialect)
    replace(planted[0], "join_relu_scale", np.full(32, 0.1, np.float32))
    check_refused(planted, "join_relu", "a scale for each channel")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("reader", ["node_gated", "node_gate"])
def test_scales_of_each_channel_behind_integers(
    graph: Callable[[Name], Planted], dialect: Name, reader: str
) -> None:
    """What floats alone read may be dequantised so, where the dialect has that."""
    model, chosen = graph(dialect)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    (pair,) = (n for n in model.graph.node if n.output[0] == "join_relu_dq")
    own = [
        numpy_helper.from_array(np.full(32, constants[pair.input[1]]), "own_scale"),
        numpy_helper.from_array(np.full(32, constants[pair.input[2]]), "own_zero"),
    ]
    model.graph.initializer.extend(own)
    inputs = [pair.input[0], "own_scale", "own_zero"]
    node = helper.make_node("DequantizeLinear", inputs, ["own"], "own", axis=1)
    (reading,) = (n for n in model.graph.node if n.name == reader)
    model.graph.node.insert(list(model.graph.node).index(reading), node)
    reading.input[0] = "own"
    # A convolution might be int8, whose kernels have one scale for all that they read.
    if chosen.channel_scales and reader == "node_gated":
        check_dialect(model, chosen)
    else:
        check_refused((model, chosen), "join_relu_q", "a scale for each channel")


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf, np.nan])
@pytest.mark.parametrize(
    ("scale", "tensor"), [("mean_scale", "mean"), ("fc.weight_scale", "fc.weight_q")]
)
def test_scales_are_positive(
    graph: Callable[[Name], Planted], scale: str, tensor: str, value: float
) -> None:
    planted = graph("x86")
    (old,) = (t for t in planted[0].graph.initializer if t.name == scale)
    replace(planted[0], scale, np.full(tuple(old.dims), value, np.float32))
    check_refused(planted, tensor, "isn't a positive number")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_scale_is_constant(graph: Callable[[Name], Planted], dialect: Name) -> None:
    planted = graph(dialect)
    (node,) = (n for n in planted[0].graph.node if n.name == "join_relu_quantize")
    planted[0].graph.node.insert(0, helper.make_node("Identity", [node.input[1]], ["moving"]))
    node.input[1] = "moving"
    check_refused(planted, "join_relu", "isn't constant")


def test_integer_bias(graph: Callable[[Name], Planted]) -> None:
    """TensorRT's parser refuses a bias in int32."""
    model, _ = graph("arm")
    tensorrt = Dialect("tensorrt", "int8", False, False, False, True)
    check_refused((model, tensorrt), "stem.bias_q", "quantised bias, where tensorrt has float")
    planted = graph("x86")
    replace(planted[0], "stem.bias_q", np.zeros(32, np.int8))
    check_refused(planted, "stem.bias_q", "isn't int32")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_weights(graph: Callable[[Name], Planted], dialect: Name) -> None:
    planted = graph(dialect)
    (node,) = (n for n in planted[0].graph.node if n.name == "join.weight_dq_dequantize")
    planted[0].graph.initializer.append(numpy_helper.from_array(np.ones(32, np.int8), "one"))
    node.input.append("one")
    check_refused(planted, "join.weight_q", "weight whose zero-point isn't 0")

    planted = graph(dialect)
    replace(planted[0], "join.weight_q", np.zeros((32, 32, 1, 1), np.uint8))
    check_refused(planted, "join.weight_q", "weight of uint8, not int8")

    planted = graph(dialect)
    replace(planted[0], "join.weight_scale", np.float32(0.1))
    check_refused(planted, "join.weight_q", "one scale for all channels")

    planted = graph(dialect)
    (node,) = (n for n in planted[0].graph.node if n.name == "node_join")
    node.input[1] = "join.weight_q"
    check_refused(planted, "join.weight_q", "no weighted layer takes")


@pytest.mark.parametrize("turned", [False, True])
def test_product_of_two_activations(
    graph_of: Callable[..., ModelProto], quantise: Callable[..., Quantised], turned: bool
) -> None:
    """OpenVINO would multiply bytes there, and no rule for weights prevents that sums overflow."""
    generator = np.random.default_rng(0)
    weights = {name: generator.normal(0, 1, (16, 16)).astype(np.float32) for name in "qk"}
    nodes = [
        *(helper.make_node("MatMul", ["x", name], [f"to_{name}"], name) for name in "qk"),
        helper.make_node("Transpose", ["to_k"], ["turned"], "turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["to_q", "turned" if turned else "to_k"], ["y"], "scores"),
    ]
    if not turned:
        del nodes[2]
    inputs = {"x": (TensorProto.FLOAT, [1, 16, 16])}
    model = graph_of(nodes, weights, inputs, {"y": [1, 16, 16]})
    feed = {"x": generator.normal(0, 1, (1, 16, 16)).astype(np.float32)}
    right = quantise(model, [feed], "openvino").model
    assert "to_q_q" not in {name for node in right.graph.node for name in node.output}
    check_dialect(right, DIALECTS["openvino"])
    # Symmetric and int8 throughout, so that nothing else is wrong with it.
    tensorrt = quantise(model, [feed], "tensorrt", plain=True).model
    check_refused((tensorrt, DIALECTS["openvino"]), "y", "an int8 product of two activations")


def test_each_dialect_refuses_the_others(graph: Callable[[Name], Planted]) -> None:
    for name in DIALECTS:
        model, _ = graph(name)
        for other, dialect in DIALECTS.items():
            if other == name:
                check_dialect(model, dialect)
            # OpenVINO's takes both types, so all of that is portable.
            elif {name, other} != {"tensorrt", "arm"} and (name, other) != ("tensorrt", "openvino"):
                with pytest.raises(DialectError):
                    check_dialect(model, dialect)
    with pytest.raises(DialectError, match="zero-point -128"):
        check_dialect(graph("arm")[0], DIALECTS["tensorrt"])


limits = st.floats(1e-3, 1e4)


@given(limits, limits)
def test_grids(below: float, above: float) -> None:
    """x86 and ARM have the same points; the tensorrt scale is one that float16 holds."""
    x86, arm, tensorrt = (
        DIALECTS[name].make_grid(-below, above) for name in ("x86", "arm", "tensorrt")
    )
    assert x86 == asymmetric_grid(-below, above)
    assert (arm.scale, arm.zero_point, arm.low) == (x86.scale, x86.zero_point - 128, -128)
    assert (x86.dtype, arm.dtype, tensorrt.dtype) == (np.uint8, np.int8, np.int8)
    values = np.linspace(-below, above, 50)
    assert np.array_equal(x86.round_trip(values), arm.round_trip(values))
    exact = symmetric_grid(-below, above)
    assert (tensorrt.zero_point, tensorrt.low, tensorrt.high) == (0, exact.low, exact.high)
    assert tensorrt.scale == np.float16(tensorrt.scale)
    # Upwards: float16 has 11 bits, and steps of 2^-24 at least.
    assert 0 <= tensorrt.scale - exact.scale <= max(2**-10 * exact.scale, 2**-24)


def test_relus_start_at_the_lowest_point() -> None:
    """So that an engine lets rounding do the ReLU's work."""
    assert DIALECTS["x86"].make_grid(0, 6).zero_point == 0
    assert DIALECTS["arm"].make_grid(0, 6).zero_point == -128
    assert DIALECTS["tensorrt"].make_grid(0, 6).zero_point == 0


def test_half_scales_stay_above_zero() -> None:
    tiny = np.array([0, 1e-12, 2**-20, 0.1, 1000], np.float32)
    rounded = round_to_half(tiny)
    assert rounded.dtype == np.float32
    assert np.array_equal(rounded, rounded.astype(np.float16))
    assert (rounded > 0).all()
    assert (rounded >= tiny).all()
    assert rounded[3:] == pytest.approx(tiny[3:], rel=2**-10)
