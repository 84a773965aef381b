"""No sum that saturates: what x86 processors without VNNI do with int8, and the rule against it.

Before VNNI, x86 multiplies bytes with ``vpmaddubsw``: the products of two neighbouring pairs of an
unsigned activation (0 to 255) and a signed weight are added in 16 bits, and what goes beyond
32 767 is cut off without a word. ONNX Runtime's dense convolutions and oneDNN's do so, on AVX2 and
on AVX-512 alike; VNNI, AMX, SSE and ARM add in 32 bits. Neighbours are the input channels 2 i and
2 i + 1 at one place of the kernel.

The rule: for each output channel, the positive weights of each such pair sum to ``LIMIT`` at most,
and the negative ones to minus ``LIMIT`` at least. Then no input can overflow, for
255 * 128 < 32 768, and every processor computes the same sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from mer_calibration.errors import SaturationError
from mer_calibration.graph.placement import WEIGHTED, count_groups, output_axis
from mer_calibration.graph.view import GraphView

#: Steps that a pair of weights of one sign may sum to.
LIMIT = 128
#: The rule in words, as a bundle's manifest has it.
RULE = (
    "for each output channel and place of the kernel, int8 weights of one sign of the input "
    f"channels 2 i and 2 i + 1 sum to at most {LIMIT}"
)


@dataclass(frozen=True)
class Certificate:
    """What was found when a graph was held to the rule.

    Attributes:
        layers: dense int8 layers.
        pairs: pairs of weights, for all output channels.
        largest: the largest sum of weights of one sign in a pair, in steps; at most ``limit``.
    """

    layers: int
    pairs: int
    largest: int
    limit: int = LIMIT
    rule: str = RULE

    def join(self, other: Certificate) -> Certificate:
        """That of two graphs together."""
        return Certificate(
            self.layers + other.layers,
            self.pairs + other.pairs,
            max(self.largest, other.largest),
        )


def is_depthwise(shape: tuple[int, ...], groups: int) -> bool:
    """Whether a weight's output channels read one input channel each, and none that of another.

    Nothing is paired then. With several outputs for an input, engines multiply as in any other
    convolution: neighbours are places of the kernel.
    """
    return 1 < groups == shape[0] and shape[1] == 1


def find_pairs(shape: tuple[int, ...], axis: int) -> NDArray[np.int64]:
    """Which weights of an output channel are multiplied side by side.

    Args:
        shape: of a dense weight, (O, I, ...) with its output channels on axis 0, or (I, O).
        axis: of its output channels.

    Returns:
        (pairs, 2) places in the channel's weights, flattened in the order of the array. An odd
        number of input channels, as pixels have, is read in a row: any two that follow each
        other may be a pair then, across places of the kernel too.
    """
    if axis == 1:
        inputs, places = shape[0], 1
    else:
        inputs, places = shape[1], int(np.prod(shape[2:], dtype=np.int64))
    order = np.arange(inputs * places).reshape(inputs, places).T.reshape(-1)
    if inputs % 2 and places > 1:
        return np.stack((order[:-1], order[1:]), axis=1)
    return order[: len(order) // 2 * 2].reshape(-1, 2)


def sum_pairs(weights: NDArray[Any], axis: int) -> NDArray[Any]:
    """For each output channel and pair the larger sum of one sign, its magnitude: (O, pairs)."""
    rows = (weights if axis == 0 else weights.T).reshape(weights.shape[axis], -1)
    pairs = rows[:, find_pairs(weights.shape, axis)]
    if pairs.dtype.kind == "i":
        pairs = pairs.astype(np.int64)
    positive, negative = pairs.clip(min=0).sum(axis=2), pairs.clip(max=0).sum(axis=2)
    return np.asarray(np.maximum(positive, -negative))


def widen_scales(
    scales: NDArray[np.float32], weights: NDArray[np.float32], axis: int, groups: int = 1
) -> NDArray[np.float32]:
    """Scales (channels,) on which ``weights``, each at its nearest step, keep the rule.

    Args:
        scales: the finest that are wanted.
        axis: of the output channels of ``weights``.
        groups: of a convolution.
    """
    if is_depthwise(weights.shape, groups):
        return scales
    sums = sum_pairs(weights.astype(np.float64), axis)
    if not sums.size:
        return scales
    # Two nearest steps may come out one above their sum.
    return np.maximum(scales, np.asarray(sums.max(axis=1) / (LIMIT - 1), np.float32))


def certify(model: ModelProto) -> Certificate:
    """Hold a quantised graph to the rule.

    Args:
        model: with Q/DQ pairs; weights are int8 constants behind a ``DequantizeLinear``.

    Raises:
        SaturationError: it can overflow; names the layer, the output channel and the pair.
    """
    constants = GraphView(model).constants
    stored = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }
    certificate = Certificate(0, 0, 0)
    for node in model.graph.node:
        if node.op_type in WEIGHTED and node.input[1] in stored:
            name = stored[node.input[1]]
            steps = numpy_helper.to_array(constants[name])
            certificate = certificate.join(_certify_layer(node, name, steps))
    return certificate


def _certify_layer(node: NodeProto, name: str, steps: NDArray[Any]) -> Certificate:
    axis = output_axis(node)
    if is_depthwise(steps.shape, count_groups(node)):
        return Certificate(0, 0, 0)
    sums = sum_pairs(steps, axis)
    largest = int(sums.max(initial=0))
    if largest > LIMIT:
        channel, pair = np.unravel_index(int(sums.argmax()), sums.shape)
        places = find_pairs(steps.shape, axis)[pair].tolist()
        raise SaturationError(name, int(channel), places, largest, LIMIT)
    return Certificate(1, sums.size, largest)
