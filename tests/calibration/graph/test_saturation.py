"""No sum that saturates: the rule, who breaks it, and what happens to them without VNNI."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from mer_calibration import (
    DIALECTS,
    Certificate,
    Quantised,
    SaturationError,
    certify,
    quantise_graph,
)
from mer_calibration.graph.dialects import round_to_half
from mer_calibration.graph.grid import SMALLEST_SCALE, weight_scales, weight_steps
from mer_calibration.graph.saturation import (
    LIMIT,
    find_pairs,
    is_depthwise,
    sum_pairs,
    widen_scales,
)
from mer_calibration.graph.weights import apply_roundings
from mer_calibration.measure.gptq import find_roundings

GraphOf = Callable[..., ModelProto]
Weights = NDArray[np.int8]


class Kind(NamedTuple):
    """A weighted layer: its weight's shape, output channels' axis, inputs, attributes."""

    op_type: str
    shape: tuple[int, ...]
    axis: int
    inputs: tuple[int, ...]
    options: dict[str, Any]

    @property
    def groups(self) -> int:
        return int(self.options.get("group", 1))


KINDS = {
    "pointwise": Kind("Conv", (16, 16, 1, 1), 0, (16, 4, 4), {}),
    "window": Kind("Conv", (16, 16, 3, 3), 0, (16, 5, 5), {}),
    "odd window": Kind("Conv", (16, 17, 3, 3), 0, (17, 5, 5), {}),
    "pixels": Kind("Conv", (16, 3, 3, 3), 0, (3, 5, 5), {}),
    "odd pointwise": Kind("Conv", (16, 17, 1, 1), 0, (17, 4, 4), {}),
    "row": Kind("Conv", (16, 16, 3), 0, (16, 9), {}),
    "groups": Kind("Conv", (32, 16, 3, 3), 0, (32, 5, 5), {"group": 2}),
    "several of one": Kind("Conv", (32, 1, 3, 3), 0, (16, 5, 5), {"group": 16}),
    "two of one": Kind("Conv", (16, 2, 3, 3), 0, (32, 5, 5), {"group": 16}),
    "single input": Kind("Conv", (16, 1, 3, 3), 0, (1, 5, 5), {}),
    "product": Kind("MatMul", (16, 18), 1, (4, 16), {}),
    "odd product": Kind("MatMul", (17, 16), 1, (4, 17), {}),
    "linear": Kind("Gemm", (16, 18), 1, (16,), {}),
    "turned": Kind("Gemm", (18, 16), 0, (16,), {"transB": 1}),
}
DEPTHWISE = Kind("Conv", (16, 1, 3, 3), 0, (16, 5, 5), {"group": 16})
ON_ALL = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def make_layers(graph_of: GraphOf, *layers: tuple[Kind, Weights]) -> ModelProto:
    """A graph of layers side by side, ``w0`` to ``wn``, whose weights are int8 constants."""
    nodes: list[NodeProto] = []
    constants: dict[str, NDArray[Any]] = {}
    inputs, outputs = {}, {}
    for i, (kind, steps) in enumerate(layers):
        scales = np.ones(steps.shape[kind.axis], np.float32)
        constants |= {f"w{i}_q": steps, f"w{i}_scale": scales}
        given = [f"w{i}_q", f"w{i}_scale"]
        nodes += [
            helper.make_node("DequantizeLinear", given, [f"w{i}"], f"d{i}", axis=kind.axis),
            helper.make_node(kind.op_type, [f"x{i}", f"w{i}"], [f"y{i}"], f"n{i}", **kind.options),
        ]
        inputs[f"x{i}"] = (TensorProto.FLOAT, [1, *kind.inputs])
        rank = len(kind.inputs) + 1
        outputs[f"y{i}"] = [f"s{i}_{axis}" for axis in range(rank)]
    return graph_of(nodes, constants, inputs, outputs)


def rows_of(weights: NDArray[Any], axis: int) -> NDArray[Any]:
    """Each output channel's weights: (O, K), flattened in the array's order."""
    return (weights if axis == 0 else weights.T).reshape(weights.shape[axis], -1)


def list_pairs(kind: Kind) -> list[tuple[int, int]]:
    """By hand: which weights of an output channel, flattened, stand side by side."""
    if kind.axis == 1:
        inputs, places = kind.shape[0], [0]
    else:
        inputs = kind.shape[1]
        places = list(range(int(np.prod(kind.shape[2:]))))
    in_memory = [channel * len(places) + place for place in places for channel in range(inputs)]
    if inputs % 2 and len(places) > 1:
        return list(itertools.pairwise(in_memory))
    return [
        (in_memory[first + channel], in_memory[first + channel + 1])
        for first in range(0, len(in_memory), inputs)
        for channel in range(0, inputs - 1, 2)
    ]


def keep_rule(weights: Weights, kind: Kind) -> bool:
    """By hand."""
    for row in rows_of(weights, kind.axis).astype(int).tolist():
        for i, j in list_pairs(kind):
            pair = (row[i], row[j])
            if sum(w for w in pair if w > 0) > LIMIT or sum(w for w in pair if w < 0) < -LIMIT:
                return False
    return True


def draw_steps(kind: Kind, seed: int) -> Weights:
    """Any int8 weights that keep the rule; some pairs reach its limit."""
    generator = np.random.default_rng(seed)
    steps = generator.integers(-64, 65, kind.shape).astype(np.int8)
    rows_of(steps, kind.axis)[0, :2] = 64  # a view: the array itself changes
    return steps


def plant(steps: Weights, kind: Kind, channel: int, pair: int, values: tuple[int, int]) -> Weights:
    """Other values for one pair, and nothing that its neighbours could overflow by."""
    planted = steps.copy()
    rows = planted if kind.axis == 0 else planted.T
    flat = rows[channel].reshape(-1)  # a view, but of a turned matrix
    flat[:] = 0
    flat[list(list_pairs(kind)[pair])] = values
    rows[channel] = flat.reshape(rows[channel].shape)
    return planted


class TestPairs:
    @ON_ALL
    def test_neighbours(self, kind: Kind) -> None:
        found = {tuple(sorted(pair)) for pair in find_pairs(kind.shape, kind.axis).tolist()}
        assert found == {tuple(sorted(pair)) for pair in list_pairs(kind)}

    @ON_ALL
    def test_sums(self, kind: Kind) -> None:
        steps = np.random.default_rng(0).integers(-128, 128, kind.shape).astype(np.int8)
        found = sum_pairs(steps, kind.axis)
        pairs = find_pairs(kind.shape, kind.axis).tolist()
        assert found.shape == (kind.shape[kind.axis], len(pairs))
        for channel, row in enumerate(rows_of(steps, kind.axis).astype(int).tolist()):
            for number, (i, j) in enumerate(pairs):
                positive = max(row[i], 0) + max(row[j], 0)
                negative = min(row[i], 0) + min(row[j], 0)
                assert found[channel, number] == max(positive, -negative)

    def test_depthwise(self) -> None:
        assert is_depthwise(DEPTHWISE.shape, DEPTHWISE.groups)
        assert not any(is_depthwise(kind.shape, kind.groups) for kind in KINDS.values())


class TestCertify:
    @ON_ALL
    def test_layer_that_keeps_the_rule(self, kind: Kind, graph_of: GraphOf) -> None:
        steps = draw_steps(kind, 1)
        found = certify(make_layers(graph_of, (kind, steps)))
        assert found.layers == 1
        assert found.pairs == kind.shape[kind.axis] * len(list_pairs(kind))
        assert found.largest == sum_pairs(steps, kind.axis).max() <= LIMIT
        assert found.limit == LIMIT
        assert str(LIMIT) in found.rule

    @ON_ALL
    @pytest.mark.parametrize("values", [(127, 2), (65, 64), (-127, -2), (-128, -1), (2, 127)])
    def test_planted_violations(
        self, kind: Kind, values: tuple[int, int], graph_of: GraphOf
    ) -> None:
        """One pair of one channel, in the second of two layers."""
        generator = np.random.default_rng(2)
        steps = draw_steps(kind, 3)
        channel = int(generator.integers(kind.shape[kind.axis]))
        pair = int(generator.integers(len(list_pairs(kind))))
        planted = plant(steps, kind, channel, pair, values)
        with pytest.raises(SaturationError) as caught:
            certify(make_layers(graph_of, (kind, steps), (kind, planted)))
        assert (caught.value.layer, caught.value.channel) == ("w1_q", channel)
        places = " and ".join(map(str, list_pairs(kind)[pair]))
        text = str(caught.value)
        assert text.startswith("layer 'w1_q' can overflow on x86 processors without VNNI: ")
        assert f"in output channel {channel} weights {places} sum to {abs(sum(values))} " in text
        assert text.endswith("calibrate again")
        assert "\n" not in text

    @ON_ALL
    @pytest.mark.parametrize("values", [(127, 1), (64, 64), (-127, -1), (-128, 0), (127, -128)])
    def test_planted_pairs_at_the_limit(
        self, kind: Kind, values: tuple[int, int], graph_of: GraphOf
    ) -> None:
        planted = plant(draw_steps(kind, 3), kind, 2, 0, values)
        assert certify(make_layers(graph_of, (kind, planted))).largest == LIMIT

    @pytest.mark.parametrize("name", ["window", "row", "product", "turned"])
    def test_weights_that_are_no_neighbours(self, name: str, graph_of: GraphOf) -> None:
        """Channels 1 and 2, and one channel's places: they are added in 32 bits."""
        kind = KINDS[name]
        steps = np.zeros(kind.shape, np.int8)
        channels = steps if kind.axis == 0 else steps.T
        channels[:, 1:3] = 127
        assert certify(make_layers(graph_of, (kind, steps))).largest == 127

    def test_depthwise_layers_have_no_pairs(self, graph_of: GraphOf) -> None:
        steps = np.full(DEPTHWISE.shape, 127, np.int8)
        assert certify(make_layers(graph_of, (DEPTHWISE, steps))) == Certificate(0, 0, 0)

    def test_odd_channel_at_the_end_is_alone(self, graph_of: GraphOf) -> None:
        """But only where there is one place: elsewhere the next place's first channel follows."""
        for name, broken in (("odd pointwise", False), ("odd product", False), ("pixels", True)):
            kind = KINDS[name]
            steps = np.zeros(kind.shape, np.int8)
            channels = steps if kind.axis == 0 else steps.T
            channels[:, -1] = channels[:, 0] = 127
            model = make_layers(graph_of, (kind, steps))
            if broken:
                with pytest.raises(SaturationError):
                    certify(model)
            else:
                assert certify(model).largest == 127

    def test_counts_are_of_all_layers(self, graph_of: GraphOf) -> None:
        layers = [(kind, draw_steps(kind, i)) for i, kind in enumerate(KINDS.values())]
        each = [certify(make_layers(graph_of, layer)) for layer in layers]
        found = certify(make_layers(graph_of, *layers, (DEPTHWISE, draw_steps(DEPTHWISE, 0))))
        assert found.layers == len(layers)
        assert found.pairs == sum(one.pairs for one in each)
        assert found.largest == max(one.largest for one in each)
        joined = each[0].join(each[1])
        assert joined == certify(make_layers(graph_of, *layers[:2]))

    def test_float_graph_has_nothing_to_certify(self, net: ModelProto) -> None:
        assert certify(net) == Certificate(0, 0, 0)

    @pytest.mark.parametrize("dialect", DIALECTS)
    def test_every_graph_that_is_written_is_certified(
        self, net: ModelProto, feeds: Any, quantise: Callable[..., Quantised], dialect: str
    ) -> None:
        """The weights of ``net`` at their nearest steps would break the rule."""
        quantised = quantise(net, feeds, dialect)
        floats = {t.name: numpy_helper.to_array(t) for t in net.graph.initializer}
        dense = [layer for layer in quantised.placement.layers if layer.name != "right.weight"]
        sums = [
            sum_pairs(
                weight_steps(weight, weight_scales(weight, layer.axis), layer.axis), layer.axis
            ).max()
            for layer in dense
            for weight in [floats[layer.weight]]
        ]
        assert max(sums) > LIMIT
        assert quantised.certificate == certify(quantised.model)
        assert quantised.certificate.layers == len(dense) == 4
        assert LIMIT - 4 <= quantised.certificate.largest <= LIMIT

    def test_first_layer_on_blocks_of_pixels(
        self, graph_of: GraphOf, ranges_of: Callable[..., Any]
    ) -> None:
        """Other neighbours than before: twelve channels, of four pixels in a row."""
        generator = np.random.default_rng(0)
        nodes = [
            helper.make_node("Cast", ["faces"], ["pixels"], "cast", to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["pixels"], ["x"], "turn", perm=[0, 3, 1, 2]),
            helper.make_node(
                "Conv", ["x", "w", "b"], ["stem"], "stem", strides=[2, 2], pads=[1] * 4
            ),
            helper.make_node("Relu", ["stem"], ["stem_relu"], "relu"),
            helper.make_node("Sigmoid", ["stem_relu"], ["y"], "end"),
        ]
        constants = {
            "w": generator.uniform(-1, 1, (16, 3, 3, 3)).astype(np.float32),
            "b": np.zeros(16, np.float32),
        }
        inputs = {"faces": (TensorProto.UINT8, [1, 16, 16, 3])}
        model = graph_of(nodes, constants, inputs, {"y": [1, 16, 8, 8]})
        feed = {"faces": generator.integers(0, 256, (1, 16, 16, 3)).astype(np.uint8)}
        ranges = ranges_of(model, [feed])
        written = quantise_graph(model, ranges, DIALECTS["x86"])
        (weight,) = (t for t in written.model.graph.initializer if t.name == "w_q")
        steps = numpy_helper.to_array(weight)
        assert steps.shape == (32, 12, 3, 2)
        assert written.certificate.pairs == 32 * 6 * 6
        # A pair across two pixels is none of one pixel's three channels.
        tampered = steps.copy()
        tampered[5, [2, 3], 1, 1] = 127
        weight.CopyFrom(numpy_helper.from_array(tampered, "w_q"))
        with pytest.raises(SaturationError, match="output channel 5 "):
            certify(written.model)


def multiply_add(inputs: NDArray[np.uint8], weights: NDArray[np.int8]) -> NDArray[np.int16]:
    """``vpmaddubsw``: the products of neighbours (..., 2 n) added in 16 bits, (..., n)."""
    products = inputs.astype(np.int32) * weights.astype(np.int32)
    sums = products[..., ::2] + products[..., 1::2]
    return np.asarray(np.clip(sums, -(2**15), 2**15 - 1).astype(np.int16))


def find_worst(weights: NDArray[np.int8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Inputs that make sums largest and smallest: nothing is beyond all of one sign."""
    positive = np.where(weights > 0, 255, 0).astype(np.uint8)
    return positive, np.where(weights < 0, 255, 0).astype(np.uint8)


def saturates(weights: Weights, kind: Kind) -> bool:
    """Whether any sum of neighbours leaves 16 bits for the inputs that are worst for it."""
    rows = rows_of(weights, kind.axis)
    neighbours = rows[:, list_pairs(kind)].reshape(len(rows), -1)
    for inputs in find_worst(neighbours):
        exact = inputs.astype(np.int64) * neighbours
        if (multiply_add(inputs, neighbours) != exact[:, ::2] + exact[:, 1::2]).any():
            return True
    return False


class TestMultiplyAdd:
    """The rule is just what the instruction needs: one step more, and it saturates."""

    def test_instruction(self) -> None:
        inputs = np.array([255, 255, 255, 255, 1, 2], np.uint8)
        weights = np.array([127, 127, -128, -128, 3, -4], np.int8)
        assert multiply_add(inputs, weights).tolist() == [32767, -32768, -5]

    @ON_ALL
    @given(data=st.data())
    @settings(deadline=None, max_examples=15)
    def test_worst_inputs_of_what_is_certified(
        self, kind: Kind, graph_of: GraphOf, data: st.DataObject
    ) -> None:
        weights = data.draw(drawn.arrays(np.int8, kind.shape, elements=st.integers(-64, 64)))
        channel = data.draw(st.integers(0, kind.shape[kind.axis] - 1))
        values = data.draw(st.tuples(st.integers(-128, 127), st.integers(-128, 127)))
        pair = data.draw(st.integers(0, len(list_pairs(kind)) - 1))
        planted = plant(weights, kind, channel, pair, values)
        try:
            certify(make_layers(graph_of, (kind, planted)))
        except SaturationError:
            assert not keep_rule(planted, kind)
        else:
            assert keep_rule(planted, kind)
            assert not saturates(planted, kind)

    @ON_ALL
    @pytest.mark.parametrize("values", [(127, 2), (65, 64), (-127, -2), (-65, -64)])
    def test_worst_inputs_of_what_is_not(self, kind: Kind, values: tuple[int, int]) -> None:
        assert saturates(plant(draw_steps(kind, 0), kind, 3, 1, values), kind)


#: Weights as networks have them, and far from it.
magnitudes = st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 1e3, 1e30])


@st.composite
def float_weights(draw: st.DrawFn, kind: Kind) -> NDArray[np.float32]:
    """Of any spread: channels of very different sizes, some dead, some with one large weight."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.sampled_from(["uniform", "normal", "equal", "signs", "rare"]))
    size = kind.shape
    values = {
        "uniform": lambda: generator.uniform(-1, 1, size),
        "normal": lambda: generator.normal(0, 0.3, size),
        "equal": lambda: np.full(size, 0.7),
        "signs": lambda: generator.choice([-1.0, 1.0], size),
        "rare": lambda: generator.choice([0.0, 0.01, 1.0], size),
    }[shape]()
    rows = values if kind.axis == 0 else values.T
    for channel in range(min(4, len(rows))):
        rows[channel] *= draw(magnitudes)
    return np.asarray(values, np.float32)


class TestWidenScales:
    @ON_ALL
    @given(data=st.data())
    @settings(deadline=None, max_examples=25)
    def test_nearest_steps_keep_the_rule(self, kind: Kind, data: st.DataObject) -> None:
        """On the scales found, on those of float16 above them, and on any that are wider."""
        weights = data.draw(float_weights(kind))
        finest = weight_scales(weights, kind.axis)
        found = widen_scales(finest, weights, kind.axis, kind.groups)
        assert found.dtype == np.float32
        assert (found >= finest).all()
        # At most as wide as half the steps would be, and no wider than needed.
        assert (found <= 2.05 * finest).all()
        wider = found * np.float32(data.draw(st.floats(1, 4, width=32)))
        halves = round_to_half(np.minimum(found, 1000))
        for scales in (found, np.maximum(found, halves), wider):
            steps = weight_steps(weights, scales, kind.axis)
            assert keep_rule(steps, kind)

    @ON_ALL
    def test_scales_that_are_safe_stay(self, kind: Kind) -> None:
        weights = np.zeros(kind.shape, np.float32)
        rows = weights if kind.axis == 0 else weights.T
        rows[:, -1] = 0.3
        if kind.shape[1 - kind.axis] == 1 or kind.shape[1 - kind.axis] % 2:
            rows[...] = 0
            rows.reshape(len(rows), -1)[:, 0] = 0.3
        finest = weight_scales(weights, kind.axis)
        assert (finest > SMALLEST_SCALE).all()
        np.testing.assert_array_equal(widen_scales(finest, weights, kind.axis, kind.groups), finest)

    def test_depthwise_scales_stay(self) -> None:
        weights = np.ones(DEPTHWISE.shape, np.float32)
        finest = weight_scales(weights)
        assert widen_scales(finest, weights, 0, DEPTHWISE.groups) is finest
        assert (widen_scales(finest, weights, 0) > finest).all()


@ON_ALL
@given(data=st.data())
@settings(deadline=None, max_examples=4)
def test_weights_rounded_together_keep_the_rule(
    kind: Kind, graph_of: GraphOf, data: st.DataObject
) -> None:
    """Any weights through ``find_roundings``."""
    weights = data.draw(float_weights(kind))
    weights = np.where(np.abs(weights) < 1e20, weights, 1).astype(np.float32)  # products overflow
    node = helper.make_node(kind.op_type, ["x", "w"], ["y"], "layer", **kind.options)
    rank = len(kind.inputs) + 1
    inputs = {"x": (TensorProto.FLOAT, [1, *kind.inputs])}
    outputs = {"y": [f"s{axis}" for axis in range(rank)]}
    model = graph_of([node], {"w": weights}, inputs, outputs)
    generator = np.random.default_rng(data.draw(st.integers(0, 99)))
    feeds = [
        {"x": np.maximum(generator.normal(0.3, 1, (1, *kind.inputs)), 0).astype(np.float32)}
        for _ in range(3)
    ]
    rounded = apply_roundings(model, find_roundings(model, feeds, threads=1))
    for layer in rounded.values():
        assert keep_rule(layer.steps, kind)
    # Narrow ones stay float.
    assert bool(rounded) == (min(kind.shape[:2]) >= 16 or kind.shape[1] in (1, 3))
