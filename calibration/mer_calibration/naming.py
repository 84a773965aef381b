"""Short names: in a graph of 2 MB, long ones weigh a tenth."""

from __future__ import annotations

from onnx import ModelProto

from mer_calibration.placement import WEIGHTED


def shorten_names(model: ModelProto) -> ModelProto:
    """``model`` with its inner tensors numbered; inputs and outputs keep their names.

    Weighted operations are named after their weight, for profiles; other nodes need no name.
    """
    short = ModelProto()
    short.CopyFrom(model)
    graph = short.graph
    layers = {
        node.output[0]: _layer_name(node.input[1])
        for node in graph.node
        if node.op_type in WEIGHTED
    }
    names: dict[str, str] = {value.name: value.name for value in (*graph.input, *graph.output)}
    names[""] = ""  # an input that is left out

    def shorten(name: str) -> str:
        return names.setdefault(name, f"{len(names):x}")

    for tensor in graph.initializer:
        tensor.name = shorten(tensor.name)
    for node in graph.node:
        node.name = layers.get(node.output[0], "")
        inputs = [shorten(name) for name in node.input]
        outputs = [shorten(name) for name in node.output]
        del node.input[:], node.output[:]
        node.input.extend(inputs)
        node.output.extend(outputs)
    del graph.value_info[:]
    return short


def _layer_name(weight: str) -> str:
    for ending in ("_dq", ".weight"):
        weight = weight.removesuffix(ending)
    return weight
