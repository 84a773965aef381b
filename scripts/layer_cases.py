"""Int8 layers, each as a graph of its own, with inputs that are worst for its weights.

What a case reads holds, for each output channel, a window with the largest integer where the
channel's weight is positive and the smallest where it is negative; or the other way round. The
rest is random. What must come out is computed here, in whole numbers: float64 holds such sums.

In the cases ``high`` and ``low`` all scales are 1, and a bias brings each channel's sum of its own
window into the middle of the 8 bits of the output, which show it to the last unit then. An engine
rounds nothing there but sums beyond 2^24, to float32. A layer without a bias gives its sums as
float32. ``own`` has the graph's scales, biases and zero-points: what lies within float32's
roundings of a tie may become either integer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, prod, sqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from integer_layers import Layer, Product, Quantiser
from mer_calibration.graph.placement import output_axis

Form = Literal["high", "low", "own"]
FORMS: tuple[Form, ...] = ("high", "low", "own")
#: Of float32's roundings, each by at most 2^-24 of a value, as many as lie between a sum and the
#: integer that it becomes, and some more.
ROUNDINGS = 8 * 2.0**-24
#: Rows, what is summed, and columns of a product of two activations.
PRODUCT = (48, 128, 32)
OPSET, IR_VERSION = 18, 9


@dataclass(frozen=True)
class Case:
    """A graph, its inputs, and the smallest and largest values that may come out."""

    name: str
    model: ModelProto
    inputs: Mapping[str, NDArray[np.float32]]
    low: NDArray[np.float32]
    high: NDArray[np.float32]

    def write(self, folder: Path, number: int) -> None:
        """``NUMBER.onnx`` and ``NUMBER.npz``, which ``drive_layers.py`` reads."""
        onnx.save(self.model, folder / f"{number:04}.onnx")
        arrays: dict[str, Any] = {f"input {name}": value for name, value in self.inputs.items()}
        arrays |= {"name": np.array(self.name), "low": self.low, "high": self.high}
        np.savez(folder / f"{number:04}.npz", **arrays)


def make_cases(layer: Layer, seed: int = 0) -> Iterator[Case]:
    """One case for each of ``FORMS``."""
    for form in FORMS:
        generator = np.random.default_rng(seed)
        read, places = _place_windows(layer, 1 if form == "high" else -1, generator)
        yield _make_own(layer, read) if form == "own" else _make_exact(layer, form, read, places)


def make_product_case(product: Product, seed: int = 0) -> Case:
    """Extremes times extremes; one row and one column have the largest integer alone."""
    generator = np.random.default_rng(seed)
    rows, inner, columns = PRODUCT
    graph = _Graph()
    values = []
    for name, side, shape in (
        ("first", product.first, (1, rows, inner)),
        ("second", product.second, (1, inner, columns)),
    ):
        read = generator.choice(side.ends, shape)
        read[:, 0 if name == "first" else slice(None), slice(None) if name == "first" else 0] = (
            side.ends[1]
        )
        values.append(read - side.zero_point)
        graph.read(name, read, replace(side, scale=1.0))
    graph.add("MatMul", ["first_dq", "second_dq"], "sums")
    sums = (values[0] @ values[1]).astype(np.float32)
    return Case(product.name, graph.build("sums", sums.shape), graph.inputs, sums, sums)


def _place_windows(
    layer: Layer, sign: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], list[tuple[int, ...]]]:
    """Integers to read with the worst window of each output channel, whose sums of positive
    products are largest for ``sign`` 1, of negative ones for -1; and where its sum comes out."""
    low, high = layer.data.ends
    worst = np.where(layer.rows * sign > 0, high, low)
    channels = len(worst)
    if layer.node.op_type != "Conv":
        return worst, [(o, o) for o in range(channels)]
    dims = len(layer.kernel)
    side = channels if dims == 1 else ceil(sqrt(channels))
    reach = _reach(layer)
    # Along each axis, in outputs: how far windows are apart, and where the first one is that reads
    # no border.
    apart = [ceil(r / s) for r, s in zip(reach, layer.strides, strict=True)]
    first = [ceil(before / s) for (before, _), s in zip(layer.pads, layer.strides, strict=True)]
    size = [
        (side * step + 2 * at - 1) * stride + r - before - after
        for step, at, stride, r, (before, after) in zip(
            apart, first, layer.strides, reach, layer.pads, strict=True
        )
    ]
    own = layer.rows.shape[1]
    read = generator.integers(low, high + 1, (1, own * layer.groups, *size))
    places: list[tuple[int, ...]] = []
    for o in range(channels):
        cell = np.unravel_index(o, [side] * dims)
        place = [int(c) * step + at for c, step, at in zip(cell, apart, first, strict=True)]
        begin = o // (channels // layer.groups) * own
        patch = [
            slice(p * s - before, p * s - before + r, gap)
            for p, s, (before, _), r, gap in zip(
                place, layer.strides, layer.pads, reach, layer.dilations, strict=True
            )
        ]
        read[(slice(None), slice(begin, begin + own), *patch)] = worst[o]
        places.append((0, o, *place))
    return read, places


def _reach(layer: Layer) -> list[int]:
    """Values that a window spans along each axis."""
    return [(k - 1) * gap + 1 for k, gap in zip(layer.kernel, layer.dilations, strict=True)]


def _sum(layer: Layer, read: NDArray[np.int64]) -> NDArray[np.float64]:
    """The layer's sums of what it reads, all whole."""
    values, rows = (read - layer.data.zero_point).astype(np.float64), layer.rows.astype(np.float64)
    if layer.node.op_type != "Conv":
        return np.asarray(values @ rows.T)
    dims, groups = len(layer.kernel), layer.groups
    padded = np.pad(values, [(0, 0), (0, 0), *layer.pads])
    axes = tuple(range(2, 2 + dims))
    windows: NDArray[np.float64] = np.lib.stride_tricks.sliding_window_view(
        padded,
        tuple(_reach(layer)),
        axis=axes,  # type: ignore[call-overload] # numpy declares one axis
    )
    starts = [slice(None, None, stride) for stride in layer.strides]
    places = [slice(None, None, gap) for gap in layer.dilations]
    windows = windows[(slice(None), slice(None), *starts, *places)]
    shape = windows.shape[2 : 2 + dims]
    windows = windows.reshape(groups, rows.shape[1], prod(shape), prod(layer.kernel))
    weights = rows.reshape(groups, -1, rows.shape[1], prod(layer.kernel))
    sums = np.einsum("gipk,goik->gop", windows, weights, optimize=True)
    return np.asarray(sums.reshape(1, len(rows), *shape))


def _make_exact(
    layer: Layer, form: Form, read: NDArray[np.int64], places: Sequence[tuple[int, ...]]
) -> Case:
    sums = _sum(layer, read)
    output = None
    bias = None
    if layer.bias is not None:
        if layer.output is not None:
            output = replace(layer.output, scale=1.0)
        low, high = (-128, 127) if output is None else _values(output)
        middle = (max(low, 0 if layer.relu else low) + high) // 2
        bias = middle - np.array([sums[place] for place in places])
    whole = sums.astype(np.float32).astype(np.float64) if not layer.integer_bias else sums
    if bias is not None:
        whole = whole + _along_channels(bias, sums.ndim)
    expected = _finish(whole, output, layer.relu)
    plain = replace(layer, scales=np.ones_like(layer.scales), data=replace(layer.data, scale=1.0))
    return _write(replace(plain, output=output, bias=bias), form, read, expected, expected)


def _make_own(layer: Layer, read: NDArray[np.int64]) -> Case:
    sums = _sum(layer, read)
    steps = _along_channels(layer.data.scale * layer.scales.astype(np.float64), sums.ndim)
    shift = np.zeros(1) if layer.bias is None else _along_channels(layer.bias, sums.ndim)
    exact, size = sums * steps + shift, np.abs(sums * steps) + np.abs(shift)
    if layer.output is not None:
        size = size + layer.output.scale * 256  # the zero-point is added, too
    slack = ROUNDINGS * size
    low, high = (_finish(exact + d, layer.output, layer.relu) for d in (-slack, slack))
    return _write(layer, "own", read, low, high)


def _along_channels(values: NDArray[np.float64], dims: int) -> NDArray[np.float64]:
    return values.reshape(-1, *[1] * (dims - 2))


def _values(output: Quantiser) -> tuple[int, int]:
    """The smallest and largest whole number of steps."""
    low, high = output.ends
    return low - output.zero_point, high - output.zero_point


def _finish(
    values: NDArray[np.float64], output: Quantiser | None, relu: bool
) -> NDArray[np.float32]:
    """Values as the layer gives them: in steps of its output, where it has one."""
    values = np.maximum(values, 0) if relu else values
    if output is not None:
        values = np.clip(np.rint(values / output.scale), *_values(output))
    return values.astype(np.float32)


def _write(
    layer: Layer,
    form: Form,
    read: NDArray[np.int64],
    low: NDArray[np.float32],
    high: NDArray[np.float32],
) -> Case:
    graph = _Graph()
    graph.read("data", read, layer.data)
    weight = ["weight", "weight_scale"]
    graph.keep("weight", layer.weight)
    graph.keep("weight_scale", layer.scales)
    if layer.node.op_type == "Gemm":  # ONNX Runtime's QGemm wants a zero-point
        weight.append(graph.keep("weight_zero_point", np.zeros(len(layer.scales), np.int8)))
    graph.add("DequantizeLinear", weight, "weight_dq", axis=output_axis(layer.node))
    inputs = ["data_dq", "weight_dq"]
    if layer.bias is not None and layer.integer_bias:
        scales = np.float32(layer.data.scale) * layer.scales
        steps = np.rint(layer.bias / scales.astype(np.float64)).astype(np.int32)
        bias = [graph.keep("bias", steps), graph.keep("bias_scale", scales)]
        graph.add("DequantizeLinear", bias, "bias_dq", axis=0)
        inputs.append("bias_dq")
    elif layer.bias is not None:
        inputs.append(graph.keep("bias", layer.bias.astype(np.float32)))
    last = "sums"
    graph.add(layer.node.op_type, inputs, last, **layer.attributes)
    if layer.relu:
        graph.add("Relu", [last], "relu")
        last = "relu"
    if layer.output is not None:
        last = graph.round(last, layer.output)
    name = f"{layer.name}, {form}"
    return Case(name, graph.build(last, low.shape), graph.inputs, low, high)


class _Graph:
    """A graph that is being written, with its inputs' values."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.inputs: dict[str, NDArray[np.float32]] = {}

    def add(self, op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(op_type, inputs, [output], output, **attributes))

    def keep(self, name: str, value: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def read(self, name: str, integers: NDArray[np.int64], side: Quantiser) -> None:
        """An input that is rounded to just these integers; ``NAME_dq`` is what they stand for."""
        steps = (integers - side.zero_point).astype(np.float32)
        self.inputs[name] = steps * np.float32(side.scale)
        pair = self._quantise(name, side)
        self.add("DequantizeLinear", pair, f"{name}_dq")

    def round(self, name: str, side: Quantiser) -> str:
        """Round a tensor; gives the name of what it comes to, in steps."""
        integers, _, zero_point = self._quantise(name, side)
        one = self.keep("step", np.float32(1))
        self.add("DequantizeLinear", [integers, one, zero_point], f"{name}_dq")
        return f"{name}_dq"

    def build(self, output: str, shape: tuple[int, ...]) -> ModelProto:
        given = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape)
            for name, value in self.inputs.items()
        ]
        made = helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)
        graph = helper.make_graph(self.nodes, "layer", given, [made], self.constants)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        return model

    def _quantise(self, name: str, side: Quantiser) -> list[str]:
        scale = self.keep(f"{name}_scale", np.float32(side.scale))
        zero_point = self.keep(f"{name}_zero_point", np.array(side.zero_point, side.dtype))
        self.add("QuantizeLinear", [name, scale, zero_point], f"{name}_q")
        return [f"{name}_q", scale, zero_point]
