"""The two float graphs of a checkpoint, and their forms with 16-bit floats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from mer import Checkpoint
from mer_calibration import hash_graph
from mer_calibration.graph.dialects import to_halves
from mer_calibration.graph.placement import JOINS, MOVES
from mer_calibration.measure.observation import open_session
from mer_export.network.deploy import export_encoder, export_head
from mer_runtime.bundle import ENCODER, HEAD
from mer_runtime.spec import Spec

#: From this opset on, Q and DQ take 16-bit floats; TensorRT 10.3 (JetPack 6) reads it.
HALF_OPSET = 19
#: Added to the names of float inputs and outputs in their 16-bit form.
HALF_SUFFIX = "_half"
#: What these put out is as exact as what they read; engines fuse dequantising with what follows.
EXACT = ("DequantizeLinear", "Relu", "Pad", *MOVES, *JOINS)


@dataclass(frozen=True)
class Graphs:
    """Encoder and head of one model, float or quantised."""

    encoder: ModelProto
    head: ModelProto

    def items(self) -> Iterator[tuple[str, ModelProto]]:
        """(name, graph) of both."""
        yield ENCODER, self.encoder
        yield HEAD, self.head

    def hashes(self) -> dict[str, str]:
        """By name, what ranges made on these graphs carry (``mer_calibration.hash_graph``)."""
        return {name: hash_graph(model) for name, model in self.items()}


class GraphNetwork:
    """Two graphs that ONNX Runtime answers from, without a bundle around them.

    Args:
        no_face: (F,) features of a black crop, which stands for a missing face.

    Raises:
        CalibrationError: it can't load a graph.
    """

    def __init__(self, graphs: Graphs, spec: Spec, no_face: NDArray[np.float32]) -> None:
        self.spec, self.no_face = spec, no_face
        self._encoder, self._head = open_session(graphs.encoder), open_session(graphs.head)

    def encode(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Crops (n, S, S, 3) to features (n, F)."""
        return np.asarray(self._encoder.run(None, {"faces": faces})[0])

    def classify(
        self, mfcc: NDArray[np.float32] | None, features: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """MFCCs (n_mfcc, T) and features (frames, F) to logits (classes,); None where missing."""
        heard = np.zeros(self.spec.audio.shape, np.float32) if mfcc is None else mfcc
        if features is None:
            features = np.tile(self.no_face, (self.spec.video.frames, 1))
        feed = {"mfcc": heard[None], "features": features[None]}
        return np.asarray(self._head.run(None, feed)[0][0])


def export_graphs(checkpoint: Checkpoint) -> Graphs:
    """The deployment graphs of a checkpoint, in float32.

    Raises:
        ExportError: PyTorch can't export the network.
    """
    return Graphs(export_encoder(checkpoint), export_head(checkpoint))


def to_half(model: ModelProto) -> ModelProto:
    """``model`` with 16-bit floats inside; inputs and outputs stay as they are.

    Strongly typed engines compute in the types that a graph has. The scales of Q and DQ become
    16-bit too, so they must be values that float16 holds (dialect ``tensorrt``).
    """
    half = ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            halves = to_halves(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(halves, tensor.name))
    for node in graph.node:
        for attribute in node.attribute:
            if (
                node.op_type == "Cast"
                and attribute.name == "to"
                and attribute.i == TensorProto.FLOAT
            ):
                attribute.i = TensorProto.FLOAT16
    given = [value.name for value in graph.input if _is_float(value)]
    made = [value.name for value in graph.output if _is_float(value)]
    _rename(graph, {*given, *made})
    first = [_cast(name, f"{name}{HALF_SUFFIX}", TensorProto.FLOAT16) for name in given]
    last = [_cast(f"{name}{HALF_SUFFIX}", name, TensorProto.FLOAT) for name in made]
    nodes = [*first, *graph.node, *last]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    (opset,) = (entry for entry in half.opset_import if entry.domain in ("", "ai.onnx"))
    opset.version = max(opset.version, HALF_OPSET)
    onnx.checker.check_model(half, full_check=True)
    return half


def emulate_half(model: ModelProto) -> ModelProto:
    """A graph by ``to_half`` for an engine without 16-bit floats: it computes what ``model`` does.

    Each 16-bit value is computed in float32 and rounded to float16, as GPUs do it. ONNX Runtime's
    own kernels can't take the place of that: its ``QuantizeLinear`` cuts 16-bit floats off where
    it must round.
    """
    wide = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    graph = wide.graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if kinds.get(node.output[0]) != TensorProto.FLOAT16:
            continue
        if node.op_type == "Cast":
            (attribute,) = (one for one in node.attribute if one.name == "to")
            attribute.i = TensorProto.FLOAT
        if node.op_type in EXACT:
            continue
        name = node.output[0]
        node.output[0] = f"{name}_exact"
        nodes.append(_cast(node.output[0], f"{name}_rounded", TensorProto.FLOAT16))
        back = _cast(f"{name}_rounded", name, TensorProto.FLOAT)
        back.name = f"{name}_widened"  # the node that was there may have the other name
        nodes.append(back)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(wide, full_check=True)
    return wide


def _is_float(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == TensorProto.FLOAT)


def _rename(graph: onnx.GraphProto, names: set[str]) -> None:
    for node in graph.node:
        for fields in (node.input, node.output):
            for i, name in enumerate(fields):
                if name in names:
                    fields[i] = f"{name}{HALF_SUFFIX}"


def _cast(name: str, output: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [name], [output], f"{output}_cast", to=to)
