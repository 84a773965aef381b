"""Names of a graph that is written: nodes say where they belong, tensors are short.

In a graph of 2 MB, long names of tensors weigh a tenth.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from onnx import ModelProto, NodeProto

from mer_calibration.graph.placement import WEIGHTED
from mer_calibration.graph.view import GraphView

#: Between a node's place and its operator.
SLASH = "/"
#: What quantisation puts behind the name of a constant.
ADDED = re.compile(r"(_again|_corrected|_bias_folded|_joined|_half|_q|_dq)+$")


class Names:
    """Names that are taken: each is given once."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._counts: dict[str, int] = {}

    def add(self, name: str) -> str:
        """``name``, or where it is taken ``name.2``, ``name.3`` and so on."""
        given, count = name, self._counts.get(name, 1)
        while given in self._taken:
            count += 1
            given = f"{name}.{count}"
        self._counts[name] = count
        self._taken.add(given)
        return given


def shorten_names(model: ModelProto) -> ModelProto:
    """``model`` with its inner tensors numbered; inputs and outputs keep their names.

    Nodes are named for profiles and viewers. A weighted operation has its layer's name, which is
    that of its weight: ``encoder.stem.0``. Any other is named ``PLACE/OPERATOR``: with the place
    that its name says already, or else with that of what it reads. No two nodes have one name, and
    none has no name: ONNX Runtime up to 1.21 names what it makes of nodes after them, and refuses
    a graph in which two names are the same.
    """
    short = ModelProto()
    short.CopyFrom(model)
    graph = short.graph
    _name_nodes(short)
    names: dict[str, str] = {value.name: value.name for value in (*graph.input, *graph.output)}
    names[""] = ""  # an input that is left out

    def shorten(name: str) -> str:
        return names.setdefault(name, f"{len(names):x}")

    for tensor in graph.initializer:
        tensor.name = shorten(tensor.name)
    for node in graph.node:
        inputs = [shorten(name) for name in node.input]
        outputs = [shorten(name) for name in node.output]
        del node.input[:], node.output[:]
        node.input.extend(inputs)
        node.output.extend(outputs)
    del graph.value_info[:]
    return short


def layer_name(weight: str) -> str:
    """A layer is called as its weight, without what says that it is one."""
    return ADDED.sub("", weight).removesuffix(".weight")


def _name_nodes(model: ModelProto) -> None:
    view, names = GraphView(model), Names()
    places: dict[str, str] = {}  # by tensor: where what computes it belongs

    def find_place(node: NodeProto) -> str:
        if SLASH in node.name:
            return node.name.rpartition(SLASH)[0]
        source = next(iter(node.input), "")
        return ADDED.sub("", source) if source in view.constants else places.get(source, source)

    for node in model.graph.node:
        if node.op_type in WEIGHTED and _is_layer(node, view):
            place = layer_name(node.input[1])
            node.name = names.add(place)
        else:
            place = find_place(node)
            node.name = names.add(f"{place}{SLASH}{node.op_type}")
        places.update(dict.fromkeys(node.output, place))


def _is_layer(node: NodeProto, view: GraphView) -> bool:
    """Whether a weighted operation's second input is a weight, and no activation."""
    weight = node.input[1]
    made = view.producers.get(weight)
    if made is None:
        return weight in view.constants
    return made.op_type in ("DequantizeLinear", "Cast") and made.input[0] in view.constants
