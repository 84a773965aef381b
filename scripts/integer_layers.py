"""What a graph with Q/DQ pairs multiplies in int8, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from mer_calibration.graph.placement import JOINS, MOVES, WEIGHTED, output_axis
from mer_calibration.graph.view import GraphView

#: What may stand between a pair and the layer that reads it.
BETWEEN = (*MOVES, *JOINS, "Pad")


@dataclass(frozen=True)
class Quantiser:
    """An activation's integers, as its Q and DQ have them."""

    dtype: np.dtype[Any]
    zero_point: int
    scale: float

    @property
    def ends(self) -> tuple[int, int]:
        """The smallest and the largest integer."""
        kind = np.iinfo(self.dtype)
        return int(kind.min), int(kind.max)


@dataclass(frozen=True)
class Layer:
    """A weighted int8 layer.

    Attributes:
        node: the operation, with its attributes.
        weight, scales: int8 in the graph's shape, and a scale for each output channel.
        bias: float64 (channels,), or None.
        integer_bias: whether the graph has it in int32.
        data, output: what it reads and what it is rounded to; None where its sums stay float.
        relu: whether a ReLU stands before the rounding.
    """

    node: NodeProto
    weight: NDArray[np.int8]
    scales: NDArray[np.float32]
    bias: NDArray[np.float64] | None
    integer_bias: bool
    data: Quantiser
    output: Quantiser | None
    relu: bool

    @property
    def name(self) -> str:
        """Operation, shape and integers: what an engine chooses its kernel by."""
        words = [self.node.op_type, "x".join(map(str, self.weight.shape))]
        for name, value in self.attributes.items():
            if name in ("group", "strides", "dilations", "pads") and np.any(np.array(value) > 1):
                words.append(f"{name} {np.max(value)}")
        words += [self.data.dtype.name, "to", self.output.dtype.name if self.output else "float32"]
        return " ".join(words + ["with ReLU"] * self.relu)

    @property
    def attributes(self) -> dict[str, Any]:
        return {a.name: helper.get_attribute_value(a) for a in self.node.attribute}

    @property
    def rows(self) -> NDArray[np.int64]:
        """Weights with the output channels first."""
        rows = self.weight if output_axis(self.node) == 0 else self.weight.T
        return rows.astype(np.int64)

    @property
    def kernel(self) -> tuple[int, ...]:
        """Places of a convolution's window along each axis."""
        return self.weight.shape[2:]

    @property
    def strides(self) -> Sequence[int]:
        return list(self.attributes.get("strides", [1] * len(self.kernel)))

    @property
    def dilations(self) -> Sequence[int]:
        return list(self.attributes.get("dilations", [1] * len(self.kernel)))

    @property
    def pads(self) -> Sequence[tuple[int, int]]:
        """Zeros before and after along each axis."""
        dims = len(self.kernel)
        pads = self.attributes.get("pads", [0] * 2 * dims)
        return list(zip(pads[:dims], pads[dims:], strict=True))

    @property
    def groups(self) -> int:
        return int(self.attributes.get("group", 1))

    def round_plainly(self) -> Layer:
        """The same with every weight on the nearest of 127 steps: no rule keeps sums small."""
        shape = (-1, *[1] * (self.weight.ndim - 1))
        values = self.rows * self.scales.reshape(shape).astype(np.float64)
        peaks = np.abs(values).reshape(len(values), -1).max(axis=1)
        scales = np.where(peaks > 0, peaks / 127, 1.0)
        steps = np.rint(values / scales.reshape(shape)).astype(np.int8)
        weight = steps if output_axis(self.node) == 0 else steps.T
        return replace(self, weight=np.ascontiguousarray(weight), scales=scales.astype(np.float32))


@dataclass(frozen=True)
class Product:
    """A matrix int8 product of two activations: neither can be kept small."""

    first: Quantiser
    second: Quantiser

    @property
    def name(self) -> str:
        return f"MatMul {self.first.dtype.name} by {self.second.dtype.name}"


def find_integer_layers(model: ModelProto) -> tuple[list[Layer], list[Product]]:
    """Weighted layers and products of two activations whose inputs are all dequantised."""
    reading = _Reading(model)
    layers, products = [], []
    for node in model.graph.node:
        if node.op_type not in WEIGHTED:
            continue
        first, second = (reading.find_dequantiser(name) for name in node.input[:2])
        if first is None or second is None:
            continue
        if second.input[0] in reading.constants:
            layers.append(reading.read_layer(node, first, second))
        else:
            products.append(Product(reading.read_quantiser(first), reading.read_quantiser(second)))
    return layers, products


class _Reading:
    """A graph's nodes by what they read and make."""

    def __init__(self, model: ModelProto) -> None:
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.producers = {name: node for node in model.graph.node for name in node.output}
        self.readers = GraphView(model).readers

    def find_dequantiser(self, name: str) -> NodeProto | None:
        node = self.producers.get(name)
        while node is not None and node.op_type in BETWEEN:
            node = self.producers.get(node.input[0])
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def read_quantiser(self, node: NodeProto) -> Quantiser:
        scale, zero_point = (self.constants[name] for name in node.input[1:3])
        return Quantiser(zero_point.dtype, int(zero_point), float(scale))

    def read_layer(self, node: NodeProto, data: NodeProto, weight: NodeProto) -> Layer:
        output, relu = self._find_output(node.output[0])
        bias, dequantiser = None, None
        if len(node.input) > 2:
            dequantiser = self.producers.get(node.input[2])
            names = dequantiser.input[:2] if dequantiser else node.input[2:3]
            bias = np.prod([self.constants[name].astype(np.float64) for name in names], axis=0)
        return Layer(
            node=node,
            weight=self.constants[weight.input[0]],
            scales=self.constants[weight.input[1]],
            bias=bias,
            integer_bias=dequantiser is not None,
            data=self.read_quantiser(data),
            output=self.read_quantiser(output) if output is not None else None,
            relu=relu,
        )

    def _find_output(self, name: str) -> tuple[NodeProto | None, bool]:
        relu = False
        while len(following := self.readers[name]) == 1:
            (node,) = following
            if node.op_type == "QuantizeLinear":
                return node, relu
            if node.op_type != "Relu":
                break
            relu, name = True, node.output[0]
        return None, relu
