"""Layers and operations of OpenVINO's IR."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from mer_calibration.graph.naming import SLASH
from mer_export.inspection.layers import FP16, FP32, INT8, InspectedGraph, InspectedLayer, Reasons
from mer_runtime.bundle import FACES
from mer_runtime.engines.ir_check import check_ir, check_sizes
from mer_runtime.errors import MissingExtraError

#: Operations that multiply, to ONNX's names of them.
MULTIPLYING = {"Convolution": "Conv", "GroupConvolution": "Conv", "MatMul": "MatMul"}
#: What stands between a stored weight and what reads it.
STORING = ("Convert", "Multiply", "Subtract", "Reshape", "FakeQuantize", "Transpose")
KINDS = {"i8": INT8, "u8": INT8, "f16": FP16, "f32": FP32}


def inspect_ir(
    name: str, text: bytes, weights: bytes, crops: int, reasons: Reasons, floats: str = FP32
) -> InspectedGraph:
    """Describe a graph.

    Args:
        text, weights: content of the ``.xml`` and the ``.bin`` file.
        crops: of a window, where a batch is left open.
        floats: what OpenVINO is told to compute floats in, whatever weights are stored as.

    Raises:
        MissingExtraError: OpenVINO isn't installed.
        ValueError, RuntimeError: it isn't IR that ``mer-export`` writes.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino", "inspecting its graphs") from error
    check_ir(text)
    model = openvino.Core().read_model(text, weights)
    if any(FACES in port.get_names() for port in model.inputs):
        (port,) = model.inputs
        model.reshape(
            {FACES: [crops, *(size.get_length() for size in list(port.partial_shape)[1:])]}
        )
    check_sizes(model, crops)
    layers, operations = [], Counter[tuple[str, str]]()
    for operation in model.get_ordered_ops():
        kind = operation.get_type_name()
        if kind in ("Parameter", "Result", "Constant"):
            continue
        made = operation.output(0).get_element_type().get_type_name()
        operations[kind, KINDS.get(made, made)] += 1
        if kind in MULTIPLYING:
            shape, precision = _find_weight(operation, floats)
            called = operation.get_friendly_name()
            layer = called.partition(SLASH)[0] or called
            flat = _as_onnx(kind, shape)
            reason = reasons.find(layer, MULTIPLYING[kind], precision, flat)
            layers.append(
                InspectedLayer(name, layer, kind, precision, shape, _count(operation), reason)
            )
    return InspectedGraph(name, tuple(layers), operations)


def _find_weight(operation: Any, floats: str) -> tuple[tuple[int, ...], str]:
    """Shape of a layer's weight, none for an activation, and what numbers it is multiplied in."""
    node, rounded = operation.input_value(1).get_node(), False
    shape = tuple(operation.input_value(1).get_shape())
    while node.get_type_name() in STORING:
        rounded |= node.get_type_name() == "FakeQuantize"
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Constant":
        return (), INT8 if rounded else floats
    stored = node.get_element_type().get_type_name()
    return shape, INT8 if KINDS.get(stored) == INT8 else floats


def _as_onnx(kind: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A grouped convolution's weight (G, O, I, …) as ONNX has it: (G O, I, …)."""
    if kind == "GroupConvolution" and shape:
        return (shape[0] * shape[1], *shape[2:])
    return shape


def _count(operation: Any) -> int:
    """Multiplications of one layer."""
    kind, made = operation.get_type_name(), math.prod(operation.get_output_shape(0))
    if kind == "MatMul":
        first = list(operation.input_value(0).get_shape())
        inner = first[-2] if operation.get_attributes().get("transpose_a") else first[-1]
        return int(made * inner)
    weight = tuple(operation.input_value(1).get_shape())
    return int(made * math.prod(_as_onnx(kind, weight)[1:]))
