"""Grids against ONNX Runtime's QuantizeLinear, and ranges that leave little to quantise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mer_calibration import CalibrationError, Grid, asymmetric_grid, symmetric_grid, weight_scales
from mer_calibration.graph.grid import SMALLEST_SCALE

FLOATS = st.floats(-(2.0**100), 2.0**100, width=32)


def run_in_onnx(grid: Grid, x: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """ONNX Runtime's QuantizeLinear and DequantizeLinear on the grid."""
    constants = [
        numpy_helper.from_array(np.float32(grid.scale), "scale"),
        numpy_helper.from_array(np.array(grid.zero_point, grid.dtype), "zero_point"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero_point"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero_point"], ["y"]),
    ]
    integer = TensorProto.UINT8 if grid.dtype == np.uint8 else TensorProto.INT8
    graph = helper.make_graph(
        nodes,
        "grid",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [
            helper.make_tensor_value_info("q", integer, ["n"]),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    q, y = session.run(["q", "y"], {"x": x})
    return q, y


@pytest.mark.parametrize(
    "grid",
    [
        asymmetric_grid(-1.3, 4.7),
        asymmetric_grid(0, 6),
        symmetric_grid(-1.3, 0.7),
        Grid(0.5, 128, 0, 255),
    ],
    ids=str,
)
def test_equals_onnx_runtime(grid: Grid) -> None:
    generator = np.random.default_rng(0)
    halves = (np.arange(-300, 300) + 0.5) * np.float32(grid.scale)  # ties, and far outside
    x = np.concatenate((generator.normal(0, 3, 5000), halves, [0, 1e30, -1e30, 3e38]))
    x = x.astype(np.float32)
    q, y = run_in_onnx(grid, x)
    assert grid.quantise(x).dtype == q.dtype
    assert np.array_equal(grid.quantise(x), q)
    assert np.array_equal(grid.dequantise(q), y)
    assert np.array_equal(grid.round_trip(x), y)


def test_types_and_shapes() -> None:
    assert asymmetric_grid(-1, 1).dtype == np.uint8
    assert symmetric_grid(-1, 1).dtype == np.int8
    assert asymmetric_grid(-1, 1, bits=16).dtype == np.uint16
    grid = symmetric_grid(-1, 1, bits=16)
    assert (grid.low, grid.high, grid.dtype) == (-32768, 32767, np.int16)
    x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4)
    assert grid.round_trip(x).shape == (2, 3, 4)
    assert grid.round_trip(x).dtype == np.float32


def test_ranges_of_known_grids() -> None:
    assert asymmetric_grid(0, 255) == Grid(1.0, 0, 0, 255)
    assert asymmetric_grid(-128, 127) == Grid(1.0, 128, 0, 255)
    assert asymmetric_grid(-255, 0) == Grid(1.0, 255, 0, 255)
    assert asymmetric_grid(51, 255) == asymmetric_grid(0, 255)  # widened to hold 0
    assert asymmetric_grid(-255, -51) == asymmetric_grid(-255, 0)
    assert symmetric_grid(-3, 254) == Grid(2.0, 0, -128, 127)
    assert symmetric_grid(-254, 0) == symmetric_grid(0, 254)


@pytest.mark.parametrize("make", [asymmetric_grid, symmetric_grid])
@given(ends=st.tuples(FLOATS, FLOATS).map(sorted))
@settings(deadline=None)
def test_any_range_gives_a_usable_grid(make: Callable[..., Grid], ends: list[float]) -> None:
    grid = make(*ends)
    assert grid.scale >= SMALLEST_SCALE
    assert grid.scale == np.float32(grid.scale)
    assert grid.low <= grid.zero_point <= grid.high
    assert grid.round_trip(0.0) == 0
    # Half a step, and the rounding of scale (255 steps of it) and quotient in float32.
    slack = grid.scale * (0.5 + 256 * 2.0**-22)
    assert np.abs(grid.round_trip(ends) - np.array(ends)).max() <= slack


@pytest.mark.parametrize("make", [asymmetric_grid, symmetric_grid])
@pytest.mark.parametrize("constant", [0.0, 3.7, -3.7, 1e-30, -1e-42, 1e-45, 1e38, -3.4e38])
def test_constant_is_held_within_a_step(make: Callable[..., Grid], constant: float) -> None:
    grid = make(constant, constant)
    assert math.isfinite(grid.scale)
    assert grid.scale >= SMALLEST_SCALE
    assert grid.round_trip(0.0) == 0
    assert abs(float(grid.round_trip(constant)) - constant) <= grid.scale


@pytest.mark.parametrize("make", [asymmetric_grid, symmetric_grid])
@pytest.mark.parametrize(
    "ends", [(0, math.inf), (-math.inf, 0), (math.nan, 1), (0, math.nan), (1, -1)]
)
def test_no_range_is_refused(make: Callable[..., Grid], ends: tuple[float, float]) -> None:
    with pytest.raises(CalibrationError, match="not a range to quantise"):
        make(*ends)


def test_widest_range_of_float32() -> None:
    most = float(np.finfo(np.float32).max)
    grid = asymmetric_grid(-most, most)
    assert math.isfinite(grid.scale)
    assert np.isfinite(grid.round_trip([-1e38, 1e38])).all()


@pytest.mark.parametrize("axis", [0, 1])
def test_weight_scales_by_channel(axis: int) -> None:
    weights = np.random.default_rng(1).normal(size=(5, 7, 3, 3)).astype(np.float32)
    scales = weight_scales(weights, axis)
    assert scales.dtype == np.float32
    assert scales.shape == (weights.shape[axis],)
    for i, scale in enumerate(scales):
        channel = weights.take(i, axis)
        steps = np.rint(channel / scale)
        assert np.abs(steps).max() == 127
        # Half a step; the quotient of 127 steps is rounded in float32.
        assert np.abs(steps * scale - channel).max() <= scale * (0.5 + 1e-4)


def test_dead_channels_take_a_living_ones_scale() -> None:
    weights = np.zeros((4, 2, 1, 1), np.float32)
    weights[1] = 1.27
    weights[2] = -2.54
    weights[3] = 1e-40  # denormal
    assert weight_scales(weights) == pytest.approx([0.02, 0.01, 0.02, 0.02])
    assert weight_scales(np.zeros((3, 2), np.float32)) == pytest.approx([1 / 127] * 3)


def test_bad_weights_are_refused() -> None:
    weights = np.ones((3, 2), np.float32)
    weights[1, 0] = np.nan
    with pytest.raises(CalibrationError, match="channel 1 are not finite"):
        weight_scales(weights)
    with pytest.raises(CalibrationError, match="no value"):
        weight_scales(np.zeros((3, 0), np.float32))
