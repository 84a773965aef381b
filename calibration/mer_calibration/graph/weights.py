"""Int8 weights: how a calibration notes their steps, and what they stand for.

A step of a channel may be wider than its largest weight asks for, and a weight may go to another
step than the nearest: ``measure.gptq`` chooses both.
"""

from __future__ import annotations

import base64
import binascii
import lzma
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from mer_calibration.errors import CalibrationError
from mer_calibration.graph.grid import MOST_STEPS, spread_scales, weight_scales, weight_steps
from mer_calibration.graph.placement import place
from mer_calibration.graph.view import GraphView

#: Steps of a channel may be wider than its largest weight asks for, by so many parts of that, so
#: that pairs of weights keep the rule of ``graph.saturation``.
STRETCH = 64


@dataclass(frozen=True)
class Rounding:
    """How a layer's weights are rounded.

    Attributes:
        stretches: for each output channel, by how many parts of ``STRETCH`` a step is wider than
            the largest weight / 127.
        steps: packed steps to add to the nearest ones (``pack_steps``).
    """

    stretches: tuple[int, ...]
    steps: str


@dataclass(frozen=True)
class RoundedWeight:
    """An int8 weight.

    Attributes:
        steps: int8 in the weight's shape, -127 to 127.
        scales: float32 (channels,): what a step stands for.
        axis: of the output channels.
    """

    steps: NDArray[np.int8]
    scales: NDArray[np.float32]
    axis: int

    def dequantise(self) -> NDArray[np.float32]:
        """The values that the steps stand for."""
        spread = spread_scales(self.scales, self.steps, self.axis)
        return np.asarray(self.steps * spread, np.float32)


#: By layer, that is by its weight's name.
Roundings = Mapping[str, Rounding]
RoundedWeights = Mapping[str, RoundedWeight]


def apply_roundings(
    model: ModelProto, roundings: Roundings, keep_float: Collection[str] = ()
) -> dict[str, RoundedWeight]:
    """The weights of ``model`` in int8, by layer, rounded as found.

    Args:
        model: the float graph that the roundings were found on.
        keep_float: layers that stay float.

    Raises:
        CalibrationError: the roundings are of another graph.
    """
    view = GraphView(model)
    rounded = {}
    for layer in place(model, keep_float).layers:
        if layer.name not in roundings:
            continue
        found = roundings[layer.name]
        weight = view.value(layer.weight)
        finest = weight_scales(weight, layer.axis)
        if len(found.stretches) != len(finest):
            raise CalibrationError(
                f"the rounding of layer '{layer.name}' is of another graph: calibrate again"
            )
        scales = stretch_scales(finest, np.array(found.stretches))
        nearest = weight_steps(weight, scales, layer.axis).astype(np.int64)
        steps = nearest + unpack_steps(found.steps, weight.shape)
        if np.abs(steps).max(initial=0) > MOST_STEPS:
            raise CalibrationError(
                f"the rounding of layer '{layer.name}' is of another graph: calibrate again"
            )
        rounded[layer.name] = RoundedWeight(steps.astype(np.int8), scales, layer.axis)
    return rounded


def replace_weights(model: ModelProto, weights: RoundedWeights) -> ModelProto:
    """``model``, still in float, with what its rounded weights stand for."""
    rounded = ModelProto()
    rounded.CopyFrom(model)
    for tensor in rounded.graph.initializer:
        if tensor.name in weights:
            value = weights[tensor.name].dequantise()
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return rounded


def pack_steps(steps: NDArray[np.integer]) -> str:
    """Small whole numbers (-128 to 127) as text."""
    raw = steps.astype(np.int8).tobytes()
    return base64.b64encode(lzma.compress(raw, preset=9)).decode("ascii")


def unpack_steps(text: str, shape: tuple[int, ...]) -> NDArray[np.int8]:
    """What ``pack_steps`` packed.

    Raises:
        CalibrationError: it is damaged, or of another shape.
    """
    try:
        steps = np.frombuffer(lzma.decompress(base64.b64decode(text, validate=True)), np.int8)
        return steps.reshape(shape)
    except (binascii.Error, lzma.LZMAError, ValueError) as error:
        raise CalibrationError(
            f"the roundings of a weight of shape {shape} are damaged: calibrate again"
        ) from error


def stretch_scales(
    finest: NDArray[np.float32], stretches: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Scales (channels,) so many parts of ``STRETCH`` wider."""
    return np.asarray(finest * (1 + stretches / STRETCH), np.float32)
