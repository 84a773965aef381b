"""What is quantised where, on a small net with every pattern of the encoder, and on the encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from mer_calibration import place
from mer_calibration.graph.placement import MOVES, find_layers, is_narrow
from mer_calibration.graph.view import GraphView

QUANTISED = ("stem", "left", "right", "join", "fc")


def test_layers(net: ModelProto) -> None:
    found = {layer.name: layer for layer in find_layers(net)}
    assert list(found) == [
        f"{n}.weight" for n in ("stem", "left", "right", "join", "gate", "mix", "fc")
    ]
    stem, right, fc = (found[f"{name}.weight"] for name in ("stem", "right", "fc"))
    assert (stem.node, stem.data, stem.bias) == ("node_stem", "planes", "stem.bias")
    assert stem.output == "stem_relu"  # past the ReLU
    assert (right.output, fc.output) == ("right_relu", "fc")
    assert (stem.axis, fc.axis, fc.op_type) == (0, 0, "Gemm")
    narrow = [name for name, layer in found.items() if is_narrow(layer, GraphView(net))]
    assert narrow == ["gate.weight", "mix.weight"]
    assert [layer.name for layer in place(net).layers] == [f"{n}.weight" for n in QUANTISED]


def test_what_moves_together_shares_a_group(net: ModelProto) -> None:
    placement = place(net)
    groups = {group.sources: group for group in placement.groups}
    assert set(groups) == {
        ("pixels",),
        ("stem_relu",),
        ("left_relu", "right_relu"),
        ("join_relu",),
        ("mean",),
    }
    assert groups["pixels",].pixels
    assert groups["pixels",].members == {"pixels", "planes"}
    assert groups["stem_relu",].members == {"stem_relu", "pooled", "half_1", "half_2"}
    assert groups["left_relu", "right_relu"].members == {"left_relu", "right_relu", "both"}
    # The gate, the sum and the answer are no layer's input: they stay float.
    assert placement.sources() == ("stem_relu", "left_relu", "right_relu", "join_relu", "mean")


def test_outputs_that_may_be_float(net: ModelProto) -> None:
    """Only float operations read what ``join`` puts out; the rest goes on into layers."""
    placement = place(net, float_outputs=True)
    assert placement.layers == place(net).layers
    assert placement.sources() == ("stem_relu", "left_relu", "right_relu", "mean")
    kept = place(net, ["join.weight"], float_outputs=True)
    assert kept.sources() == ("stem_relu", "mean")


def test_layers_kept_float(net: ModelProto) -> None:
    placement = place(net, ["join.weight", "fc.weight"])
    assert [layer.name for layer in placement.layers] == [f"{n}.weight" for n in QUANTISED[:3]]
    assert ("mean",) not in [group.sources for group in placement.groups]
    assert ("left_relu", "right_relu") in [group.sources for group in placement.groups]  # outputs
    assert place(net, [f"{n}.weight" for n in QUANTISED]).groups == ()


def test_weights_of_matrix_products(graph_of: Callable[..., ModelProto]) -> None:
    """The channels of a weight (in, out) lie along axis 1; a product of activations is no layer."""
    ones = np.ones((16, 32), np.float32)
    model = graph_of(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"], "product"),
            helper.make_node("Gemm", ["a", "v"], ["b"], "linear", transB=0),
            helper.make_node("Transpose", ["b"], ["t"], "turn"),
            helper.make_node("MatMul", ["b", "t"], ["y"], "attention"),
        ],
        {"w": ones, "v": ones.T.copy()},
        {"x": (TensorProto.FLOAT, [4, 16])},
        {"y": [4, 4]},
    )
    assert [(layer.name, layer.axis, layer.bias) for layer in find_layers(model)] == [
        ("w", 1, ""),
        ("v", 1, ""),
    ]
    groups = place(model).groups
    assert [group.sources for group in groups] == [("x",), ("a",), ("b",)]
    assert groups[2].members == {"b", "t"}


def test_products_that_may_be_float(graph_of: Callable[..., ModelProto]) -> None:
    """What an int8 layer reads is rounded all the same; what only a product reads isn't."""
    generator = np.random.default_rng(0)
    weights = {name: generator.normal(0, 1, (16, 16)).astype(np.float32) for name in "qkv"}
    nodes = [
        *(helper.make_node("MatMul", ["x", name], [f"to_{name}"], name) for name in "qkv"),
        helper.make_node("Transpose", ["to_k"], ["turned"], "turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["to_q", "turned"], ["scores"], "scores"),
        helper.make_node("MatMul", ["scores", "to_v"], ["y"], "attention"),
    ]
    inputs = {"x": (TensorProto.FLOAT, [1, 4, 16])}
    model = graph_of(nodes, weights, inputs, {"y": [1, 4, 16]})
    assert place(model).sources() == ("x", "to_q", "to_k", "to_v")
    assert place(model, float_products=True).sources() == ("x",)
    assert place(model, float_products=True).layers == place(model).layers


@pytest.fixture(scope="module")
def placed(encoder: ModelProto) -> Any:
    return place(encoder)


def test_encoder_has_whole_blocks_of_channels(encoder: ModelProto, placed: Any) -> None:
    """ONNX Runtime 1.23 on AMX sums wrongly where outputs aren't a multiple of 16 (issue 26324)."""
    shapes = {t.name: tuple(t.dims) for t in encoder.graph.initializer}
    assert len(placed.layers) == 68
    odd = {
        layer.name: shapes[layer.weight]
        for layer in placed.layers
        if shapes[layer.weight][layer.axis] % 16
    }
    assert odd == {}


def test_encoder_rounds_only_what_is_computed(encoder: ModelProto, placed: Any) -> None:
    producers = {name: node.op_type for node in encoder.graph.node for name in node.output}
    for group in placed.groups:
        for source in group.sources:
            assert producers[source] not in (*MOVES, "Concat")
    kinds = {producers[source] for source in placed.sources()}
    # Shifted pixels, convolutions with and without ReLU, the add that the next stage reads.
    assert kinds == {"Sub", "Conv", "Relu", "Add"}
    # The groups take every layer's input and output, and no tensor is in two.
    members = [name for group in placed.groups for name in group.members]
    assert len(members) == len(set(members))
    assert {layer.data for layer in placed.layers} <= set(members)
