"""Channels scaled: the same answers, finer grids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from channel_graphs import (
    GraphOf,
    Run,
    assert_close,
    chain,
    check_answers_stay,
    constants_of,
    spread,
    to_octaves,
    with_constants,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper

from mer_calibration import CalibrationError, Quantised, compare_tensors
from mer_calibration.measure.equalisation import (
    MOST_EXPONENT,
    OCTAVE,
    equalise,
    find_exponents,
    measure_peaks,
)


def draw_exponents(model: ModelProto, feeds: Any, seed: int) -> dict[str, tuple[int, ...]]:
    """Exponents at random, but 0 where ``find_exponents`` holds a channel to be fixed.

    Peaks far apart and unequal make it choose something else than 0 for every free channel.
    """
    generator = np.random.default_rng(seed)
    peaks = {
        name: (peak > 0) * np.exp2(generator.uniform(-20, 20, peak.shape))
        for name, peak in measure_peaks(model, feeds).items()
    }
    return dict(find_exponents(model, {n: p.astype(np.float32) for n, p in peaks.items()}))


@pytest.mark.parametrize("seed", range(5))
def test_answers_stay_equal(net: ModelProto, feeds: Any, run_onnx: Run, seed: int) -> None:
    """Through max-pooling, a split, dense and depthwise convolutions and a concatenation."""
    exponents = draw_exponents(net, feeds, seed)
    octaves = to_octaves(exponents)
    assert any(any(one) for one in octaves.values())
    for feed in feeds:
        # Optimisations might sum in another order where weights differ.
        expected = run_onnx(net, feed, optimised=False)
        answers = run_onnx(equalise(net, octaves), feed, optimised=False)
        np.testing.assert_array_equal(answers, expected)
        assert_close(run_onnx(equalise(net, exponents), feed, optimised=False), expected)


@pytest.mark.parametrize("seed", range(2))
def test_deployment_encoder_stays_equal(
    encoder: ModelProto, crops: Any, run_onnx: Run, seed: int
) -> None:
    exponents = draw_exponents(encoder, [crops], seed)
    octaves = to_octaves(exponents)
    assert sum(np.count_nonzero(one) for one in octaves.values()) > 1000
    expected = run_onnx(encoder, crops, optimised=False)
    np.testing.assert_array_equal(
        run_onnx(equalise(encoder, octaves), crops, optimised=False), expected
    )
    assert_close(run_onnx(equalise(encoder, exponents), crops, optimised=False), expected)


def test_graph_itself_is_left_alone(net: ModelProto, feeds: Any) -> None:
    before = net.SerializeToString()
    equalise(net, draw_exponents(net, feeds, 0))
    assert net.SerializeToString() == before


def test_found_exponents_even_out_what_depthwise_convolutions_read(
    net: ModelProto, feeds: Any
) -> None:
    """All channels of ``stem`` that only ``right`` reads get one peak, but for rounding."""
    # Max-pooling hands ``stem`` on to an add, too: without that its channels are free.
    free = ModelProto()
    free.CopyFrom(net)
    (add,) = (node for node in free.graph.node if node.op_type == "Add")
    add.input[1] = "gated"
    values = constants_of(net)
    sizes = np.exp2(-np.arange(32, dtype=np.float32) / 4).reshape(-1, 1, 1, 1)
    uneven = values["stem.weight"] * sizes
    free = with_constants(free, {"stem.weight": uneven, "stem.bias": 0 * values["stem.bias"]})
    peaks = measure_peaks(free, feeds)
    exponents = find_exponents(free, peaks)
    after = peaks["stem.weight"] / np.exp2(np.divide(exponents["stem.weight"], OCTAVE))
    assert set(exponents["stem.weight"][3:5]) == {0}, "dead channels have no scale"
    read_by_right = after[16:]
    largest = peaks["stem.weight"].max()
    # Rounding the exponent leaves half a step either way.
    most = 1.0001 * 2 ** (0.5 / OCTAVE)
    assert (read_by_right <= largest * most).all()
    assert (read_by_right >= largest / most).all()
    assert peaks["stem.weight"][16:].min() < largest / 16, "they were alike before"


class TestFixedChannels:
    """What float operations read, or leaves the graph, keeps its size."""

    def test_readers_that_are_float(self, net: ModelProto, feeds: Any) -> None:
        exponents = draw_exponents(net, feeds, 1)
        # ``stem`` is added to, ``join`` multiplied, ``gate`` and ``mix`` go to Sigmoid and Mul.
        for name in ("stem", "join", "gate", "mix"):
            assert not any(exponents[f"{name}.weight"]), name
        assert any(exponents["left.weight"])
        assert any(exponents["right.weight"])

    @pytest.mark.parametrize("name", ["first_relu", "sliced"])
    def test_outputs(self, graph_of: GraphOf, name: str) -> None:
        model = chain(graph_of, [("Conv", {})], also=name)
        found = find_exponents(model, {"first.weight": spread(8), "last.weight": spread(4)})
        kept = {"first_relu": range(8), "sliced": range(2, 6)}[name]
        for i, exponent in enumerate(found["first.weight"]):
            assert not (i in kept and exponent)
        if name == "sliced":
            assert any(found["first.weight"])

    def test_channel_that_nobody_reads(self, graph_of: GraphOf) -> None:
        model = chain(graph_of, [("Slice", {})])
        found = find_exponents(model, {"first.weight": spread(8), "last.weight": spread(4)})
        assert not any(found["first.weight"][i] for i in (0, 1, 6, 7))
        assert all(found["first.weight"][i] for i in (2, 4, 5))


@pytest.mark.parametrize(
    ("width", "group", "outputs"),
    [(8, 1, 4), (8, 8, 8), (8, 8, 16), (8, 2, 4), (8, 4, 8)],
    ids=["dense", "depthwise", "depthwise twice", "two groups", "four groups"],
)
def test_convolutions_of_any_grouping(
    graph_of: GraphOf, run_onnx: Run, width: int, group: int, outputs: int
) -> None:
    options = {"width": width, "group": group, "outputs": outputs}
    model = chain(graph_of, [("Conv", options)])
    found = find_exponents(model, {"first.weight": spread(8), "last.weight": spread(outputs)})
    feed = {"x": np.random.default_rng(2).normal(0, 1, (1, 3, 4, 4)).astype(np.float32)}
    expected = run_onnx(model, feed, optimised=False)
    given = run_onnx(equalise(model, found), feed, optimised=False)
    assert_close(given, expected)
    assert any(found["first.weight"]) == (group in (1, outputs)), "others stay as they are"


def test_dense_convolution_of_one_channel(graph_of: GraphOf, run_onnx: Run) -> None:
    """Its weight has the shape of a depthwise one's."""
    generator = np.random.default_rng(3)
    constants = {
        "first.weight": np.full((1, 3, 1, 1), 1e-3, np.float32),
        "last.weight": generator.normal(0, 1, (4, 1, 1, 1)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "first.weight"], ["first"], "node_first"),
        helper.make_node("Conv", ["first", "last.weight"], ["y"], "node_last"),
    ]
    inputs = {"x": (TensorProto.FLOAT, [1, 3, 4, 4])}
    model = graph_of(nodes, constants, inputs, {"y": [1, 4, 4, 4]})
    feed = {"x": generator.normal(0, 1, (1, 3, 4, 4)).astype(np.float32)}
    check_answers_stay(model, [feed], run_onnx)


def test_constants_that_layers_share(graph_of: GraphOf, run_onnx: Run) -> None:
    """Exporters store equal constants once: what one layer needs scaled, the other doesn't."""
    generator = np.random.default_rng(4)
    constants = {
        "first.weight": generator.normal(0, 1, (8, 3, 1, 1)).astype(np.float32),
        "weight": generator.normal(0, 1, (8, 8, 1, 1)).astype(np.float32),
        "bias": generator.normal(0, 1, 8).astype(np.float32),
        "last.weight": generator.normal(0, 1, (4, 8, 1, 1)).astype(np.float32),
    }
    constants["first.weight"] *= np.exp2(-np.arange(8, dtype=np.float32))[:, None, None, None]
    nodes = [
        helper.make_node("Conv", ["x", "first.weight", "bias"], ["a"], "node_a"),
        helper.make_node("Conv", ["a", "weight", "bias"], ["b"], "node_b"),
        helper.make_node("Relu", ["b"], ["b_relu"], "node_relu"),
        helper.make_node("Conv", ["b_relu", "weight"], ["c"], "node_c"),
        helper.make_node("Conv", ["c", "last.weight"], ["y"], "node_y"),
    ]
    inputs = {"x": (TensorProto.FLOAT, [1, 3, 4, 4])}
    model = graph_of(nodes, constants, inputs, {"y": [1, 4, 4, 4]})
    feed = {"x": generator.normal(0, 1, (1, 3, 4, 4)).astype(np.float32)}
    check_answers_stay(model, [feed], run_onnx)


def test_readers_whose_weights_are_zero(graph_of: GraphOf) -> None:
    model = chain(graph_of, [("Conv", {})])
    dead = with_constants(model, {"last.weight": np.zeros((4, 8, 1, 1), np.float32)})
    found = find_exponents(dead, {"first.weight": spread(8), "last.weight": np.zeros(4, "f4")})
    assert found["last.weight"] == (0,) * 4
    assert len(found["first.weight"]) == 8


@settings(max_examples=25, deadline=None)
@given(peaks=st.lists(st.floats(0, 2.0**60, width=32), min_size=8, max_size=8))
def test_exponents_are_bounded(graph_of: GraphOf, peaks: list[float]) -> None:
    model = chain(graph_of, [("Conv", {"group": 8, "outputs": 8})])
    given_peaks = {"first.weight": np.array(peaks, "f4"), "last.weight": np.ones(8, "f4")}
    found = find_exponents(model, given_peaks)["first.weight"]
    assert all(abs(exponent) <= MOST_EXPONENT for exponent in found)
    assert all(not e for e, peak in zip(found, peaks, strict=True) if not peak)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_peaks_that_are_no_numbers_are_refused(net: ModelProto, feeds: Any, value: float) -> None:
    bias = constants_of(net)["left.bias"].copy()
    bias[2] = value
    broken = with_constants(net, {"left.bias": bias})
    with pytest.raises(CalibrationError, match=r"left\.weight.*not finite"):
        measure_peaks(broken, feeds)


def test_badly_scaled_channels_gain(
    net: ModelProto, feeds: Any, quantise: Callable[..., Quantised]
) -> None:
    """A network whose ``left`` has channels from 1/256 to 1 of their size, undone by ``join``."""
    values = constants_of(net)
    shrunk = np.exp2(-np.arange(16, dtype=np.float32) / 2).round(6)
    values["left.weight"] = values["left.weight"] * shrunk[:, None, None, None]
    values["left.bias"] = values["left.bias"][:16] * shrunk
    join = values["join.weight"].copy()
    join[:, :16] /= shrunk[:, None, None]
    values["join.weight"] = join
    bad = with_constants(net, values)
    good = equalise(bad, find_exponents(bad, measure_peaks(bad, feeds)))

    def sqnr(model: ModelProto) -> float:
        quantised = quantise(model, feeds)
        pair = {"fc": quantised.rounded.get("fc", "fc")}
        return compare_tensors(model, quantised.model, pair, feeds, threads=1)["fc"]

    # A bit is 6 dB; eight channels of sixteen have lost more than four of their eight.
    assert sqnr(good) > sqnr(bad) + 3
