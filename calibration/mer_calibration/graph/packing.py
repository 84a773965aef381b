"""A quantised graph's constants in fewer bytes, for engines that compute constants when they load.

Int8 weights hold many zeros: widths are rounded up to whole blocks of channels, and a convolution
that was grouped reads one input channel for each output. They are left out, and a ``Pad`` or a
``ScatterElements`` puts them back. ONNX Runtime and OpenVINO evaluate nodes on constants before
they look for pairs to fuse, so that what runs is the same. TensorRT wants weights that are
constants at once: its graphs stay as they are, and gzip packs their files.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from mer_calibration.graph.placement import WEIGHTED

#: What nodes and small constants weigh, about: saving less is no gain.
NODE_BYTES = 128
#: Float weights with up to so many elements stay as they are.
SMALL = 64


def pack_constants(model: ModelProto) -> ModelProto:
    """``model``, in dialect x86 or arm, in fewer bytes; activations keep their names.

    It computes the same, but for the last of these:

    - Trailing zeros of int8 weights are padded on, zeros between the others scattered around.
    - The scale of an integer bias is computed: its input's times its weight's.
    - Equal constants are stored once.
    - Weights that are still float, with more than ``SMALL`` elements, are stored as float16.
    """
    packed = _Packer(model).pack()
    onnx.checker.check_model(packed)
    return packed


def find_stored_weights(model: ModelProto, layers: Collection[str]) -> dict[str, NDArray[Any]]:
    """Weights of those ``layers`` that stayed float, as a graph stores them, packed or not."""
    constants = {t.name: t for t in model.graph.initializer}
    halves = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    stored = {layer: halves.get(layer, layer) for layer in layers}
    return {
        layer: numpy_helper.to_array(constants[name])
        for layer, name in stored.items()
        if name in constants
    }


def fits_half(value: NDArray[Any]) -> bool:
    """Whether float16 holds float weights to 10 bits of the largest."""
    if value.dtype != np.float32:
        return False
    with np.errstate(over="ignore"):  # infinity doesn't fit
        lost = np.abs(value.astype(np.float16) - value)
    return bool(lost.max() <= np.abs(value).max() * 2**-10)


class _Packer:
    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.made: dict[tuple[str, ...], NodeProto] = {}
        self.stored: dict[tuple[str, tuple[int, ...], bytes], TensorProto] = {}
        self.taken = {*self.constants, *(o for node in model.graph.node for o in node.output)}

    def pack(self) -> ModelProto:
        graph = self.model.graph
        products = _find_products(self.model, self.constants)
        weights = {node.input[1] for node in graph.node if node.op_type in WEIGHTED}
        renamed: dict[str, str] = {}
        for name, value in self.constants.items():
            if name in products:
                continue
            if value.dtype == np.int8 and value.ndim > 1:
                renamed[name] = self._weight(name, value)
            elif name in weights and value.size > SMALL and fits_half(value):
                half = self._store(value.astype(np.float16))
                renamed[name] = self._node("Cast", [half], name, to=TensorProto.FLOAT)
            else:
                renamed[name] = self._store(value, name)
        for name, factors in products.items():
            renamed[name] = self._node("Mul", [renamed[factor] for factor in factors], name)
        nodes = list(self.made.values())
        for node in graph.node:
            nodes.append(NodeProto())
            nodes[-1].CopyFrom(node)
            nodes[-1].input[:] = [renamed.get(name, name) for name in node.input]
        new = helper.make_graph(
            nodes, graph.name, graph.input, graph.output, list(self.stored.values())
        )
        return helper.make_model(
            new, opset_imports=self.model.opset_import, ir_version=self.model.ir_version
        )

    def _weight(self, name: str, value: NDArray[np.int8]) -> str:
        cut = _cut_trailing_zeros(value)
        channels, kept = _keep_channels(value)
        padded, scattered = cut.nbytes + NODE_BYTES, channels.nbytes + kept.nbytes + NODE_BYTES
        if value.nbytes <= min(padded, scattered):
            return self._store(value, name)
        if padded <= scattered:
            missing = np.subtract(value.shape, cut.shape)
            pads = self._store(np.append(np.zeros_like(missing), missing))
            return self._node("Pad", [self._store(cut), pads], name)
        nothing = self._store(np.zeros([1] * value.ndim, np.int32))
        zeros = self._node("Expand", [nothing, self._store(np.array(value.shape))])
        indices = self._node("Cast", [self._store(channels)], to=TensorProto.INT64)
        places = self._node("Expand", [indices, self._store(np.array(kept.shape))])
        # OpenVINO doesn't scatter 8-bit integers beforehand, but at every run.
        wide = self._node("Cast", [self._store(kept)], to=TensorProto.INT32)
        full = self._node("ScatterElements", [zeros, places, wide], axis=1)
        return self._node("Cast", [full], name, to=TensorProto.INT8)

    def _store(self, value: NDArray[Any], name: str = "") -> str:
        key = value.dtype.str, value.shape, value.tobytes()
        if key not in self.stored:
            self.stored[key] = numpy_helper.from_array(value, name or self._new_name())
        return str(self.stored[key].name)

    def _node(
        self,
        op_type: str,
        inputs: Sequence[str],
        output: str = "",
        **attributes: int,
    ) -> str:
        key = op_type, *inputs, str(attributes)
        if key not in self.made:
            node = helper.make_node(op_type, inputs, [output or self._new_name()])
            node.attribute.extend(helper.make_attribute(*item) for item in attributes.items())
            self.made[key] = node
        return str(self.made[key].output[0])

    def _new_name(self) -> str:
        number = len(self.taken)
        while f"{number:x}" in self.taken:
            number += 1
        self.taken.add(f"{number:x}")
        return f"{number:x}"


def _find_products(
    model: ModelProto, constants: Mapping[str, NDArray[Any]]
) -> dict[str, tuple[str, str]]:
    """Scales of integer biases that are the product of two others, to the last bit."""
    scales = {
        node.output[0]: node.input[1]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
    }
    products = {}
    for node in model.graph.node:
        if node.op_type not in WEIGHTED or len(node.input) < 3:
            continue
        data, weight, bias = (scales.get(name, "") for name in node.input)
        if not (data and weight and bias):
            continue
        if np.array_equal(constants[data] * constants[weight], constants[bias]):
            products[bias] = data, weight
    return products


def _cut_trailing_zeros(value: NDArray[np.int8]) -> NDArray[np.int8]:
    """``value`` without the zeros at the end of each axis; one element at least."""
    ends = [int(places.max(initial=0)) + 1 for places in np.nonzero(value)]
    return np.ascontiguousarray(value[tuple(slice(end) for end in ends)])


def _keep_channels(
    value: NDArray[np.int8],
) -> tuple[NDArray[np.integer], NDArray[np.int8]]:
    """As many channels of a weight (O, I, ...) as the fullest of its outputs reads.

    Returns:
        Which they are, (O, m, 1, ...), and their weights, (O, m, ...).
    """
    read = value.any(axis=tuple(range(2, value.ndim)))
    most = max(int(read.sum(axis=1).max()), 1)
    channels = np.argsort(~read, axis=1, kind="stable")[:, :most]
    channels = channels.reshape(*channels.shape, *[1] * (value.ndim - 2))
    kept = np.take_along_axis(value, channels, axis=1)
    return channels.astype(np.min_scalar_type(value.shape[1] - 1)), kept
