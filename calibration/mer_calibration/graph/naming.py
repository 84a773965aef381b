"""Short names: in a graph of 2 MB, long ones weigh a tenth."""

from __future__ import annotations

from onnx import ModelProto

from mer_calibration.graph.placement import WEIGHTED


def shorten_names(model: ModelProto) -> ModelProto:
    """``model`` with its inner tensors and its nodes numbered; inputs and outputs keep their names.

    Weighted operations are named after their weight, for profiles. No two nodes have one name, and
    none has no name: ONNX Runtime up to 1.21 names what it makes of nodes after them, and refuses
    a graph in which two names are the same.
    """
    short = ModelProto()
    short.CopyFrom(model)
    graph = short.graph
    # Of two layers with one weight, the first has its name.
    firsts = {
        _layer_name(node.input[1]): node.output[0]
        for node in reversed(graph.node)
        if node.op_type in WEIGHTED
    }
    layers = {output: name for name, output in firsts.items()}
    names: dict[str, str] = {value.name: value.name for value in (*graph.input, *graph.output)}
    names[""] = ""  # an input that is left out

    def shorten(name: str) -> str:
        return names.setdefault(name, f"{len(names):x}")

    for tensor in graph.initializer:
        tensor.name = shorten(tensor.name)
    for i, node in enumerate(graph.node):
        # The dot keeps numbers apart from a layer that is named "fc".
        node.name = layers.get(node.output[0], f".{i:x}")
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
