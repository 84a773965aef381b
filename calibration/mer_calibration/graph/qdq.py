"""A float graph and its ranges to a graph with Q/DQ pairs, in a dialect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from mer_calibration.graph.dialects import Dialect, check_dialect, round_to_half
from mer_calibration.graph.grid import Grid, spread_scales, weight_scales, weight_steps
from mer_calibration.graph.placement import Group, Placement, WeightedLayer, factors_of
from mer_calibration.graph.saturation import widen_scales
from mer_calibration.graph.view import GraphView
from mer_calibration.graph.weights import RoundedWeights

#: int32 steps that a bias may take; less than its range, for sums are added to it.
MOST_BIAS_STEPS = 2**30
#: Values of pixels.
PIXEL_RANGE = (0, 255)


def write_qdq(
    model: ModelProto,
    placement: Placement,
    grids: Mapping[str, Grid],
    dialect: Dialect,
    pixel_means: Sequence[float] = (),
    weights: RoundedWeights = MappingProxyType({}),
) -> ModelProto:
    """``model`` with the layers of ``placement`` in int8.

    Args:
        model: the float graph; it isn't changed.
        grids: a grid for each source tensor of ``placement``; those of a group are equal.
        pixel_means: average pixel of each colour, 0 to 255. Pixels are far from 0 on average, so
            the rounding of the first layer's weights biases what it puts out; where the means are
            given its bias takes that back (Nagel et al., ICCV 2019, section 4.2). Deeper layers
            gain nothing from it: measured on EfficientFace.
        weights: of layers whose weights were rounded; those of the others go to their nearest
            steps, on scales on which these can't overflow (``mer_calibration.graph.saturation``).

    Raises:
        DialectError: the graph that came out isn't of ``dialect``.
    """
    written = _Writer(model, placement, grids, dialect, pixel_means, weights).write()
    onnx.checker.check_model(written)
    check_dialect(written, dialect)
    return written


class _Writer:
    def __init__(
        self,
        model: ModelProto,
        placement: Placement,
        grids: Mapping[str, Grid],
        dialect: Dialect,
        pixel_means: Sequence[float],
        weights: RoundedWeights,
    ) -> None:
        self.weights = weights
        self.pixel_means = np.array(pixel_means, np.float64)
        self.model, self.placement, self.grids, self.dialect = model, placement, grids, dialect
        self.constants = GraphView(model).values()
        self.layers = {layer.node: layer for layer in placement.layers}
        self.group_of: dict[str, Group] = {
            member: group for group in placement.groups for member in group.members
        }
        self.nodes: list[NodeProto] = []
        self.added: dict[str, TensorProto] = {}
        self.integers: dict[str, str] = {}  # tensor -> its integer form
        self.floats: dict[str, str] = {}  # tensor -> its rounded float form

    def write(self) -> ModelProto:
        graph = self.model.graph
        for value in graph.input:
            self._after(value.name)
        for node in graph.node:
            self._node(node)
        for value in graph.output:
            self._give(value.name)
        used = {name for node in self.nodes for name in node.input}
        kept = [t for t in graph.initializer if t.name in used]
        new = helper.make_graph(
            self.nodes,
            graph.name,
            graph.input,
            graph.output,
            [*kept, *(self.added[name] for name in sorted(self.added))],
        )
        return helper.make_model(
            new, opset_imports=self.model.opset_import, ir_version=self.model.ir_version
        )

    def _node(self, node: NodeProto) -> None:
        layer = self.layers.get(node.name)
        grouped = node.output[0] in self.group_of
        new = NodeProto()
        new.CopyFrom(node)
        del new.input[:]
        if layer is not None:
            new.input.extend(self._layer_inputs(layer))
        elif grouped and self._is_move(node) and self.dialect.integer_moves:
            new.input.extend(self.integers.get(name, name) for name in node.input)
            del new.output[:]
            for name in node.output:
                new.output.append(f"{name}_q")
                self.integers[name] = f"{name}_q"
        elif grouped and self._is_move(node):  # what it puts out is on the grid already
            new.input.extend(self._rounded(name) for name in node.input)
            self.floats.update({name: name for name in node.output})
        elif (
            grouped
            and self.dialect.integer_moves
            and self._is_pixel_grid(self.group_of[node.output[0]])
        ):
            self.integers[node.output[0]] = node.input[0]  # the cast is the dequantiser's now
            return
        elif self._restores_channels(node):
            self._restore_channels(node)
            return
        else:
            new.input.extend(self._rounded(name) for name in node.input)
        self.nodes.append(new)
        for name in node.output:
            self._after(name)

    def _restores_channels(self, node: NodeProto) -> bool:
        """Whether a node gives int8 channels back what equalisation divided them by."""
        if not self.dialect.channel_scales or node.op_type != "Mul":
            return False
        data, factors = node.input
        return factors == factors_of(data) and data in self.group_of

    def _restore_channels(self, node: NodeProto) -> None:
        data, factors = node.input
        grid = self._grid(self.group_of[data])
        scales = np.float32(grid.scale) * self.constants[factors].reshape(-1)
        zero_points = np.full(len(scales), grid.zero_point, grid.dtype)
        output = node.output[0]
        inputs = [
            self.integers[data],
            self._constant(f"{output}_scale", scales),
            self._constant(f"{output}_zero_point", zero_points),
        ]
        self._dequantise(data, inputs, axis=1, output=output)

    def _is_move(self, node: NodeProto) -> bool:
        return node.output[0] not in self.group_of[node.output[0]].sources

    def _after(self, name: str) -> None:
        """Quantise a tensor where it is a source."""
        group = self.group_of.get(name)
        if group is None or name not in group.sources or name in self.integers:
            return
        scale, zero_point = self._grid_constants(group)
        self.nodes.append(
            helper.make_node(
                "QuantizeLinear", [name, scale, zero_point], [f"{name}_q"], f"{name}_quantize"
            )
        )
        self.integers[name] = f"{name}_q"

    def _give(self, name: str) -> None:
        """Dequantise an output of the graph that was moved as integers."""
        written = any(name in node.output for node in self.nodes)
        if written or name not in self.integers:
            return
        scale, zero_point = self._grid_constants(self.group_of[name])
        self._dequantise(name, [self.integers[name], scale, zero_point], output=name)

    def _rounded(self, name: str) -> str:
        """The name under which a reader finds ``name``: dequantised, where it is on a grid."""
        group = self.group_of.get(name)
        if group is None:
            return name
        if name not in self.floats:
            scale, zero_point = self._grid_constants(group)
            self.floats[name] = self._dequantise(name, [self.integers[name], scale, zero_point])
        return self.floats[name]

    def _grid(self, group: Group) -> Grid:
        if group.pixels:
            return self.dialect.make_grid(*PIXEL_RANGE)
        return self.grids[group.sources[0]]

    def _is_pixel_grid(self, group: Group) -> bool:
        """Whether the integers of a group are the graph's uint8 input itself."""
        return group.pixels and self._grid(group) == Grid(1.0, 0, *PIXEL_RANGE)

    def _grid_constants(self, group: Group) -> tuple[str, str]:
        grid = self._grid(group)
        scale = self._constant(f"{group.sources[0]}_scale", np.array(grid.scale, np.float32))
        zero_point = f"{group.sources[0]}_zero_point"
        return scale, self._constant(zero_point, np.array(grid.zero_point, grid.dtype))

    def _layer_inputs(self, layer: WeightedLayer) -> list[str]:
        data = self._rounded(layer.data)
        weight = self.constants[layer.weight]
        steps, scales = self._weight(layer, weight)
        if layer.bias:
            bias = self.constants[layer.bias]
            if len(self.pixel_means) and self.group_of[layer.data].pixels:
                error = (
                    steps * spread_scales(scales, weight, layer.axis).astype(np.float64) - weight
                )
                bias = bias - np.einsum("ocxy,c->o", error, self.pixel_means).astype(np.float32)
        dequantised = self._constants_dequantised(
            layer.weight, steps, scales, layer.axis, explicit=layer.op_type == "Gemm"
        )
        if not layer.bias:
            return [data, dequantised]
        if not self.dialect.integer_bias:
            return [data, dequantised, self._float_bias(layer, bias)]
        return [data, dequantised, self._integer_bias(layer, bias, scales)]

    def _float_bias(self, layer: WeightedLayer, bias: NDArray[np.float32]) -> str:
        if bias is self.constants[layer.bias]:
            return layer.bias
        return self._constant(f"{layer.bias}_corrected", bias)

    def _weight(
        self, layer: WeightedLayer, weight: NDArray[np.float32]
    ) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """Steps in the weight's shape, and a scale for each output channel."""
        rounded = self.weights.get(layer.name)
        if rounded is None:
            finest = weight_scales(weight, layer.axis)
            scales = widen_scales(finest, weight, layer.axis, layer.groups)
        else:
            scales = rounded.scales
        if self.dialect.half_constants:
            scales = round_to_half(scales)
        chosen = scales
        if layer.bias and self.dialect.integer_bias:
            # A dead channel's scale would be too fine for its bias in int32.
            largest = np.abs(self.constants[layer.bias].astype(np.float64))
            step = self._grid(self.group_of[layer.data]).scale * MOST_BIAS_STEPS
            wanted = (largest / step).astype(np.float32)
            safe = widen_scales(wanted, weight, layer.axis, layer.groups)
            scales = np.where(wanted > scales, safe, scales)
        steps = weight_steps(weight, scales, layer.axis)
        if rounded is not None:
            same = spread_scales(scales == chosen, weight, layer.axis)
            steps = np.where(same, rounded.steps, steps)
        return steps, scales

    def _integer_bias(
        self, layer: WeightedLayer, bias: NDArray[np.float32], scales: NDArray[np.float32]
    ) -> str:
        grid = self._grid(self.group_of[layer.data])
        sums = np.float32(grid.scale) * scales
        steps = np.rint(bias.astype(np.float64) / sums).astype(np.int32)
        return self._constants_dequantised(layer.bias, steps, sums.astype(np.float32), 0)

    def _constants_dequantised(
        self,
        name: str,
        steps: NDArray[np.integer],
        scales: NDArray[np.float32],
        axis: int,
        *,
        explicit: bool = False,
    ) -> str:
        while f"{name}_q" in self.added:  # exporters store equal constants once
            name = f"{name}_again"
        inputs = [self._constant(f"{name}_q", steps), self._constant(f"{name}_scale", scales)]
        # Without a zero-point it is 0 and weighs nothing, but ONNX Runtime's QGemm wants one.
        if explicit:
            zeros = np.zeros(scales.shape, steps.dtype)
            inputs.append(self._constant(f"{name}_zero_point", zeros))
        return self._dequantise(name, inputs, axis=axis)

    def _dequantise(
        self, name: str, inputs: list[str], axis: int | None = None, output: str = ""
    ) -> str:
        output = output or f"{name}_dq"
        node = helper.make_node("DequantizeLinear", inputs, [output], f"{output}_dequantize")
        if axis is not None:
            node.attribute.append(helper.make_attribute("axis", axis))
        self.nodes.append(node)
        return output

    def _constant(self, name: str, value: NDArray[np.generic]) -> str:
        if name not in self.added:
            self.added[name] = numpy_helper.from_array(value, name)
        return name
