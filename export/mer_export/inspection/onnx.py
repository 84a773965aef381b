"""Layers and operations of an ONNX graph."""

from __future__ import annotations

from collections import Counter

import onnx
from onnx import ModelProto, NodeProto, TensorProto

from mer_calibration.graph.placement import MOVES, WEIGHTED
from mer_calibration.graph.view import GraphView
from mer_export.inspection.layers import FP16, FP32, INT8, InspectedGraph, InspectedLayer, Reasons
from mer_runtime.engines.graph_check import find_sizes, measure_node
from mer_runtime.engines.wire import read_graph

#: What types of elements are called here; others go by ONNX's name.
KINDS = {
    TensorProto.INT8: INT8,
    TensorProto.UINT8: INT8,
    TensorProto.FLOAT16: FP16,
    TensorProto.FLOAT: FP32,
}


def inspect_onnx(name: str, content: bytes, crops: int, reasons: Reasons) -> InspectedGraph:
    """Describe a graph.

    Args:
        content: an ONNX file.
        crops: of a window, where a batch is left open.

    Raises:
        ValueError: it isn't one that ``mer-export`` writes.
    """
    model = onnx.load_model_from_string(content)
    kinds = _find_kinds(model)
    view = GraphView(model)
    graph = read_graph(content)
    known = find_sizes(graph, crops)
    layers = []
    for node, measured in zip(model.graph.node, graph.nodes, strict=True):
        before = known.products
        measure_node(measured, known)
        if node.op_type not in WEIGHTED:
            continue
        shape, precision = _find_weight(node, view, kinds)
        reason = reasons.find(node.name, node.op_type, precision, shape)
        macs = known.products - before
        layers.append(InspectedLayer(name, node.name, node.op_type, precision, shape, macs, reason))
    operations = Counter(
        (node.op_type, kinds.get(node.output[0], "other")) for node in model.graph.node
    )
    return InspectedGraph(name, tuple(layers), operations)


def _find_kinds(model: ModelProto) -> dict[str, str]:
    """What each tensor's elements are."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in inferred.initializer}
    return {
        name: KINDS.get(kind, TensorProto.DataType.Name(kind).lower())
        for name, kind in types.items()
    }


def _find_weight(
    node: NodeProto, view: GraphView, kinds: dict[str, str]
) -> tuple[tuple[int, ...], str]:
    """Shape of a layer's weight, none for an activation, and what numbers it is multiplied in."""
    second = node.input[1]
    made = view.producers.get(second)
    while made is not None and made.op_type in MOVES:
        made = view.producers.get(made.input[0])
    dequantised = made is not None and made.op_type == "DequantizeLinear"
    stored = second
    if made is not None and made.op_type in ("DequantizeLinear", "Cast"):
        stored = made.input[0]
    shape = tuple(view.constants[stored].dims) if stored in view.constants else ()
    return shape, INT8 if dequantised else kinds[node.output[0]]
