"""The QDQ dialects: which integers an engine wants, and the check that a graph speaks one."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from mer_calibration.errors import DialectError
from mer_calibration.graph.grid import Grid, asymmetric_grid, symmetric_grid
from mer_calibration.graph.placement import JOINS, MOVES, WEIGHTED, Placement, place
from mer_calibration.graph.view import GraphView

#: One of ``DIALECTS``.
DialectName = str


#: Still 4 bits of precision in float16.
SMALLEST_HALF_SCALE = np.float32(2**-20)
LARGEST_HALF = np.finfo(np.float16).max


@dataclass(frozen=True)
class Dialect:
    """How a calibrated graph is written down.

    Attributes:
        activations: the integers of activations; ``either``: uint8 where no value is negative.
        symmetric: their zero-point is 0; otherwise it may be any, and a ReLU's output has
            the lowest, so that engines let rounding do the ReLU's work.
        integer_bias: biases are int32 on the grid of their sums; otherwise they stay float.
        integer_moves: data movement works on int8; otherwise it stands between pairs, for
            engines that fuse pairs with what computes on either side.
        half_constants: scales and all other constants are such as float16 holds, for graphs
            whose rest is float16: what is proved is what is computed then, but for sums.
        space_to_depth: so many pixels of a row are one for the first convolution
            (``graph.space_to_depth``); 0 where that gains nothing, or wasn't measured.
        float_outputs: what no int8 layer reads isn't rounded (``place``).
        float_products: products of two activations, as in attention, stay float (``place``).
            OpenVINO would multiply integers there, and without VNNI such sums overflow: neither
            side is constant, so that no rule can prevent it.
        channel_scales: where floats read an int8 tensor, it may be dequantised with a scale
            for each channel (``equalisation``). Needs ``integer_moves``.
        fold_zero_points: zero-points other than 0 are used where they can be folded into what
            stands around the tensor (``fold_zero_points``).
    """

    name: DialectName
    activations: Literal["uint8", "int8", "either"]
    symmetric: bool
    integer_bias: bool
    integer_moves: bool
    half_constants: bool
    space_to_depth: int = 0
    float_outputs: bool = False
    float_products: bool = False
    channel_scales: bool = False
    fold_zero_points: bool = False

    def place(self, model: ModelProto, keep_float: Collection[str] = ()) -> Placement:
        """What of ``model``, a float graph, is rounded in this dialect (``placement.place``)."""
        return place(
            model,
            keep_float,
            float_outputs=self.float_outputs,
            float_products=self.float_products,
        )

    def before_folding(self) -> Dialect:
        """The same with the zero-points that are folded then, if any are."""
        return dataclasses.replace(self, symmetric=False) if self.fold_zero_points else self

    def make_grid(self, low: float, high: float) -> Grid:
        """The grid of an activation between ``low`` and ``high``.

        Raises:
            CalibrationError: as ``asymmetric_grid``.
        """
        if self.activations == "either" and low >= 0:
            wide = asymmetric_grid(0.0, high)
            grid = Grid(wide.scale, 0, wide.low, wide.high)
        elif self.symmetric:
            grid = symmetric_grid(low, high)
        elif self.activations in ("uint8", "either"):
            grid = asymmetric_grid(low, high)
        else:
            wide = asymmetric_grid(low, high)
            grid = Grid(wide.scale, wide.zero_point - 128, wide.low - 128, wide.high - 128)
        if self.half_constants:
            scale = round_to_half(np.array(grid.scale, np.float32))
            grid = dataclasses.replace(grid, scale=float(scale))
        return grid


#: TensorRT 10 and 11, TensorRT-RTX: int8, zero-point 0, float bias (their parsers refuse int32).
PORTABLE = Dialect(
    "tensorrt",
    "int8",
    symmetric=True,
    integer_bias=False,
    integer_moves=False,
    half_constants=True,
    float_outputs=True,
    fold_zero_points=True,
)
#: ONNX Runtime on x86: uint8 activations and int8 weights are what its kernels multiply fastest.
X86 = Dialect(
    "x86",
    "uint8",
    symmetric=False,
    integer_bias=True,
    integer_moves=True,
    half_constants=False,
    space_to_depth=4,
    channel_scales=True,
)
#: ONNX Runtime on ARM: int8 times int8 (SDOT). A zero-point 0 would keep ReLUs, and with
#: them most convolutions in float.
ARM = Dialect(
    "arm",
    "int8",
    symmetric=False,
    integer_bias=True,
    integer_moves=True,
    half_constants=False,
    channel_scales=True,
)
#: OpenVINO on the CPU: zero-points cost its kernels time, so they are folded. Where that can't be,
#: in products without a bias, int8 remains; in a convolution it would be rounded otherwise on
#: processors without VNNI, in float32 with 128 added, where a tie may fall on the other side.
OPENVINO = Dialect(
    "openvino",
    "either",
    symmetric=True,
    integer_bias=False,
    integer_moves=False,
    half_constants=False,
    space_to_depth=4,
    float_products=True,
    fold_zero_points=True,
)
#: ``docs/contributing/dialect.md`` tells how to add one.
DIALECTS: dict[DialectName, Dialect] = {
    "tensorrt": PORTABLE,
    "x86": X86,
    "arm": ARM,
    "openvino": OPENVINO,
}


def round_to_half(scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """The next float32 scales that float16 holds too; upwards, so that no value is cut off."""
    halves = np.maximum(scales, SMALLEST_HALF_SCALE).astype(np.float16)
    above = np.nextafter(halves, np.float16(np.inf))
    return np.where(halves < scales, above, halves).astype(np.float32)


def round_constants(model: ModelProto) -> None:
    """Give ``model`` float constants that float16 holds, the nearest; scales must be such."""
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            halves = to_halves(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(halves.astype(np.float32), tensor.name))


def to_halves(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """The nearest finite float16, shape kept."""
    return np.asarray(values.clip(-LARGEST_HALF, LARGEST_HALF), np.float16)


def check_dialect(model: ModelProto, dialect: Dialect) -> None:
    """Refuse a graph with a Q or DQ that isn't of ``dialect``.

    Engines accept some of what they then compute wrongly (TensorRT-RTX reads uint8 with
    zero-point 0 as int8, and takes per-channel activations), so acceptance proves nothing.

    Raises:
        DialectError: names the tensor and what is wrong with it.
    """
    constants = GraphView(model).constants
    weights, biases = _weights_and_biases(model)
    onward = ("QuantizeLinear", *WEIGHTED, *MOVES, *JOINS)
    read = {name for node in model.graph.node if node.op_type in onward for name in node.input}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        tensor = node.input[0]
        grid = _read_grid(node, constants)
        if node.op_type == "DequantizeLinear" and node.output[0] in biases:
            _check_bias(tensor, grid, dialect)
        elif node.op_type == "DequantizeLinear" and tensor in constants:
            _check_weight(tensor, grid, node.output[0] in weights)
        else:
            floats = node.op_type == "DequantizeLinear" and read.isdisjoint(node.output)
            _check_activation(tensor, grid, dialect, by_channel=dialect.channel_scales and floats)
    if dialect.float_products:
        _check_products(model)


def _check_products(model: ModelProto) -> None:
    """Refuse a product of two dequantised activations."""
    view = GraphView(model)
    moved = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    for node in model.graph.node:
        if node.op_type in MOVES and node.input[0] in moved:
            moved.update(node.output)
        elif (
            node.op_type == "MatMul"
            and all(name in moved for name in node.input)
            and view.producers[node.input[1]].input[0] not in view.constants
        ):
            raise DialectError(node.output[0], "is an int8 product of two activations")


@dataclass(frozen=True)
class _WrittenGrid:
    scale: NDArray[np.floating]
    zero_point: NDArray[np.integer]
    dtype: int


def _weights_and_biases(model: ModelProto) -> tuple[set[str], set[str]]:
    layers = [node for node in model.graph.node if node.op_type in WEIGHTED]
    weights = {node.input[1] for node in layers}
    return weights, {node.input[2] for node in layers if len(node.input) > 2}


def _read_grid(node: NodeProto, constants: dict[str, TensorProto]) -> _WrittenGrid:
    tensor = node.input[0]
    if any(name not in constants for name in node.input[1:]):
        raise DialectError(tensor, "has a scale or zero-point that isn't constant")
    scale = numpy_helper.to_array(constants[node.input[1]])
    if len(node.input) > 2:
        zero_point = constants[node.input[2]]
        return _WrittenGrid(scale, numpy_helper.to_array(zero_point), zero_point.data_type)
    if tensor not in constants:
        raise DialectError(tensor, "has no zero-point, and so is uint8")
    return _WrittenGrid(scale, np.zeros((), np.int32), constants[tensor].data_type)


def _check_activation(
    tensor: str, grid: _WrittenGrid, dialect: Dialect, *, by_channel: bool
) -> None:
    wanted = {
        "uint8": (TensorProto.UINT8,),
        "int8": (TensorProto.INT8,),
        "either": (TensorProto.UINT8, TensorProto.INT8),
    }[dialect.activations]
    if grid.scale.size != 1 and not by_channel:
        raise DialectError(tensor, "is an activation with a scale for each channel")
    if grid.dtype not in wanted:
        raise DialectError(
            tensor,
            f"is {_type_name(grid.dtype)}, where {dialect.name} has {dialect.activations}",
        )
    if dialect.symmetric and grid.zero_point.any():
        raise DialectError(
            tensor, f"has zero-point {int(grid.zero_point.flat[0])}, where {dialect.name} has 0"
        )
    _check_scale(tensor, grid)


def _check_weight(tensor: str, grid: _WrittenGrid, used: bool) -> None:
    if not used:
        raise DialectError(tensor, "is a dequantised constant that no weighted layer takes")
    if grid.dtype != TensorProto.INT8:
        raise DialectError(tensor, f"is a weight of {_type_name(grid.dtype)}, not int8")
    if grid.zero_point.any():
        raise DialectError(tensor, "is a weight whose zero-point isn't 0")
    if grid.scale.ndim != 1:
        raise DialectError(tensor, "is a weight with one scale for all channels")
    _check_scale(tensor, grid)


def _check_bias(tensor: str, grid: _WrittenGrid, dialect: Dialect) -> None:
    if not dialect.integer_bias:
        raise DialectError(tensor, f"is a quantised bias, where {dialect.name} has float ones")
    if grid.dtype != TensorProto.INT32 or grid.zero_point.any():
        raise DialectError(tensor, "is a bias that isn't int32 with zero-point 0")
    _check_scale(tensor, grid)


def _check_scale(tensor: str, grid: _WrittenGrid) -> None:
    scale = grid.scale.astype(np.float64)
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise DialectError(tensor, "has a scale that isn't a positive number")


def _type_name(data_type: int) -> str:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(data_type)).name
