"""Folded zero-points: the same integers as with them, for every way that a tensor is made or read.

The oracle is the graph before folding, in ONNX Runtime.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mer_calibration import (
    DIALECTS,
    DialectError,
    Quantised,
    Range,
    check_dialect,
    find_foldable,
    fold_zero_points,
    place,
    quantise_graph,
)
from mer_calibration.graph.dialects import DialectName
from mer_calibration.graph.quantisation import choose_grids

Feed = Mapping[str, NDArray[Any]]
Pair = tuple[ModelProto, ModelProto]
Twice = Callable[..., Pair]
PORTABLE = DIALECTS["tensorrt"]
#: The dialects that fold: one has int8, the other uint8. Without rounding to float16, which shifts
#: a tensor by parts of a step, and with the names that tensors have in the float graph.
FOLDING = {
    name: dataclasses.replace(dialect, half_constants=False, space_to_depth=0)
    for name, dialect in DIALECTS.items()
    if dialect.fold_zero_points
}
ON_BOTH = pytest.mark.parametrize("dialect", FOLDING)


@pytest.fixture(scope="session")
def quantise_twice(ranges_of: Callable[..., Any]) -> Callable[..., Pair]:
    """``quantise_twice(model, feeds, dialect="tensorrt", keep_float=())``: ``model`` with its
    zero-points, and with them folded."""

    def give(
        model: ModelProto,
        feeds: Sequence[Feed],
        dialect: DialectName = "tensorrt",
        keep_float: Sequence[str] = (),
    ) -> Pair:
        ranges = ranges_of(model, feeds)
        before, after = (
            quantise_graph(model, ranges, FOLDING[dialect], keep_float, fold=fold).model
            for fold in (False, True)
        )
        return before, after

    return give


def run_with(model: ModelProto, names: Sequence[str], feed: Feed, run_onnx: Any) -> Any:
    """Those tensors of a graph, computed as it says."""
    import onnxruntime

    watched = ModelProto()
    watched.CopyFrom(model)
    outputs = {value.name for value in watched.graph.output}
    watched.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in outputs)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(list(names), dict(feed))


def integers_of(model: ModelProto) -> list[str]:
    return [n.output[0] for n in model.graph.node if n.op_type == "QuantizeLinear"]


def zero_points_of(model: ModelProto) -> dict[str, int]:
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    return {
        n.output[0]: int(constants[n.input[2]])
        for n in model.graph.node
        if n.op_type == "QuantizeLinear"
    }


def crop(x: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Without the border of one that it may have been given."""
    places = zip(x.shape, shape, strict=True)
    return x[tuple(slice(1, -1) if mine != wanted else slice(None) for mine, wanted in places)]


def read_integers(
    pair: Pair, feed: Feed, run_onnx: Any, most: int | None = None
) -> Iterator[tuple[str, NDArray[np.int_], NDArray[np.int_]]]:
    """Of the first tensors that both graphs round: name, and the integers of either graph."""
    before, after = pair
    names = [name for name in integers_of(before) if name in integers_of(after)][:most]
    found = (run_with(model, names, feed, run_onnx) for model in pair)
    for name, one, other in zip(names, *found, strict=True):
        yield name, one.astype(int), crop(other, one.shape).astype(int)


def check_same_integers(
    pair: Pair, feeds: Sequence[Feed], run_onnx: Any, folded: bool = True
) -> None:
    before, after = pair
    assert any(zero_points_of(before).values()) == folded
    assert not any(zero_points_of(after).values())
    for feed in feeds:
        for name, one, other in read_integers(pair, feed, run_onnx):
            off = np.abs(one - other)
            # Sums in another order: a value between two steps may go to either.
            assert off.max() <= 1, name
            assert off.mean() < 2e-3, name


@ON_BOTH
def test_same_integers(
    net: ModelProto, feeds: list[Any], run_onnx: Any, quantise_twice: Twice, dialect: DialectName
) -> None:
    check_same_integers(quantise_twice(net, feeds, dialect), feeds, run_onnx)


@ON_BOTH
@pytest.mark.parametrize("keep_float", [["left.weight"], ["join.weight", "stem.weight"]])
def test_layers_in_float_get_the_tensor_as_it_was(
    net: ModelProto,
    feeds: list[Any],
    run_onnx: Any,
    quantise_twice: Twice,
    dialect: DialectName,
    keep_float: list[str],
) -> None:
    check_same_integers(quantise_twice(net, feeds, dialect, keep_float), feeds, run_onnx)


@ON_BOTH
def test_real_encoder(
    encoder: ModelProto, crops: Feed, run_onnx: Any, quantise_twice: Twice, dialect: DialectName
) -> None:
    pair = quantise_twice(encoder, [crops], dialect)
    for name, one, other in read_integers(pair, crops, run_onnx, most=12):
        # As in check_same_integers; what was rounded the other way spreads with depth.
        assert np.abs(one - other).mean() < 0.02, name
    exact, one, other = (run_onnx(model, crops) for model in (encoder, *pair))
    assert np.square(one - other).mean() < np.square(one - exact).mean()


def test_constants_are_halves(net: ModelProto, feeds: list[Any], quantise: Any) -> None:
    for tensor in quantise(net, feeds, "tensorrt").model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            value = numpy_helper.to_array(tensor)
            assert np.array_equal(value, value.astype(np.float16)), tensor.name


def test_pixels_are_exact(
    net: ModelProto, feeds: list[Any], run_onnx: Any, quantise_twice: Twice
) -> None:
    """Less 128, and so is the border of zeros; a step of symmetric int8 is two of theirs."""
    _, after = quantise_twice(net, feeds)
    constants = {t.name: numpy_helper.to_array(t) for t in after.graph.initializer}
    (node,) = (n for n in after.graph.node if n.output[0] == "pixels_q")
    assert constants[node.input[1]] == 1
    (found,) = run_with(after, ["pixels_q"], feeds[0], run_onnx)
    bordered = np.pad(feeds[0]["faces"], ((0, 0), (1, 1), (1, 1), (0, 0)))
    assert np.array_equal(found, bordered.astype(int) - 128)


def test_relus_become_saturation(net: ModelProto, feeds: list[Any], quantise_twice: Twice) -> None:
    before, after = quantise_twice(net, feeds)

    def count(model: ModelProto, op_type: str) -> int:
        return sum(node.op_type == op_type for node in model.graph.node)

    # join's output goes on in float; the others are rounded.
    assert (count(before, "Relu"), count(after, "Relu")) == (4, 1)
    # The stem's border, and that of ``right``, whose half of the tensor others read too.
    assert count(after, "Pad") - count(before, "Pad") == 2


def test_twice_the_steps_for_what_is_never_negative(net: ModelProto) -> None:
    placement = place(net, float_outputs=True)
    found = Range(0, 6, 0, 6, 0)
    ranges = {source: found for source in placement.sources()}
    folded = find_foldable(net, placement)
    assert folded
    one, other = (choose_grids(placement, ranges, PORTABLE, some) for some in (folded, ()))
    for source in folded - {"pixels"}:
        assert one[source].scale == pytest.approx(other[source].scale * 127 / 255, rel=2**-9)
        assert (one[source].zero_point, other[source].zero_point) == (-128, 0)


def small(graph_of: Callable[..., ModelProto], nodes: list[Any], sizes: Any) -> ModelProto:
    """x (2, 16, 6, 6) through ``nodes`` to y, with drawn constants of those sizes."""
    generator = np.random.default_rng(0)
    constants = {
        name: (generator.normal(0, 1, size) / np.sqrt(np.prod(size[1:]))).astype(np.float32)
        for name, size in sizes.items()
    }
    made = [
        helper.make_node(op, ins.split(), outs.split(), f"n{i}", **attributes)
        for i, (op, ins, outs, attributes) in enumerate(nodes)
    ]
    shape = ["a", "b", "c", "d"] if nodes[-1][0] != "Gemm" else ["a", "b"]
    return graph_of(made, constants, {"x": (TensorProto.FLOAT, [2, 16, 6, 6])}, {"y": shape})


W, B = (16, 16, 1, 1), (16,)
CASES: dict[str, tuple[list[Any], dict[str, tuple[int, ...]]]] = {
    "graph's input": (
        [("Conv", "x w v", "a", {}), ("Conv", "a u v", "y", {})],
        {"w": W, "u": W, "v": B},
    ),
    "no ReLU": (
        [("Conv", "x w v", "a", {}), ("Sigmoid", "a", "s", {}), ("Conv", "s u v", "y", {})],
        {"w": W, "u": W, "v": B},
    ),
    "ReLU and sum share a grid": (
        [
            ("Conv", "x w v", "a", {}),
            ("Relu", "a", "r", {}),
            ("Add", "a x", "s", {}),
            ("Concat", "r s", "c", {"axis": 1}),
            ("Conv", "c big v", "y", {}),
        ],
        {"w": W, "v": B, "big": (16, 32, 1, 1)},
    ),
    "ReLU without a bias to hide in": (
        [("Conv", "x w", "a", {}), ("Relu", "a", "r", {}), ("Conv", "r u v", "y", {})],
        {"w": W, "u": W, "v": B},
    ),
    "layer that others read too": (
        [
            ("Conv", "x w v", "a", {}),
            ("Relu", "a", "r", {}),
            ("Conv", "r u v", "b", {}),
            ("Mul", "a b", "y", {}),
        ],
        {"w": W, "u": W, "v": B},
    ),
    "read in float too": (
        [
            ("Conv", "x w v", "a", {}),
            ("Relu", "a", "r", {}),
            ("Conv", "r u v", "b", {}),
            ("Mul", "r b", "y", {}),
        ],
        {"w": W, "u": W, "v": B},
    ),
    "linear layers": (
        [
            ("Conv", "x w v", "a", {}),
            ("Relu", "a", "r", {}),
            ("GlobalAveragePool", "r", "m", {}),
            ("Flatten", "m", "f", {}),
            ("Gemm", "f rows v", "g", {}),
            ("Relu", "g", "h", {}),
            ("Gemm", "h columns v", "y", {"transB": 1}),
        ],
        {"w": W, "v": B, "rows": (16, 16), "columns": (16, 16)},
    ),
    "one border for two": (
        [
            ("Conv", "x w v", "a", {}),
            ("Relu", "a", "r", {}),
            ("Conv", "r u v", "b", {}),
            ("Conv", "r deep v", "c", {"pads": [1, 1, 1, 1], "group": 16}),
            ("Conv", "r wide v", "d", {"pads": [1, 1, 1, 1]}),
            ("Sum", "b c d", "y", {}),
        ],
        {"w": W, "u": W, "v": B, "deep": (16, 1, 3, 3), "wide": (16, 16, 3, 3)},
    ),
}


@ON_BOTH
@pytest.mark.parametrize("case", CASES)
def test_ways_to_be_made_and_read(
    graph_of: Callable[..., ModelProto],
    run_onnx: Any,
    quantise_twice: Twice,
    dialect: DialectName,
    case: str,
) -> None:
    model = small(graph_of, *CASES[case])
    generator = np.random.default_rng(1)
    feeds = [{"x": generator.normal(0.3, 1, (2, 16, 6, 6)).astype(np.float32)} for _ in range(3)]
    pair = quantise_twice(model, feeds, dialect)
    # In uint8 a ReLU's values have zero-point 0, and without a bias x keeps int8 and 0.
    folded = not (dialect == "openvino" and case == "ReLU without a bias to hide in")
    check_same_integers(pair, feeds, run_onnx, folded)
    for feed in feeds:
        before, after, exact = (run_onnx(one, feed) for one in (*pair, model))
        error = np.sqrt(np.square(before - exact).mean())
        assert np.sqrt(np.square(after - before).mean()) < 0.3 * error  # flips of single steps
    pads = [node for node in pair[1].graph.node if node.op_type == "Pad"]
    # A ReLU's lowest value is 0 in uint8: nothing is folded, and a border of zeros stays one.
    assert len(pads) == (case == "one border for two" and dialect == "tensorrt")


class TestFindFoldable:
    def find(self, graph_of: Callable[..., ModelProto], nodes: list[Any], **sizes: Any) -> Any:
        model = small(graph_of, nodes, sizes)
        return find_foldable(model, place(model, float_outputs=True))

    def test_a_layer_without_a_bias_has_nowhere_to_put_it(
        self, graph_of: Callable[..., ModelProto]
    ) -> None:
        nodes = [("Conv", "x w v", "a", {}), ("Conv", "a u", "y", {})]
        assert self.find(graph_of, nodes, w=W, u=W, v=B) == {"x"}

    def test_readers_that_all_pad(self, graph_of: Callable[..., ModelProto]) -> None:
        padded = {"pads": [1, 1, 1, 1], "group": 16}
        nodes = [("Conv", "x w v", "a", {}), ("Conv", "a deep v", "y", padded)]
        assert self.find(graph_of, nodes, w=W, v=B, deep=(16, 1, 3, 3)) == {"x"}

    def test_what_the_graph_puts_out(self, graph_of: Callable[..., ModelProto]) -> None:
        nodes = [("Conv", "x w v", "y", {}), ("Conv", "y w v", "b", {})]
        assert self.find(graph_of, nodes, w=W, v=B) == {"x"}

    def test_real_encoder(self, encoder: ModelProto) -> None:
        placement = place(encoder, float_outputs=True)
        found = find_foldable(encoder, placement)
        assert {
            "relu",
            *(s for group in placement.groups if group.pixels for s in group.sources),
        } <= found
        assert "relu_2" not in found  # a depthwise convolution with a border reads it, nothing else


def test_output_keeps_its_zero_point(
    graph_of: Callable[..., ModelProto], quantise_twice: Twice
) -> None:
    """Folded by force it would come out shifted: it is left, and refused."""
    nodes = [("Conv", "x w v", "a", {}), ("Conv", "a u v", "y", {})]
    model = small(graph_of, nodes, {"w": W, "u": W, "v": B})
    before, _ = quantise_twice(model, [{"x": np.ones((2, 16, 6, 6), np.float32)}])
    given = ModelProto()
    given.CopyFrom(before)
    given.graph.output.append(onnx.ValueInfoProto(name="a_dq"))
    given.graph.output[-1].type.CopyFrom(given.graph.output[0].type)
    after = fold_zero_points(given)
    with pytest.raises(DialectError, match="'a' has zero-point"):
        check_dialect(after, PORTABLE)


@ON_BOTH
def test_nothing_to_fold(
    net: ModelProto, feeds: list[Any], quantise_twice: Twice, dialect: DialectName
) -> None:
    _, after = quantise_twice(net, feeds, dialect)
    assert fold_zero_points(after) == after


def test_tensors_that_are_shifted_are_not_compared(
    net: ModelProto, feeds: list[Any], quantise: Callable[..., Quantised]
) -> None:
    assert quantise(net, feeds, "tensorrt").rounded == {}
    assert quantise(net, feeds, "tensorrt", plain=True).rounded
