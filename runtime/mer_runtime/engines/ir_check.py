"""The same for OpenVINO's IR: layers of a list alone, and sizes that a device can hold."""

from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree

from mer_runtime.engines.graph_check import MOST_HELD, MOST_NODES

#: Bytes of the text; ours has 700 000.
MOST_TEXT = 1 << 24
#: What OpenVINO makes of the operators of ``graph_rules``.
LAYERS = """
Abs Add AvgPool BatchNormInference Ceiling Clamp Concat Const Convert Convolution Cos DepthToSpace
Divide Elu Equal Erf Exp FakeQuantize Floor Gather Gelu Greater GreaterEqual GroupConvolution
GroupNormalization HSigmoid HSwish Less LessEqual Log LogSoftmax LogicalAnd LogicalNot LogicalOr
LogicalXor MVN MatMul MaxPool Maximum Minimum Mish Multiply Negative NormalizeL2 NotEqual PRelu
Pad Parameter Power ReLU ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
Reshape Result Round ScaledDotProductAttention Select Selu ShapeOf ShuffleChannels Sigmoid Sign
Sin Slice SoftMax SoftPlus SoftSign Softmax SpaceToDepth Split Sqrt SquaredDifference Squeeze
StridedSlice Subtract Swish Tanh Transpose Unsqueeze VariadicSplit
"""
#: Layers whose other inputs say how large the result is: OpenVINO computes those while it reads.
SHAPED = """
Gather Pad ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Reshape Slice
Split Squeeze StridedSlice Transpose Unsqueeze VariadicSplit
"""
#: What such an input may be made of: a constant of so many bytes, and parts of a shape put
#: together in so many steps.
SHAPING = frozenset({"Concat", "Const", "Convert", "Gather", "ShapeOf", "Squeeze", "Unsqueeze"})
MOST_SHAPING, MOST_STEPS = 8192, 256


def check_ir(text: bytes) -> None:
    """See that IR is harmless to read.

    Raises:
        ValueError: what it has that ``mer-export`` doesn't write.
    """
    if len(text) > MOST_TEXT or b"<!" in text:
        raise ValueError("it is larger than 16 MB, or has declarations")
    try:
        net = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ValueError(f"it is no IR ({error})") from error
    layers = {layer.get("id"): layer.get("type", "") for layer in net.iterfind("layers/layer")}
    if net.tag != "net" or len(layers) > MOST_NODES:
        raise ValueError("it is no IR")
    if {"layer", "body", "port_map"} & {part.tag for layer in net.iter("layer") for part in layer}:
        raise ValueError("it has a graph in a graph")
    strange = sorted(set(layers.values()) - {*LAYERS.split()})
    if strange:
        raise ValueError(f"it has the layer {strange[0][:80]}, which mer-export doesn't write")
    stored = {
        layer.get("id"): int(data.get("size", "0"))
        for layer in net.iterfind("layers/layer")
        if layer.get("type") == "Const" and (data := layer.find("data")) is not None
    }
    shaped = {*SHAPED.split()}
    givers: dict[str | None, list[str | None]] = {}
    shaping = []
    for edge in net.iterfind("edges/edge"):
        giver, taker = edge.get("from-layer"), edge.get("to-layer")
        if giver not in layers or taker not in layers:
            raise ValueError("it is no IR")
        givers.setdefault(taker, []).append(giver)
        if layers[taker] in shaped and edge.get("to-port") != "0":
            shaping.append(giver)
    for giver in shaping:
        wanted, steps = [giver], 0
        while wanted:
            one, steps = wanted.pop(), steps + 1
            kind = layers[one]
            if kind not in SHAPING or stored.get(one, 0) > MOST_SHAPING or steps > MOST_STEPS:
                raise ValueError(f"it has a shape that {kind} computes")
            if kind != "ShapeOf":
                wanted += givers.get(one, [])


def check_sizes(model: Any, crops: int) -> None:
    """See that a device can hold what OpenVINO's model makes of so many crops.

    Raises:
        ValueError: it makes more, or OpenVINO can't tell how much.
    """
    operations = model.get_ordered_ops()
    made: dict[tuple[str, int], int] = {}
    last: dict[tuple[str, int], int] = {}
    for i, operation in enumerate(operations):
        for taken in operation.inputs():
            source = taken.get_source_output()
            last[source.get_node().get_name(), source.get_index()] = i
    held = 0
    for i, operation in enumerate(operations):
        name = operation.get_name()
        for j, output in enumerate(operation.outputs()):
            shape = output.get_partial_shape()
            if not shape.is_static:
                raise ValueError(f"its {operation.get_type_name()} has a size that isn't known")
            constant = operation.get_type_name() == "Constant"
            made[name, j] = 0 if constant else math.prod(output.get_shape())
            held += made[name, j]
        if held > MOST_HELD * crops:
            what = operation.get_type_name()
            raise ValueError(f"its layer {what} takes more memory than a device has")
        done = {(name, j) for j in range(len(operation.outputs()))} | {
            (taken.get_source_output().get_node().get_name(), taken.get_source_output().get_index())
            for taken in operation.inputs()
        }
        held -= sum(made[one] for one in done if last.get(one, i) == i)
