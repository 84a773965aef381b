"""Names from the network's modules: ``encoder.stem.0`` says more than ``node_conv2d``."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from mer_calibration.graph.naming import Names
from mer_calibration.graph.placement import WEIGHTED

#: Where PyTorch's exporter says which modules a node was called in, outermost first; the last
#: entry is the operation itself.
SCOPES = "pkg.torch.onnx.name_scopes"
WEIGHT = ".weight"


def name_after_modules(model: ModelProto, parameters: Mapping[str, NDArray[Any]]) -> None:
    """Name nodes ``MODULE/OPERATOR``, and give weights that were folded their parameter's name.

    A node that no module is known for keeps its name, unless another has it. What the whole network
    does itself, outside of its modules, is named ``/OPERATOR``.

    Args:
        parameters: of the network that was exported, by name. The exporter transposes them, takes
            parts of them, and calls the outcome ``val_56``.
    """
    graph = model.graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    nodes, weights = Names(), Names(name.removesuffix(WEIGHT) for name in initializers)
    renamed: dict[str, str] = {}
    for node in graph.node:
        module = _find_module(node)
        node.name = nodes.add(node.name if module is None else f"{module}/{node.op_type}")
        if node.op_type not in WEIGHTED or node.input[1] not in initializers:
            continue
        weight = node.input[1]
        if weight not in parameters and weight not in renamed:
            value = numpy_helper.to_array(initializers[weight])
            layer = _find_parameter(value, parameters) or module or "network"
            renamed[weight] = f"{weights.add(layer)}{WEIGHT}"
    for old, new in renamed.items():
        initializers[old].name = new
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]


def _find_module(node: NodeProto) -> str | None:
    """Path of the module that a node was called in; empty for the network itself."""
    told = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), None)
    if told is None:
        return None
    try:
        scopes = ast.literal_eval(told)
    except (SyntaxError, ValueError):
        return None
    return str(scopes[-2]) if isinstance(scopes, list) and len(scopes) > 1 else None


def _find_parameter(value: NDArray[Any], parameters: Mapping[str, NDArray[Any]]) -> str | None:
    """The parameter (outputs, inputs) that a matrix (inputs, some outputs) is a part of."""
    if value.ndim != 2:
        return None
    rows = value.T
    for name, parameter in parameters.items():
        if parameter.ndim != 2 or parameter.shape[1] != rows.shape[1]:
            continue
        starts = range(0, len(parameter) - len(rows) + 1, len(rows))
        if any(np.array_equal(parameter[at : at + len(rows)], rows) for at in starts):
            return name.removesuffix(WEIGHT)
    return None
