"""No sum that saturates: the rule, and who breaks it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from weighted_layers import DEPTHWISE, KINDS, ON_ALL, Kind, Weights, keep_rule, list_pairs, rows_of

from mer_calibration import (
    DIALECTS,
    Certificate,
    Quantised,
    SaturationError,
    certify,
    quantise_graph,
)
from mer_calibration.graph.grid import weight_scales, weight_steps
from mer_calibration.graph.saturation import LIMIT, find_pairs, is_depthwise, sum_pairs

GraphOf = Callable[..., ModelProto]


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
