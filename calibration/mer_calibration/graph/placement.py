"""Where Q/DQ pairs sit: at the inputs and outputs of weighted layers, and nowhere else.

Data movement (slices, concatenations, transposes, max-pools) computes nothing, so what goes in
and what comes out share one grid, and engines move integers. Tensors that are tied so form a
*group*; only a group's *sources*, which some operation computes, are rounded.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import onnx
from onnx import ModelProto, NodeProto

from mer_calibration.graph.view import GraphView

#: Operations whose second input is a weight.
WEIGHTED = ("Conv", "Gemm", "MatMul")
#: Operations that hand values on as they are; only their first inputs carry values ...
MOVES = (
    "Transpose",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Slice",
    "Split",
    "MaxPool",
    "Gather",
)
#: ... but all of a concatenation's do.
JOINS = ("Concat",)

#: Layers with fewer channels, in or out, stay float: the classifier, the first MFCC layer.
NARROW = 16
PIXEL_CHANNELS = 3


@dataclass(frozen=True)
class WeightedLayer:
    """A weighted operation, with the ReLU after it if there is one.

    Attributes:
        name: that of its weight.
        node, op_type: of the weighted operation.
        data, weight, bias: names of its inputs; ``bias`` may be empty.
        axis: of the weight's output channels.
        groups: of a convolution; 1 of anything else.
        output: the tensor that leaves the layer, after the ReLU.
    """

    name: str
    node: str
    op_type: str
    data: str
    weight: str
    bias: str
    axis: int
    groups: int
    output: str


@dataclass(frozen=True)
class Group:
    """Tensors that share one grid.

    Attributes:
        sources: those of them that an operation computes, in the graph's order.
        members: all of them.
        pixels: it starts from the graph's uint8 input, whose grid is known.
    """

    sources: tuple[str, ...]
    members: frozenset[str]
    pixels: bool


@dataclass(frozen=True)
class Placement:
    """What is quantised in a graph."""

    layers: tuple[WeightedLayer, ...]
    groups: tuple[Group, ...]

    def sources(self) -> tuple[str, ...]:
        """The tensors to observe: a grid of known size needs none."""
        return tuple(s for group in self.groups if not group.pixels for s in group.sources)


def find_layers(model: ModelProto) -> tuple[WeightedLayer, ...]:
    """Every operation with a constant weight, in the graph's order."""
    view = GraphView(model)
    readers = view.readers
    layers = []
    for node in model.graph.node:
        if node.op_type not in WEIGHTED or node.input[1] not in view.constants:
            continue
        following = readers[node.output[0]]
        has_relu = len(following) == 1 and following[0].op_type == "Relu"
        layers.append(
            WeightedLayer(
                name=node.input[1],
                node=node.name,
                op_type=node.op_type,
                data=node.input[0],
                weight=node.input[1],
                bias=node.input[2] if len(node.input) > 2 else "",
                axis=output_axis(node),
                groups=count_groups(node),
                output=following[0].output[0] if has_relu else node.output[0],
            )
        )
    return tuple(layers)


def place(
    model: ModelProto,
    keep_float: Collection[str] = (),
    *,
    float_outputs: bool = False,
    float_products: bool = False,
) -> Placement:
    """Decide what is rounded in ``model``, a float graph.

    Args:
        keep_float: names of layers that stay as they are.
        float_outputs: int8 layers may give floats, as engines but ONNX Runtime have them:
            what no other int8 layer reads isn't rounded.
        float_products: what is multiplied by another activation and read by no int8 layer
            isn't rounded.
    """
    view = GraphView(model)
    producers, readers, outputs = view.producers, view.readers, view.outputs
    layers = tuple(
        layer
        for layer in find_layers(model)
        if layer.name not in keep_float and not is_narrow(layer, view)
    )
    wanted = {layer.data for layer in layers}
    if not float_outputs:  # Conv has no mixed form in ONNX Runtime: integers in, integers out
        wanted |= {layer.output for layer in layers if layer.output not in outputs}
    ties = _Ties()
    pending = list(wanted)
    while pending:
        tensor = pending.pop()
        ties.add(tensor)
        node = producers.get(tensor)
        if node is not None and _moves(node):
            for name in _carried(node):
                if name not in ties:
                    pending.append(name)
                ties.join(tensor, name)
            for name in node.output:  # all parts of a split
                if name not in ties:
                    pending.append(name)
                ties.join(tensor, name)
        for reader in readers[tensor]:
            if carries(reader, tensor):
                pending += [name for name in reader.output if name not in ties]
    order = {name: i for i, node in enumerate(model.graph.node) for name in node.output}
    groups = []
    for members in ties.groups():
        if (
            float_products
            and not any(layer.data in members for layer in layers)
            and any(is_product(reader, view) for m in members for reader in readers[m])
        ):
            continue
        computed = [m for m in members if m not in producers or not _moves(producers[m])]
        sources = tuple(sorted(computed, key=lambda name: order.get(name, -1)))
        pixels = all(_is_cast_input(producers.get(source), model) for source in sources)
        groups.append(Group(sources, frozenset(members), pixels))
    groups.sort(key=lambda group: order.get(group.sources[0], -1))
    return Placement(layers, tuple(groups))


def is_narrow(layer: WeightedLayer, view: GraphView) -> bool:
    """Whether a layer is too small to gain (``has_few_channels``)."""
    return has_few_channels(layer.op_type, tuple(view.constants[layer.weight].dims))


def has_few_channels(op_type: str, shape: Sequence[int]) -> bool:
    """Whether a weight of that shape has fewer than ``NARROW`` channels in or out.

    The first convolution's doesn't count: its three channels of pixels are integers already.
    """
    if op_type == "Conv" and shape[1] == 1:
        return shape[0] < NARROW  # depthwise
    first, second = shape[0], shape[1]
    pixels = op_type == "Conv" and second == PIXEL_CHANNELS
    return min(first, second) < NARROW and not pixels


def is_product(node: NodeProto, view: GraphView) -> bool:
    """Whether a node multiplies two activations, as attention does."""
    return node.op_type == "MatMul" and view.constants.keys().isdisjoint(node.input)


def carries(node: NodeProto, tensor: str) -> bool:
    """Whether ``node`` hands ``tensor`` on as it is."""
    return _moves(node) and tensor in _carried(node)


def _moves(node: NodeProto) -> bool:
    return node.op_type in MOVES or node.op_type in JOINS


def _carried(node: NodeProto) -> list[str]:
    return list(node.input) if node.op_type in JOINS else [node.input[0]]


def _is_cast_input(node: NodeProto | None, model: ModelProto) -> bool:
    inputs: dict[str, int]
    inputs = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    return (
        node is not None
        and node.op_type == "Cast"
        and inputs.get(node.input[0]) == onnx.TensorProto.UINT8
    )


def output_axis(node: NodeProto) -> int:
    """Of a weighted operation's weight: the axis of its output channels."""
    if node.op_type == "Conv":
        return 0
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if transposed else 1


def count_groups(node: NodeProto) -> int:
    """Of a weighted operation: in how many groups its channels are taken apart."""
    return next((int(a.i) for a in node.attribute if a.name == "group"), 1)


class _Ties:
    """Disjoint sets of names."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._parents

    def add(self, name: str) -> None:
        self._parents.setdefault(name, name)

    def join(self, a: str, b: str) -> None:
        self.add(a)
        self.add(b)
        self._parents[self._root(a)] = self._root(b)

    def groups(self) -> list[list[str]]:
        found: dict[str, list[str]] = {}
        for name in self._parents:
            found.setdefault(self._root(name), []).append(name)
        return list(found.values())

    def _root(self, name: str) -> str:
        while self._parents[name] != name:
            name = self._parents[name]
        return name


def factors_of(name: str) -> str:
    """The constant that gives the channels of a tensor back what they were divided by."""
    return f"{name}_factors"
