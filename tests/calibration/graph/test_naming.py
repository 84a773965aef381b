"""Short names change no answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from mer_calibration import DIALECTS, Quantised, check_dialect, shorten_names
from mer_calibration.graph.naming import Names


@pytest.mark.parametrize("dialect", DIALECTS)
def test_same_answers(
    net: ModelProto,
    feeds: list[Any],
    quantise: Callable[..., Quantised],
    run_onnx: Callable[..., Any],
    dialect: str,
) -> None:
    model = quantise(net, feeds, dialect).model
    before = model.SerializeToString()
    short = shorten_names(model)
    assert model.SerializeToString() == before
    onnx.checker.check_model(short, full_check=True)
    check_dialect(short, DIALECTS[dialect])  # type: ignore[index]
    assert np.array_equal(run_onnx(model, feeds[0]), run_onnx(short, feeds[0]))
    assert [v.name for v in short.graph.input] == ["faces"]
    assert [v.name for v in short.graph.output] == ["fc"]
    inner = {name for node in short.graph.node for name in (*node.input, *node.output)}
    assert max(len(name) for name in inner - {"faces", "fc"}) <= 2
    assert short.ByteSize() < 0.85 * model.ByteSize()


def test_layers_keep_theirs(
    net: ModelProto, feeds: list[Any], quantise: Callable[..., Quantised]
) -> None:
    """Profiles name nodes."""
    for model in (net, quantise(net, feeds).model):
        names = [node.name for node in shorten_names(model).graph.node]
        layers = [name for name in names if "/" not in name]
        assert layers == ["stem", "left", "right", "join", "gate", "mix", "fc"]


def test_every_node_has_a_name_of_its_own(graph_of: Callable[..., ModelProto]) -> None:
    """ONNX Runtime up to 1.21 refuses other graphs; two layers may share one weight."""
    weight = np.eye(2, dtype=np.float32)
    nodes = [onnx.helper.make_node("MatMul", ["x", "w.weight"], ["a"], "same")]
    nodes += [onnx.helper.make_node("Relu", [f"{'ab'[i]}"], [f"{'bc'[i]}"]) for i in range(2)]
    nodes += [onnx.helper.make_node("MatMul", ["c", "w.weight"], ["y"], "same")]
    model = graph_of(nodes, {"w.weight": weight}, {"x": (onnx.TensorProto.FLOAT, [2])}, {"y": [2]})
    names = [node.name for node in shorten_names(model).graph.node]
    assert names[0] == "w"
    assert all(names)
    assert len(set(names)) == len(names)


def test_inputs_left_out_stay_left_out(
    graph_of: Callable[..., ModelProto], run_onnx: Callable[..., Any]
) -> None:
    model = graph_of(
        [onnx.helper.make_node("Clip", ["x", "", "highest"], ["y"], "clip")],
        {"highest": np.float32(1)},
        {"x": (onnx.TensorProto.FLOAT, [2])},
        {"y": [2]},
    )
    short = shorten_names(model)
    assert short.graph.node[0].input[1] == ""
    assert run_onnx(short, {"x": np.float32([-5, 5])}).tolist() == [-5, 1]


def test_nodes_say_where_they_belong(
    net: ModelProto, feeds: list[Any], quantise: Callable[..., Quantised]
) -> None:
    """What quantisation adds is named after the layer, weight or input that it stands at."""
    named = ModelProto()
    named.CopyFrom(net)
    for node in named.graph.node:
        if node.op_type == "Relu":
            node.name = f"network.{node.output[0]}/Relu"
    graph = shorten_names(quantise(named, feeds).model).graph
    names = {node.name: node for node in graph.node}
    made = {name: node.name for node in graph.node for name in node.output}
    assert any(name.startswith("network.") and name.endswith("/Relu") for name in names)
    assert names["stem.weight/DequantizeLinear"].op_type == "DequantizeLinear"
    for node in graph.node:
        before = made.get(node.input[0], "")
        if node.op_type == "QuantizeLinear" and before:
            assert node.name.rpartition("/")[0] == before.partition("/")[0]


def test_equal_names_are_told_apart() -> None:
    names = Names(["a"])
    assert [names.add(one) for one in ("a", "a", "b", "a.2", "b")] == [
        "a.2",
        "a.3",
        "b",
        "a.2.2",
        "b.2",
    ]
