"""Space-to-depth: the first convolution of a quantised graph reads several pixels of a row as one.

Three channels of pixels fill a fraction of the registers in which engines multiply integers, and
they gather a 3 x 3 window in nine pieces of three bytes. In memory the pixels of a row lie side by
side, so that p of them are one pixel with 3 p channels, for nothing: a convolution with a window of
3 x 2 such blocks computes p / 2 neighbouring outputs at once, as p / 2 times as many channels, and
those too lie in memory as the next layer wants them. Every sum is the same sum of integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from mer_calibration.graph.placement import PIXEL_CHANNELS
from mer_calibration.graph.view import GraphView, find_index

#: The window that is rewritten, and its stride.
KERNEL, STRIDE = 3, 2
#: Rows, columns and channels last, and first.
TO_CHANNELS_FIRST, TO_CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
#: What may stand between the first convolution and the reader that gets its outputs in order.
ELEMENTWISE = ("Relu", "QuantizeLinear", "DequantizeLinear")


def space_to_depth(model: ModelProto, pixels: int) -> ModelProto:
    """``model``, in some dialect, with its first convolution on blocks of ``pixels`` pixels.

    A graph whose pixels don't go straight into a padded 3 x 3 convolution with stride 2, or whose
    rows aren't whole blocks, comes back as it is.

    Args:
        pixels: even, at least 2.
    """
    stem = _find_stem(model, pixels)
    if stem is None:
        return model
    joined = ModelProto()
    joined.CopyFrom(model)
    _Stem(joined, pixels, *stem).rewrite()
    onnx.checker.check_model(joined)
    return joined


def _find_stem(model: ModelProto, pixels: int) -> tuple[str, str] | None:
    """Outputs of the transposition of the pixels and of the first convolution."""
    view = GraphView(model)
    producers, readers = view.producers, view.readers
    for conv in model.graph.node:
        if conv.op_type != "Conv" or any(name not in producers for name in conv.input[:2]):
            continue
        move = producers[conv.input[0]]
        if move.op_type == "DequantizeLinear":
            move = producers.get(move.input[0], move)
        weight = producers[conv.input[1]]
        if move.op_type != "Transpose" or weight.op_type != "DequantizeLinear":
            continue
        ends = len(readers[conv.input[0]]) == len(readers[move.output[0]]) == 1
        if (
            ends
            and _suits(conv, move, tuple(view.constants[weight.input[0]].dims))
            and _rows(model) % pixels == 0
        ):
            return move.output[0], conv.output[0]
    return None


def _suits(conv: NodeProto, move: NodeProto, weight: tuple[int, ...]) -> bool:
    attributes = {a.name: helper.get_attribute_value(a) for a in (*conv.attribute, *move.attribute)}
    return (
        weight[1:] == (PIXEL_CHANNELS, KERNEL, KERNEL)
        and attributes.get("strides") == [STRIDE, STRIDE]
        and attributes.get("pads") == [1, 1, 1, 1]
        and attributes.get("perm") == list(TO_CHANNELS_FIRST)
        and attributes.get("dilations", [1, 1]) == [1, 1]
    )


def _rows(model: ModelProto) -> int:
    """Side of the square pictures."""
    return int(model.graph.input[0].type.tensor_type.shape.dim[2].dim_value) or 1


class _Stem:
    def __init__(self, model: ModelProto, pixels: int, planes: str, sums: str) -> None:
        self.graph, self.pixels = model.graph, pixels
        self.side = _rows(model)
        self.outputs = pixels // STRIDE  # side by side in one block
        self.tensors = {t.name: t for t in self.graph.initializer}
        view = GraphView(model)
        self.producers, self.readers = view.producers, view.readers
        self.move, self.conv = self.producers[planes], self.producers[sums]

    def rewrite(self) -> None:
        weight = self.producers[self.conv.input[1]]
        steps = self._value(weight.input[0])
        channels = len(steps)
        self._replace(weight, 0, _join_columns(steps, self.pixels))
        for i in range(1, len(weight.input)):
            self._replace(weight, i, np.tile(self._value(weight.input[i]), self.outputs))
        if len(self.conv.input) > 2:
            bias = self.producers.get(self.conv.input[2])
            holder, places = (self.conv, [2]) if bias is None else (bias, range(len(bias.input)))
            for i in places:
                self._replace(holder, i, np.tile(self._value(holder.input[i]), self.outputs))
        for attribute in list(self.conv.attribute):
            if attribute.name in ("kernel_shape", "strides", "pads"):
                self.conv.attribute.remove(attribute)
        self.conv.attribute.extend(
            [
                helper.make_attribute("kernel_shape", [KERNEL, 2]),
                helper.make_attribute("strides", [STRIDE, 1]),
                helper.make_attribute("pads", [1, 1, 0, 0]),
            ]
        )
        blocks = self.side // self.pixels
        self._reshape(self.move, 0, [self.side, blocks, PIXEL_CHANNELS * self.pixels])
        if self.outputs > 1:
            self._order_outputs(channels)

    def _order_outputs(self, channels: int) -> None:
        """Turn blocks of outputs into columns, behind what works on each value alone."""
        name = self.conv.output[0]
        while [r.op_type in ELEMENTWISE for r in self.readers[name]] == [True]:
            name = self.readers[name][0].output[0]
        made = self.producers[name]
        blocks, last = f"{name}_blocks", f"{name}_last"
        made.output[0] = blocks
        # The name stays with the order: who looks for the tensor finds it as it was.
        nodes = [
            helper.make_node("Transpose", [blocks], [last], perm=TO_CHANNELS_LAST),
            helper.make_node("Transpose", [last], [name], perm=TO_CHANNELS_FIRST),
        ]
        at = find_index(self.graph, made) + 1
        for node in reversed(nodes):
            self.graph.node.insert(at, node)
        side = self.side // STRIDE
        self._reshape(self.graph.node[at + 1], 0, [side, side, channels])

    def _reshape(self, node: NodeProto, place: int, shape: list[int]) -> None:
        """Give ``node`` its input with another shape behind the batch."""
        name = node.input[place]
        sizes = self._store(f"{name}_shape", np.array([0, *shape]))
        reshape = helper.make_node("Reshape", [name, sizes], [f"{name}_shaped"])
        self.graph.node.insert(find_index(self.graph, node), reshape)
        node.input[place] = f"{name}_shaped"

    def _value(self, name: str) -> NDArray[Any]:
        return numpy_helper.to_array(self.tensors[name])

    def _replace(self, node: NodeProto, place: int, value: NDArray[Any]) -> None:
        """Another constant for one input; other readers keep theirs."""
        name = node.input[place]
        if len(self.readers[name]) == 1:
            self.tensors[name].CopyFrom(numpy_helper.from_array(value, name))
        else:
            node.input[place] = self._store(f"{name}_joined", value)

    def _store(self, name: str, value: NDArray[Any]) -> str:
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name


def _join_columns(weight: NDArray[np.int8], pixels: int) -> NDArray[np.int8]:
    """(O, 3, 3, 3) for single pixels to (O p / 2, 3 p, 3, 2) for blocks of p."""
    outputs = pixels // STRIDE
    joined = np.zeros((outputs, len(weight), pixels, PIXEL_CHANNELS, KERNEL, 2), weight.dtype)
    for output in range(outputs):
        for column in range(KERNEL):
            # Of the output's own block, whose first pixel is number 0; -1 is in the one before.
            pixel = STRIDE * output + column - 1
            joined[output, :, pixel % pixels, :, :, 1 + pixel // pixels] = weight[..., column]
    return joined.reshape(outputs * len(weight), pixels * PIXEL_CHANNELS, KERNEL, 2)
