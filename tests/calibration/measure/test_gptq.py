"""Rounding that lets errors cancel: better than to the nearest, kept by every dialect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mer_calibration import DIALECTS, CalibrationError, place, quantise_graph
from mer_calibration.graph.dialects import DialectName
from mer_calibration.graph.grid import weight_scales, weight_steps
from mer_calibration.graph.qdq import MOST_BIAS_STEPS
from mer_calibration.graph.saturation import LIMIT, is_depthwise, sum_pairs, widen_scales
from mer_calibration.graph.weights import (
    STRETCH,
    RoundedWeight,
    Rounding,
    apply_roundings,
    pack_steps,
    replace_weights,
    unpack_steps,
)
from mer_calibration.measure import gptq
from mer_calibration.measure.gptq import find_roundings

Graph = Callable[..., ModelProto]
KINDS = ["dense", "strided", "grouped", "several of one", "depthwise", "row", "linear", "product"]


def weights_of(model: ModelProto) -> dict[str, NDArray[Any]]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def one_layer(kind: str, graph_of: Graph) -> tuple[ModelProto, list[dict[str, NDArray[Any]]]]:
    """A weighted layer of each kind, and inputs as after a ReLU: positive and alike.

    At their nearest steps one pair of weights in twenty breaks the rule against overflow.
    """
    generator = np.random.default_rng(7)
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
        "dense": ((24, 16, 3, 3), (16, 9, 9), {"pads": [1, 1, 1, 1]}),
        "strided": ((24, 16, 3, 3), (16, 9, 9), {"strides": [2, 2], "dilations": [2, 1]}),
        "grouped": ((32, 16, 3, 3), (32, 9, 9), {"group": 2}),
        "several of one": ((32, 1, 3, 3), (16, 9, 9), {"group": 16}),
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


def round_all(model: ModelProto, feeds: list[dict[str, NDArray[Any]]]) -> ModelProto:
    found = find_roundings(model, feeds, threads=1)
    return replace_weights(model, apply_roundings(model, found))


def to_nearest(model: ModelProto) -> ModelProto:
    """On scales on which that keeps the rule."""
    nearest = {}
    for layer in place(model).layers:
        weight = weights_of(model)[layer.weight]
        finest = weight_scales(weight, layer.axis)
        scales = widen_scales(finest, weight, layer.axis, layer.groups)
        steps = weight_steps(weight, scales, layer.axis)
        nearest[layer.name] = RoundedWeight(steps, scales, layer.axis)
    return replace_weights(model, nearest)


@pytest.fixture
def measure_noise(run_onnx: Callable[..., Any]) -> Callable[..., float]:
    """Mean square of what ``candidate`` puts out less what ``model`` does."""

    def measure(candidate: ModelProto, model: ModelProto, feeds: Any) -> float:
        differences = [run_onnx(candidate, feed) - run_onnx(model, feed) for feed in feeds]
        return float(np.square(differences).mean())

    return measure


@pytest.mark.parametrize("kind", KINDS)
def test_errors_cancel(kind: str, graph_of: Graph, measure_noise: Callable[..., float]) -> None:
    """On samples that it wasn't found on; 0.20 to 0.44 of the noise power is what is seen."""
    model, feeds = one_layer(kind, graph_of)
    rounded, nearest = round_all(model, feeds[:16]), to_nearest(model)
    unseen = feeds[16:]
    assert measure_noise(rounded, model, unseen) < 0.5 * measure_noise(nearest, model, unseen)


@pytest.mark.parametrize("kind", KINDS)
def test_rule_costs_little(
    kind: str,
    graph_of: Graph,
    measure_noise: Callable[..., float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against rounding that is free to overflow: up to 3 dB are seen, where a bit would cost 6.

    That is of weights' noise alone, of which activations add several times as much.
    """
    model, feeds = one_layer(kind, graph_of)
    kept = measure_noise(round_all(model, feeds[:16]), model, feeds[16:])
    monkeypatch.setattr(gptq, "find_pairs", lambda *_: np.zeros((0, 2), np.int64))
    monkeypatch.setattr(gptq, "widen_scales", lambda scales, *_: scales)
    rounded = apply_roundings(model, find_roundings(model, feeds[:16], threads=1))
    free, steps = replace_weights(model, rounded), rounded["w"].steps
    layer = place(model).layers[0]
    if not is_depthwise(steps.shape, layer.groups):
        assert 0.01 < (sum_pairs(steps, layer.axis) > LIMIT).mean() < 0.2
    assert kept < 2.5 * measure_noise(free, model, feeds[16:])


@pytest.mark.parametrize("kind", ["linear", "product"])
def test_search_for_widths_never_loses(
    kind: str,
    graph_of: Graph,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against no stretch and all that is needed, for each channel, on the samples it was found on.

    Those layers read all that there is; of a convolution's places some are drawn.
    """
    model, feeds = one_layer(kind, graph_of)
    inputs = np.concatenate([feed["x"].reshape(-1, 48) for feed in feeds]).astype(np.float64)
    exact = weights_of(model)["w"].astype(np.float64)

    def measure() -> NDArray[np.float64]:
        found = find_roundings(model, feeds, threads=1)
        left = apply_roundings(model, found)["w"].dequantise() - exact
        return np.square(inputs @ (left.T if kind == "linear" else left)).sum(axis=0)

    searched = measure()
    monkeypatch.setattr(gptq, "LEAST_TRIED", 2)
    monkeypatch.setattr(gptq, "MOST_TRIED", 2)
    ends = measure()
    assert (searched <= 1.001 * ends).all()
    assert searched.sum() < ends.sum()


@pytest.mark.parametrize("kind", KINDS)
def test_weights_stay_on_their_grids(kind: str, graph_of: Graph) -> None:
    """Whole steps of one width for each channel, no finer than the largest weight wants."""
    model, feeds = one_layer(kind, graph_of)
    found = find_roundings(model, feeds, threads=1)
    weight, layer = weights_of(model)["w"], place(model).layers[0]
    rounded = apply_roundings(model, found)["w"]
    assert rounded.axis == layer.axis
    assert rounded.steps.dtype == np.int8
    assert np.abs(rounded.steps).max() <= 127
    finest = weight_scales(weight, layer.axis)
    stretches = np.array(found["w"].stretches)
    np.testing.assert_allclose(rounded.scales, finest * (1 + stretches / STRETCH), rtol=1e-6)
    assert (stretches >= 0).all()
    assert stretches.any() == (kind != "depthwise")
    replaced = weights_of(replace_weights(model, {"w": rounded}))["w"]
    np.testing.assert_array_equal(replaced, rounded.dequantise())
    # Nearest steps but for what makes up for others.
    nearest = weight_steps(weight, rounded.scales, layer.axis)
    assert np.abs(rounded.steps.astype(int) - nearest).max() < 20


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_keep_the_rule(kind: str, graph_of: Graph) -> None:
    model, feeds = one_layer(kind, graph_of)
    layer, weight = place(model).layers[0], weights_of(model)["w"]
    nearest = weight_steps(weight, weight_scales(weight, layer.axis), layer.axis)
    steps = apply_roundings(model, find_roundings(model, feeds, threads=1))["w"].steps
    if is_depthwise(weight.shape, layer.groups):
        return
    assert sum_pairs(nearest, layer.axis).max() > LIMIT
    assert sum_pairs(steps, layer.axis).max() <= LIMIT


def test_layers_that_stay_float_keep_their_weights(
    net: ModelProto, feeds: list[dict[str, NDArray[Any]]]
) -> None:
    roundings = find_roundings(net, feeds, threads=1)
    every, but_join = (apply_roundings(net, roundings, keep) for keep in ((), ("join.weight",)))
    assert every.keys() - but_join.keys() == {"join.weight"}
    assert np.array_equal(but_join["left.weight"].steps, every["left.weight"].steps)
    before, after = weights_of(net), weights_of(replace_weights(net, but_join))
    assert np.array_equal(after["join.weight"], before["join.weight"])
    assert not np.array_equal(after["left.weight"], before["left.weight"])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_keeps_the_steps(
    dialect: DialectName,
    net: ModelProto,
    feeds: list[dict[str, NDArray[Any]]],
    ranges_of: Callable[..., Any],
) -> None:
    """Also where a scale is widened to one of float16."""
    rounded = apply_roundings(net, find_roundings(net, feeds, threads=1))
    ranges = ranges_of(replace_weights(net, rounded), feeds)
    quantised = quantise_graph(net, ranges, DIALECTS[dialect], weights=rounded)
    written = weights_of(quantised.model)
    moved = 0
    for layer in place(net).layers:
        weight, kept = weights_of(net)[layer.weight], rounded[layer.name]
        np.testing.assert_array_equal(written[f"{layer.weight}_q"], kept.steps)
        np.testing.assert_allclose(written[f"{layer.weight}_scale"], kept.scales, rtol=2**-9)
        moved += np.count_nonzero(kept.steps != weight_steps(weight, kept.scales, layer.axis))
    assert moved > 100
    assert quantised.certificate.largest <= LIMIT


def test_bias_that_is_too_large_for_the_steps(
    graph_of: Graph, ranges_of: Callable[..., Any]
) -> None:
    """Its channel gets wider ones, but not so that its weights, now at the nearest, overflow."""
    model, feeds = one_layer("linear", graph_of)
    rounded = apply_roundings(model, find_roundings(model, feeds, threads=1))
    ranges = ranges_of(model, feeds)
    step = DIALECTS["x86"].make_grid(ranges["x"].low, ranges["x"].high).scale
    bias = 1.001 * rounded["w"].scales * step * MOST_BIAS_STEPS
    model.graph.initializer.append(numpy_helper.from_array(bias.astype(np.float32), "b"))
    model.graph.node[0].input.append("b")
    quantised = quantise_graph(model, ranges, DIALECTS["x86"], weights=rounded)
    assert quantised.certificate.largest <= LIMIT
    written = weights_of(quantised.model)
    assert (written["w_scale"] > rounded["w"].scales).all()
    assert np.abs(written["b_q"]).max() <= 1.001 * MOST_BIAS_STEPS


def test_same_samples_same_steps(net: ModelProto, feeds: list[dict[str, NDArray[Any]]]) -> None:
    assert find_roundings(net, feeds, threads=1) == find_roundings(net, feeds, threads=1)


def test_inputs_that_a_row_does_not_read_stay_so(graph_of: Graph) -> None:
    """A grouped convolution in dense form: its zeros are left out of the bundle."""
    model, feeds = one_layer("dense", graph_of)
    weight = weights_of(model)["w"].copy()
    for row in range(len(weight)):
        weight[row, [i for i in range(16) if i != row // 2 % 16]] = 0
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    rounded = weights_of(round_all(model, feeds))["w"]
    assert not rounded[weight == 0].any()
    assert not np.array_equal(rounded, weights_of(to_nearest(model))["w"])


def test_inputs_that_are_always_zero(graph_of: Graph) -> None:
    """They say nothing about their weights, which go to the nearest step."""
    model, feeds = one_layer("depthwise", graph_of)
    for feed in feeds:
        feed["x"][:, 3] = 0
    rounded = weights_of(round_all(model, feeds))["w"]
    np.testing.assert_array_equal(rounded[3], weights_of(to_nearest(model))["w"][3])


def test_sample_that_is_not_finite(graph_of: Graph) -> None:
    model, feeds = one_layer("linear", graph_of)
    feeds[1]["x"][0, 0] = np.nan
    with pytest.raises(CalibrationError, match="input of layer 'w' is not finite"):
        find_roundings(model, feeds, threads=1)


@pytest.mark.parametrize("text", ["", "?", "AAAA", pack_steps(np.zeros(5, np.int64))])
def test_damaged_roundings(text: str, graph_of: Graph) -> None:
    model, _ = one_layer("linear", graph_of)
    with pytest.raises(CalibrationError, match="damaged: calibrate again"):
        apply_roundings(model, {"w": Rounding((0,) * 24, text)})


def test_roundings_of_another_graph(graph_of: Graph) -> None:
    model, _ = one_layer("linear", graph_of)
    with pytest.raises(CalibrationError, match="rounding of layer 'w' is of another graph"):
        apply_roundings(model, {"w": Rounding((0,) * 25, "")})


def test_packed_steps_come_back() -> None:
    steps = np.random.default_rng(1).integers(-128, 128, (3, 5, 7))
    np.testing.assert_array_equal(unpack_steps(pack_steps(steps), steps.shape), steps)
