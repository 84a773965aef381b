"""A graph's constants, producers and readers, looked up once."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from typing import Any

from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper


class GraphView:
    """What one asks of a graph by a tensor's name.

    Each table is made when it is first asked for. Who changes the graph keeps its tables true.
    """

    def __init__(self, model: ModelProto) -> None:
        self.graph: GraphProto = model.graph

    @cached_property
    def constants(self) -> dict[str, TensorProto]:
        """The graph's constants."""
        return {tensor.name: tensor for tensor in self.graph.initializer}

    @cached_property
    def producers(self) -> dict[str, NodeProto]:
        """For each tensor that is computed, the node that computes it."""
        return {name: node for node in self.graph.node for name in node.output}

    @cached_property
    def readers(self) -> defaultdict[str, list[NodeProto]]:
        """For each tensor, the nodes that read it; none for others."""
        found: defaultdict[str, list[NodeProto]] = defaultdict(list)
        for node in self.graph.node:
            for name in node.input:
                found[name].append(node)
        return found

    @cached_property
    def outputs(self) -> frozenset[str]:
        """What the graph puts out."""
        return frozenset(value.name for value in self.graph.output)

    def value(self, name: str) -> NDArray[Any]:
        """A constant."""
        return numpy_helper.to_array(self.constants[name])

    def values(self) -> dict[str, NDArray[Any]]:
        """All constants."""
        return {name: numpy_helper.to_array(tensor) for name, tensor in self.constants.items()}


def find_index(graph: GraphProto, node: NodeProto) -> int:
    """Where ``node``, or the one with its output, stands in ``graph``."""
    (at,) = (i for i, one in enumerate(graph.node) if one.output[0] == node.output[0])
    return at
