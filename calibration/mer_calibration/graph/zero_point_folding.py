"""Zero-points folded away: int8 that is used from end to end where an engine wants zero-point 0.

Values that are never negative fill half of symmetric int8, so that they have half the steps. A
constant taken off such a tensor moves its middle to 0. Nothing computes more for it: what makes
the tensor has the constant in its bias, and what reads it gives the constant times the sum of its
weights back in its own. The integers are those of the grid with a zero-point, one for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from mer_calibration.graph.placement import Group, Placement, carries
from mer_calibration.graph.view import GraphView, find_index

#: Layers with a bias.
BIASED = ("Conv", "Gemm")
#: What an int8 grid begins with: a ReLU's zero-point.
LOWEST = -128


def find_foldable(model: ModelProto, placement: Placement) -> frozenset[str]:
    """Sources of the groups whose zero-point can be folded, and is worth it.

    Each layer that reads such a group has a bias, and one of them at least doesn't pad: a border
    of zeros is no longer one of zeros, and so becomes an operation. Pixels have a single reader
    which pads, and are worth it: 0 to 255 has one value to a step then.

    Args:
        model: the float graph of ``placement``.
    """
    view = GraphView(model)
    readers = view.readers
    layers = {layer.node for layer in placement.layers}

    def suits(group: Group) -> bool:
        reading = [
            node for member in group.members for node in readers[member] if node.name in layers
        ]
        biased = all(node.op_type in BIASED and len(node.input) > 2 for node in reading)
        unpadded = group.pixels or any(not any(_pads(node)) for node in reading)
        return biased and unpadded and not group.members & view.outputs

    return frozenset(s for group in placement.groups if suits(group) for s in group.sources)


def fold_zero_points(model: ModelProto) -> ModelProto:
    """``model``, whose activations are int8 with data movement between pairs, with zero-points 0.

    Each tensor with a zero-point z and steps of s is kept less -z s. Behind a ReLU z is the
    lowest step: saturation does the ReLU's work. A layer that reads the tensor and pads gets
    the border from a ``Pad``; a float operation gets the tensor as it was. A
    tensor that the graph puts out keeps its zero-point.
    """
    folded = ModelProto()
    folded.CopyFrom(model)
    _Folding(folded).rewrite()
    checker.check_model(folded)
    return folded


class _Folding:
    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        view = GraphView(model)
        self.constants, self.producers, self.readers = view.constants, view.producers, view.readers
        self.outputs = view.outputs
        self.biases: dict[str, NDArray[np.float64]] = {}  # output of a layer -> what it has now
        self.shifted: set[str] = set()  # tensors whose readers are done
        self.zeroed: set[str] = set()  # zero-points

    def rewrite(self) -> None:
        for node in list(self.graph.node):
            if node.op_type == "QuantizeLinear" and self._zero_point(node):
                self._fold(node)
        for name in self.zeroed:
            zero = np.zeros_like(numpy_helper.to_array(self.constants[name]))
            self.constants[name].CopyFrom(numpy_helper.from_array(zero, name))
        for output, bias in self.biases.items():
            layer = self.producers[output]
            layer.input[2] = self._store(f"{output}_bias_folded", bias.astype(np.float32))
        read = {name for node in self.graph.node for name in node.input}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def _fold(self, quantise: NodeProto) -> None:
        dequantised = [node.output[0] for node in self.readers[quantise.output[0]]]
        if self.outputs & set(dequantised):
            return
        scale = float(numpy_helper.to_array(self.constants[quantise.input[1]]))
        shift = self._zero_point(quantise) * scale
        self._shift_source(quantise, shift)
        self.zeroed.add(quantise.input[2])
        for name in dequantised:
            self._shift_readers(name, shift, quantise)

    def _shift_source(self, quantise: NodeProto, shift: float) -> None:
        name = quantise.input[0]
        made = self.producers.get(name)
        if made is not None and self._is_relu(made, quantise):
            del self.graph.node[find_index(self.graph, made)]
            quantise.input[0] = name = made.input[0]
            made = self.producers[name]
        if made is not None and self._is_biased(made):
            self._add_to_bias(made, shift)
            return
        quantise.input[0] = self._insert(quantise, "Add", [name, self._constant(name, shift)])

    def _shift_readers(self, name: str, shift: float, quantise: NodeProto) -> None:
        if name in self.shifted:
            return
        self.shifted.add(name)
        given_back = ""
        padded: dict[tuple[int, ...], str] = {}
        for reader in list(self.readers[name]):
            if carries(reader, name):
                for output in reader.output:
                    self._shift_readers(output, shift, quantise)
            elif self._is_integer_layer(reader) and reader.input[0] == name:
                self._add_to_bias(reader, -shift * self._weight_sums(reader))
                pads = tuple(_pads(reader))
                if not any(pads):
                    continue
                if pads not in padded:
                    padded[pads] = self._pad(reader, pads, shift, quantise)
                reader.input[0] = padded[pads]
                _clear_pads(reader)
            else:
                if not given_back:
                    back = self._constant(f"{name}_back", -shift)
                    given_back = self._insert(reader, "Add", [name, back])
                reader.input[:] = [given_back if one == name else one for one in reader.input]

    def _pad(
        self, reader: NodeProto, pads: Sequence[int], shift: float, quantise: NodeProto
    ) -> str:
        """The input of ``reader`` with a border of ``pads``."""
        name = str(reader.input[0])
        half = len(pads) // 2
        border = np.array([[0, 0, *pads[:half]], [0, 0, *pads[half:]]])
        order = self._find_order(name, quantise)
        if order is not None:  # before the pair: one operation on floats less
            border = border[:, np.argsort(order)] if order else border
            quantise.input[0] = self._insert_pad(quantise, border, pads, shift)
            return name
        output = self._insert_pad(reader, border, pads, shift)
        integers = self._insert(reader, "QuantizeLinear", [output, *quantise.input[1:]])
        return self._insert(reader, "DequantizeLinear", [integers, *quantise.input[1:]])

    def _find_order(self, name: str, quantise: NodeProto) -> list[int] | None:
        """How axes are turned on the way from ``quantise`` to ``name``, empty if they aren't.

        None where anything else reads what is between, or is between.
        """
        order: list[int] = []
        while len(self.readers[name]) == 1:
            made = self.producers[name]
            if _same(made, quantise):
                return order
            if made.op_type == "Transpose" and not order:
                order = list(helper.get_attribute_value(made.attribute[0]))
            elif made.op_type != "DequantizeLinear":
                return None
            name = made.input[0]
        return None

    def _insert_pad(
        self, reader: NodeProto, border: NDArray[np.int64], pads: Sequence[int], shift: float
    ) -> str:
        name = reader.input[0]
        sizes = self._store(f"{name}_border_{'_'.join(map(str, pads))}", border.ravel())
        return self._insert(reader, "Pad", [name, sizes, self._constant(f"{name}_border", shift)])

    def _is_relu(self, made: NodeProto, quantise: NodeProto) -> bool:
        """Whether it is a ReLU behind a layer with a bias, and saturation can do its work."""
        before = self.producers.get(made.input[0])
        return (
            made.op_type == "Relu"
            and self._zero_point(quantise) == LOWEST
            and made.output[0] not in self.outputs
            and before is not None
            and self._is_biased(before)
        )

    def _is_biased(self, node: NodeProto) -> bool:
        """Whether ``node`` has a bias of its own that can take a constant up."""
        only = len(self.readers[node.output[0]]) == 1
        biased = node.op_type in BIASED and len(node.input) > 2 and node.input[2] in self.constants
        return only and biased and node.output[0] not in self.outputs

    def _is_integer_layer(self, node: NodeProto) -> bool:
        weight = self.producers.get(node.input[1]) if len(node.input) > 1 else None
        return (
            node.op_type in BIASED
            and weight is not None
            and weight.op_type == "DequantizeLinear"
            and weight.input[0] in self.constants
        )

    def _weight_sums(self, layer: NodeProto) -> NDArray[np.float64]:
        """What each of its outputs gains where every input grows by 1."""
        weight = self.producers[layer.input[1]]
        steps, scales = (
            numpy_helper.to_array(self.constants[name]).astype(np.float64)
            for name in weight.input[:2]
        )
        axis = next((a.i for a in weight.attribute if a.name == "axis"), 1)
        rows = np.moveaxis(steps, axis, 0).reshape(len(scales), -1)
        return np.asarray(rows.sum(axis=1) * scales)

    def _add_to_bias(self, layer: NodeProto, value: NDArray[np.float64] | float) -> None:
        name = layer.output[0]
        if name not in self.biases:
            bias = numpy_helper.to_array(self.constants[layer.input[2]])
            self.biases[name] = bias.astype(np.float64)
        self.biases[name] = self.biases[name] + value

    def _insert(self, reader: NodeProto, op_type: str, inputs: Sequence[str]) -> str:
        """A new operation in front of ``reader``; gives its output's name."""
        number = sum(node.op_type == op_type for node in self.graph.node)
        output = f"{inputs[0]}_{op_type.lower()}_{number}"
        node = helper.make_node(op_type, inputs, [output], f"{output}_folding")
        self.graph.node.insert(find_index(self.graph, reader), node)
        self.producers[output] = node
        return output

    def _constant(self, name: str, value: float) -> str:
        return self._store(f"{name}_shift", np.array(value, np.float32))

    def _store(self, name: str, value: NDArray[Any]) -> str:
        if name not in self.constants:
            self.graph.initializer.append(numpy_helper.from_array(value, name))
            self.constants[name] = self.graph.initializer[-1]
        return name

    def _zero_point(self, quantise: NodeProto) -> int:
        tensor: TensorProto = self.constants[quantise.input[2]]
        return int(numpy_helper.to_array(tensor))


def _same(node: NodeProto, other: NodeProto) -> bool:
    return str(node.output[0]) == str(other.output[0])


def _pads(node: NodeProto) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == "pads"), [])


def _clear_pads(node: NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.name == "pads":
            attribute.ints[:] = [0] * len(attribute.ints)
