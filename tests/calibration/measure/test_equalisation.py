"""Channels scaled: the same answers, finer grids."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from mer_calibration import (
    DIALECTS,
    CalibrationError,
    Probe,
    Quantised,
    check_dialect,
    compare_tensors,
    quantise_graph,
)
from mer_calibration.graph.dialects import DialectName
from mer_calibration.measure.equalisation import (
    MOST_EXPONENT,
    OCTAVE,
    equalise,
    find_exponents,
    measure_peaks,
)

GraphOf = Callable[..., ModelProto]
Run = Callable[..., NDArray[np.float32]]


def constants_of(model: ModelProto) -> dict[str, NDArray[Any]]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def with_constants(model: ModelProto, values: Mapping[str, NDArray[Any]]) -> ModelProto:
    changed = ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    return changed


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


def to_octaves(exponents: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The nearest whole octaves: powers of two, which scale without rounding."""
    return {name: tuple(OCTAVE * round(e / OCTAVE) for e in es) for name, es in exponents.items()}


def assert_close(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Apart by roundings of float32 alone: 2^-24 of each term, in sums of up to a thousand."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


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


def spread(channels: int) -> NDArray[np.float32]:
    """Peaks of which only that of channel 3 is the largest."""
    peaks = np.float32(2.0) ** -np.arange(2, channels + 2)
    peaks[min(3, channels - 1)] = 1
    return peaks.astype(np.float32)


def chain(graph_of: GraphOf, middle: list[tuple[str, Any]], also: str = "") -> ModelProto:
    """x (1, 3, 4, 4) through ``first`` (8 channels), one operation, and ``last`` to y.

    ``also`` is given out too; ``sliced`` are channels 2 to 5 of ``first``.
    """
    generator = np.random.default_rng(1)
    ((kind, options),) = middle
    width = {"Slice": 4}.get(kind, options.get("width", 8))
    group = options.get("group", 1)
    constants = {
        "first.weight": generator.normal(0, 1, (8, 3, 1, 1)).astype(np.float32),
        "first.bias": generator.normal(0, 1, 8).astype(np.float32),
        "last.weight": generator.normal(
            0, 1, (options.get("outputs", 4), width // group, 1, 1)
        ).astype(np.float32),
        "starts": np.array([2]),
        "ends": np.array([6]),
        "axes": np.array([1]),
    }
    steps: list[NodeProto] = [
        helper.make_node("Conv", ["x", "first.weight", "first.bias"], ["first"], "node_first"),
        helper.make_node("Relu", ["first"], ["first_relu"], "node_relu"),
        helper.make_node("Slice", ["first_relu", "starts", "ends", "axes"], ["sliced"], "cut"),
    ]
    data = "first_relu"
    if kind == "Slice":
        data = "sliced"
    elif kind == "Concat":
        steps.append(helper.make_node("Concat", [data, data], ["wide"], "join", **options))
        data = "wide"
    steps.append(helper.make_node("Conv", [data, "last.weight"], ["y"], "node_last", group=group))
    if data != "sliced" and also != "sliced":
        del steps[2]
    outputs: dict[str, Any] = {"y": [1, "c", 4, "w"]}
    if also:
        outputs[also] = [1, "d", 4, 4]
    return graph_of(steps, constants, {"x": (TensorProto.FLOAT, [1, 3, 4, 4])}, outputs)


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


def two_layers(graph_of: GraphOf, *nodes: NodeProto, also: str = "") -> ModelProto:
    """x (1, 16, 4, 4) through ``left`` with a ReLU and ``right``, both of 16 channels of very
    different sizes, and ``nodes`` from ``left_relu`` and ``right`` to ``z``, which ``last`` reads.
    """
    generator = np.random.default_rng(5)
    constants: dict[str, NDArray[Any]] = {}
    for name, least in (("left", -8), ("right", -6), ("last", 0)):
        sizes = np.exp2(generator.permutation(np.linspace(least, 0, 16))).astype(np.float32)
        weight = generator.normal(0, 0.3, (16, 16, 1, 1)).astype(np.float32)
        constants[f"{name}.weight"] = weight * sizes[:, None, None, None]
        constants[f"{name}.bias"] = generator.normal(0, 0.3, 16).astype(np.float32) * sizes

    def layer(name: str, data: str, output: str) -> NodeProto:
        inputs = [data, f"{name}.weight", f"{name}.bias"]
        return helper.make_node("Conv", inputs, [output], f"node_{name}")

    steps = [
        layer("left", "x", "left"),
        helper.make_node("Relu", ["left"], ["left_relu"], "node_relu"),
        layer("right", "x", "right"),
        *nodes,
        layer("last", "z", "y"),
    ]
    outputs: dict[str, Any] = {"y": [1, 16, "h", "w"]}
    if also:
        outputs[also] = [1, 16, 4, 4]
    return graph_of(steps, constants, {"x": (TensorProto.FLOAT, [1, 16, 4, 4])}, outputs)


@pytest.fixture(scope="module")
def pictures() -> list[dict[str, NDArray[Any]]]:
    generator = np.random.default_rng(6)
    return [{"x": generator.normal(0, 1, (1, 16, 4, 4)).astype(np.float32)} for _ in range(4)]


def check_answers_stay(model: ModelProto, feeds: Any, run_onnx: Run) -> None:
    exponents = find_exponents(model, measure_peaks(model, feeds))
    octaves = to_octaves(exponents)
    for feed in feeds:
        expected = run_onnx(model, feed, optimised=False)
        given = run_onnx(equalise(model, octaves), feed, optimised=False)
        np.testing.assert_array_equal(given, expected)
        assert_close(run_onnx(equalise(model, exponents), feed, optimised=False), expected)


class TestJoinedInSpace:
    """Several channels become one, which has one factor."""

    JOIN = helper.make_node("Concat", ["left_relu", "right"], ["z"], "join", axis=3)

    def test_one_factor(self, graph_of: GraphOf, pictures: Any, run_onnx: Run) -> None:
        model = two_layers(graph_of, self.JOIN)
        found = find_exponents(model, measure_peaks(model, pictures))
        assert found["left.weight"] == found["right.weight"]
        assert len(set(found["left.weight"])) > 5
        check_answers_stay(model, pictures, run_onnx)

    def test_parts_of_one_tensor(self, graph_of: GraphOf, run_onnx: Run) -> None:
        model = chain(graph_of, [("Concat", {"axis": 3})])
        found = find_exponents(model, {"first.weight": spread(8), "last.weight": spread(4)})
        assert any(found["first.weight"])
        feed = {"x": np.random.default_rng(2).normal(0, 1, (1, 3, 4, 4)).astype(np.float32)}
        assert_close(
            run_onnx(equalise(model, found), feed, optimised=False),
            run_onnx(model, feed, optimised=False),
        )

    def test_ties_reach_on(self, graph_of: GraphOf, pictures: Any, run_onnx: Run) -> None:
        """Through a second join, of what was joined with one of its parts."""
        nodes = [
            helper.make_node("Concat", ["left_relu", "right"], ["wide"], "join", axis=3),
            helper.make_node("Concat", ["wide", "right"], ["z"], "join_again", axis=3),
        ]
        model = two_layers(graph_of, *nodes)
        found = find_exponents(model, measure_peaks(model, pictures))
        assert found["left.weight"] == found["right.weight"]
        assert any(found["left.weight"])
        check_answers_stay(model, pictures, run_onnx)

    def test_one_that_is_fixed_fixes_all(self, graph_of: GraphOf, pictures: Any) -> None:
        model = two_layers(graph_of, self.JOIN, also="right")
        found = find_exponents(model, measure_peaks(model, pictures))
        assert not any(found["left.weight"])
        assert not any(found["right.weight"])


class TestReadByASum:
    """A sum gets the channels back as they were."""

    SUM = (
        helper.make_node("Sigmoid", ["right"], ["gate"], "gate"),
        helper.make_node("Add", ["left_relu", "gate"], ["z"], "sum"),
    )

    def test_all_channels_get_one_peak(self, graph_of: GraphOf, pictures: Any) -> None:
        model = two_layers(graph_of, *self.SUM)
        peaks = measure_peaks(model, pictures)
        found = find_exponents(model, peaks)
        before = peaks["left.weight"]
        after = before / np.exp2(np.divide(found["left.weight"], OCTAVE))
        # Rounding the exponent leaves half a step either way.
        most = 1.0001 * 2 ** (0.5 / OCTAVE)
        assert (after <= before.max() * most).all()
        assert (after >= before.max() / most).all()
        assert before.min() < before.max() / 16, "they were alike before"
        assert not any(found["right.weight"]), "what reads it doesn't scale"

    def test_answers_stay_equal(self, graph_of: GraphOf, pictures: Any, run_onnx: Run) -> None:
        model = two_layers(graph_of, *self.SUM)
        check_answers_stay(model, pictures, run_onnx)
        exponents = find_exponents(model, measure_peaks(model, pictures))
        kinds = [node.op_type for node in equalise(model, exponents).graph.node]
        assert kinds.count("Mul") == 1

    @pytest.mark.parametrize(
        "node",
        [
            helper.make_node("Concat", ["z", "left_relu"], ["more"], "more", axis=1),
            helper.make_node("Sigmoid", ["left_relu"], ["more"], "more"),
            helper.make_node("Add", ["left_relu", "z"], ["more"], "more"),
        ],
        ids=lambda node: str(node.op_type),
    )
    def test_what_others_read_too_stays(
        self, graph_of: GraphOf, pictures: Any, node: NodeProto
    ) -> None:
        model = two_layers(graph_of, *self.SUM, node)
        found = find_exponents(model, measure_peaks(model, pictures))
        assert not any(found["left.weight"])

    @pytest.mark.parametrize("dialect", DIALECTS)
    def test_sum_of_two_stays(
        self,
        graph_of: GraphOf,
        pictures: Any,
        run_onnx: Run,
        quantise: Callable[..., Quantised],
        dialect: DialectName,
    ) -> None:
        """ONNX Runtime has an int8 sum, and that has one scale for all channels."""
        model = two_layers(graph_of, helper.make_node("Add", ["left_relu", "right"], ["z"], "sum"))
        found = find_exponents(model, measure_peaks(model, pictures))
        assert not any(found["left.weight"])
        assert not any(found["right.weight"])
        run_onnx(quantise(equalise(model, found), pictures, dialect).model, pictures[0], int8=True)

    @pytest.mark.parametrize("dialect", DIALECTS)
    def test_costs_nothing_on_integers(
        self,
        graph_of: GraphOf,
        pictures: Any,
        run_onnx: Run,
        quantise: Callable[..., Quantised],
        dialect: DialectName,
    ) -> None:
        """Each channel is dequantised with a scale of its own, and engines compute that."""
        model = two_layers(graph_of, *self.SUM)
        equal = equalise(model, find_exponents(model, measure_peaks(model, pictures)))
        quantised = quantise(equal, pictures, dialect).model
        kinds = [node.op_type for node in quantised.graph.node]
        assert kinds.count("Mul") == (0 if DIALECTS[dialect].channel_scales else 1)
        check_dialect(quantised, DIALECTS[dialect])
        for feed in pictures:
            expected = run_onnx(model, feed)
            for optimised in (True, False):
                found = run_onnx(quantised, feed, optimised=optimised, int8=True)
                # Three layers of 8 bits.
                assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max()

    @pytest.mark.parametrize("dialect", ["x86", "arm"])
    def test_faint_channels_gain(
        self,
        graph_of: GraphOf,
        pictures: Any,
        quantise: Callable[..., Quantised],
        dialect: DialectName,
    ) -> None:
        model = two_layers(graph_of, *self.SUM)
        peaks = measure_peaks(model, pictures)
        equal = equalise(model, find_exponents(model, peaks))
        faint = peaks["left.weight"] < peaks["left.weight"].max() / 16
        assert faint.sum() > 4

        def measure(graph: ModelProto, tensor: str) -> float:
            """Noise of the faint channels, as the sum reads them."""
            exact, given = Probe(model, ["left_relu"]), Probe(graph, [tensor])
            errors = [exact.read(feed)["left_relu"] - given.read(feed)[tensor] for feed in pictures]
            return float(np.square(np.concatenate(errors)[:, faint]).mean())

        before = measure(quantise(model, pictures, dialect).model, "left_relu_dq")
        after = measure(quantise(equal, pictures, dialect).model, "left_relu_restored")
        # Four bits more; but weights and pixels are rounded as before.
        assert after < 0.1 * before


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
    found = find_exponents(model, measure_peaks(model, [feed]))
    assert_close(
        run_onnx(equalise(model, found), feed, optimised=False),
        run_onnx(model, feed, optimised=False),
    )


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
    found = find_exponents(model, measure_peaks(model, [feed]))
    assert_close(
        run_onnx(equalise(model, found), feed, optimised=False),
        run_onnx(model, feed, optimised=False),
    )


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


class TestPixelMeans:
    """What rounded weights of the first layer add to bright pictures is taken off its bias."""

    def test_shift_of_the_mean_vanishes(
        self, net: ModelProto, ranges_of: Callable[..., Any]
    ) -> None:
        means = (90.0, 140.0, 200.0)
        plain = np.broadcast_to(np.array(means, np.uint8), (1, 8, 8, 3)).copy()
        feed = {"faces": plain}
        ranges = ranges_of(net, [feed])
        errors = {}
        for name, given_means in (("plain", ()), ("corrected", means)):
            # Without rounding the bias to float16.
            dialect = dataclasses.replace(DIALECTS["tensorrt"], half_constants=False)
            model = quantise_graph(net, ranges, dialect, (), given_means, fold=False).model
            bias = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
            weight = bias["stem.weight_q"] * bias["stem.weight_scale"][:, None, None, None]
            used = bias["stem.bias_corrected" if given_means else "stem.bias"]
            original = constants_of(net)
            exact = original["stem.weight"].sum(axis=(2, 3)) @ means + original["stem.bias"]
            errors[name] = np.abs(weight.sum(axis=(2, 3)) @ np.array(means) + used - exact).max()
        # Of sums near 100, in float32.
        assert errors["corrected"] < 1e-4
        assert errors["plain"] > 10 * errors["corrected"]

    def test_other_layers_keep_their_bias(
        self, net: ModelProto, feeds: Any, ranges_of: Callable[..., Any]
    ) -> None:
        dialect, means = DIALECTS["tensorrt"], (128.0,) * 3
        model = quantise_graph(net, ranges_of(net, feeds), dialect, (), means, fold=False).model
        names = {t.name for t in model.graph.initializer if t.name.endswith("_corrected")}
        assert names == {"stem.bias_corrected"}
