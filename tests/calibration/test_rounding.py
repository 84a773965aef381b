"""Rounding that lets errors cancel: better than to the nearest, kept by every dialect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mer_calibration import (
    DIALECTS,
    CalibrationError,
    find_range,
    observe,
    place,
    quantise_graph,
)
from mer_calibration.dialects import DialectName
from mer_calibration.grid import weight_scales
from mer_calibration.rounding import find_roundings, pack_steps, round_weights, unpack_steps

Graph = Callable[..., ModelProto]
KINDS = ["dense", "strided", "depthwise", "row", "linear", "product"]


def weights_of(model: ModelProto) -> dict[str, NDArray[Any]]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def one_layer(kind: str, graph_of: Graph) -> tuple[ModelProto, list[dict[str, NDArray[Any]]]]:
    """A weighted layer of each kind, and inputs as after a rectifier: positive and alike."""
    generator = np.random.default_rng(7)
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
        "dense": ((24, 16, 3, 3), (16, 9, 9), {"pads": [1, 1, 1, 1]}),
        "strided": ((24, 16, 3, 3), (16, 9, 9), {"strides": [2, 2], "dilations": [2, 1]}),
        "depthwise": ((32, 1, 3, 3), (32, 9, 9), {"group": 32, "pads": [1, 1, 1, 1]}),
        "row": ((24, 16, 3), (16, 40), {}),
        "linear": ((24, 48), (48,), {"transB": 1}),
        "product": ((48, 24), (5, 48), {}),
    }
    weight, value, options = shapes[kind]
    op_type = {"linear": "Gemm", "product": "MatMul"}.get(kind, "Conv")
    node = helper.make_node(op_type, ["x", "w"], ["y"], "layer", **options)
    model = graph_of(
        [node],
        {"w": generator.normal(0, 0.1, weight).astype(np.float32)},
        {"x": (TensorProto.FLOAT, ["n", *value])},
        {"y": ["n", *["?"] * (len(value) if kind != "linear" else 1)]},
    )
    alike = value if op_type != "Conv" else (value[0], *[1] * (len(value) - 1))
    common = generator.uniform(0.2, 1, (1, *alike))
    feeds = [
        {"x": np.maximum(common + generator.normal(0, 0.3, (4, *value)), 0).astype(np.float32)}
        for _ in range(24)
    ]
    return model, feeds


def to_nearest(model: ModelProto) -> ModelProto:
    nothing = {
        layer.name: pack_steps(np.zeros(weights_of(model)[layer.weight].shape, np.int64))
        for layer in place(model).layers
    }
    return round_weights(model, nothing)


@pytest.mark.parametrize("kind", KINDS)
def test_errors_cancel(kind: str, graph_of: Graph, run_onnx: Callable[..., Any]) -> None:
    """On samples that it wasn't found on; 0.18 to 0.44 of the noise power is what is seen."""
    model, feeds = one_layer(kind, graph_of)
    rounded = round_weights(model, find_roundings(model, feeds[:16], threads=1))

    def noise(candidate: ModelProto) -> float:
        differences = [run_onnx(candidate, f) - run_onnx(model, f) for f in feeds[16:]]
        return float(np.square(differences).mean())

    assert noise(rounded) < 0.5 * noise(to_nearest(model))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_stay_on_their_grids(kind: str, graph_of: Graph) -> None:
    model, feeds = one_layer(kind, graph_of)
    rounded = round_weights(model, find_roundings(model, feeds, threads=1))
    before, after = weights_of(model)["w"], weights_of(rounded)["w"]
    axis = place(model).layers[0].axis
    scales = weight_scales(before, axis)
    np.testing.assert_array_equal(weight_scales(after, axis), scales)
    steps = np.moveaxis(after, axis, 0).reshape(len(scales), -1) / scales[:, None]
    # A float32 product divided again: whole up to its last bit.
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)
    assert np.abs(steps).max() <= 127.001


def test_layers_that_stay_float_keep_their_weights(
    net: ModelProto, feeds: list[dict[str, NDArray[Any]]]
) -> None:
    roundings = find_roundings(net, feeds, threads=1)
    before = weights_of(net)
    every, but_join = (
        weights_of(round_weights(net, roundings, keep)) for keep in ((), ("join.weight",))
    )
    assert np.array_equal(but_join["join.weight"], before["join.weight"])
    assert not np.array_equal(every["join.weight"], before["join.weight"])
    assert np.array_equal(but_join["left.weight"], every["left.weight"])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_keeps_the_steps(
    dialect: DialectName, net: ModelProto, feeds: list[dict[str, NDArray[Any]]]
) -> None:
    """Also where a scale is widened to one of float16, or for a bias in 32 bits."""
    roundings = find_roundings(net, feeds, threads=1)
    rounded = round_weights(net, roundings)
    histograms = observe(rounded, feeds, place(rounded).sources(), threads=1)
    ranges = {n: find_range(h, "minmax", symmetric=False) for n, h in histograms.items()}
    written = weights_of(quantise_graph(rounded, ranges, DIALECTS[dialect]).model)
    floats = weights_of(net)
    moved = 0
    for layer in place(net).layers:
        if layer.name.startswith("stem"):
            continue  # rewritten for joined pixels
        weight = floats[layer.weight]
        shape = [-1 if i == layer.axis else 1 for i in range(weight.ndim)]
        nearest = np.rint(weight / weight_scales(weight, layer.axis).reshape(shape))
        change = unpack_steps(roundings[layer.name], weight.shape)
        np.testing.assert_array_equal(written[f"{layer.weight}_q"], nearest + change)
        moved += int(np.count_nonzero(change))
    assert moved > 100


def test_same_samples_same_steps(net: ModelProto, feeds: list[dict[str, NDArray[Any]]]) -> None:
    assert find_roundings(net, feeds, threads=1) == find_roundings(net, feeds, threads=1)


def test_inputs_that_a_row_does_not_read_stay_so(graph_of: Graph) -> None:
    """A grouped convolution in dense form: its zeros are left out of the bundle."""
    model, feeds = one_layer("dense", graph_of)
    weight = weights_of(model)["w"].copy()
    for row in range(len(weight)):
        weight[row, [i for i in range(16) if i != row // 2 % 16]] = 0
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    rounded = weights_of(round_weights(model, find_roundings(model, feeds, threads=1)))["w"]
    assert not rounded[weight == 0].any()
    assert not np.array_equal(rounded, weights_of(to_nearest(model))["w"])


def test_inputs_that_are_always_zero(graph_of: Graph) -> None:
    """They say nothing about their weights, which go to the nearest step."""
    model, feeds = one_layer("depthwise", graph_of)
    for feed in feeds:
        feed["x"][:, 3] = 0
    rounded = round_weights(model, find_roundings(model, feeds, threads=1))
    np.testing.assert_array_equal(
        weights_of(rounded)["w"][3], weights_of(to_nearest(model))["w"][3]
    )


def test_sample_that_is_not_finite(graph_of: Graph) -> None:
    model, feeds = one_layer("linear", graph_of)
    feeds[1]["x"][0, 0] = np.nan
    with pytest.raises(CalibrationError, match="input of layer 'w' is not finite"):
        find_roundings(model, feeds, threads=1)


@pytest.mark.parametrize("text", ["", "?", "AAAA", pack_steps(np.zeros(5, np.int64))])
def test_damaged_roundings(text: str, graph_of: Graph) -> None:
    model, _ = one_layer("linear", graph_of)
    with pytest.raises(CalibrationError, match="damaged: calibrate again"):
        round_weights(model, {"w": text})


def test_packed_steps_come_back() -> None:
    steps = np.random.default_rng(1).integers(-128, 128, (3, 5, 7))
    np.testing.assert_array_equal(unpack_steps(pack_steps(steps), steps.shape), steps)
