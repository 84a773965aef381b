"""How a quantised graph stores the weights that stay float: as float16."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mer_calibration.graph.placement import WEIGHTED
from mer_calibration.graph.view import GraphView

#: Float weights with up to so many elements stay as they are.
SMALL = 64


def halve_weights(model: ModelProto) -> ModelProto:
    """``model`` with the weights that are still float stored as float16, and cast when it loads.

    Engines compute a node on a constant once, before they look for what to fuse. Weights with up
    to ``SMALL`` elements stay, and those that float16 doesn't hold (``fits_half``).
    """
    halved = ModelProto()
    halved.CopyFrom(model)
    graph = halved.graph
    weights = {node.input[1] for node in graph.node if node.op_type in WEIGHTED}
    casts = []
    for tensor in graph.initializer:
        value = numpy_helper.to_array(tensor)
        if tensor.name in weights and value.size > SMALL and fits_half(value):
            wide, tensor.name = tensor.name, f"{tensor.name}_half"
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float16), tensor.name))
            node = helper.make_node(
                "Cast", [tensor.name], [wide], f"{wide}_cast", to=TensorProto.FLOAT
            )
            casts.append(node)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(halved)
    return halved


def find_stored_weights(model: ModelProto, layers: Collection[str]) -> dict[str, NDArray[Any]]:
    """Weights of those ``layers`` that stayed float, as a graph stores them."""
    view = GraphView(model)
    halves = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    stored = {layer: halves.get(layer, layer) for layer in layers}
    return {layer: view.value(name) for layer, name in stored.items() if name in view.constants}


def fits_half(value: NDArray[Any]) -> bool:
    """Whether float16 holds float weights to 10 bits of the largest."""
    if value.dtype != np.float32:
        return False
    with np.errstate(over="ignore"):  # infinity doesn't fit
        lost = np.abs(value.astype(np.float16) - value)
    return bool(lost.max() <= np.abs(value).max() * 2**-10)
