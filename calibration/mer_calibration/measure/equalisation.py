"""Cross-layer equalisation: the channels of a tensor share a grid, so they are scaled alike first.

A ReLU passes a positive factor on, so a channel may be divided by it where it is computed
and multiplied by it in the weights that read it (Nagel et al., ICCV 2019, section 4.1). The float
graph's answers stay the same but for roundings of float32; a channel that was lost in a coarse grid
isn't any more. Channels are followed through slices, concatenations and pools to all their readers.

Where a sum reads the tensor in float, a product in front of it gives the channels back what they
were divided by. In int8 that product costs nothing: it becomes a scale for each channel where
the tensor is dequantised (``qdq``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from mer_calibration.errors import CalibrationError
from mer_calibration.graph.placement import WeightedLayer, factors_of, find_layers
from mer_calibration.graph.view import GraphView, find_index
from mer_calibration.measure.observation import Feed, Probe

#: Steps of exponents in an octave. Whole octaves would be exact, but leave up to half of a
#: channel's grid unused.
OCTAVE = 8
#: Largest factor, either way, in octaves, and its exponent.
MOST_OCTAVES = 12
MOST_EXPONENT = MOST_OCTAVES * OCTAVE
#: What a channel's grid weighs in the choice of its factor; the rest is its readers' weights. Those
#: are rounded so that errors cancel, and leave a tenth of the noise: of 0.5, 0.75 and 1 the second
#: gave the features of EfficientFace 33.2, 33.7 and 33.3 dB.
ACTIVATION_SHARE = 0.75

#: Of a layer, by its weight's name: each output channel is divided by 2 to this power / ``OCTAVE``.
Exponents = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class _Channel:
    """An output channel of a layer."""

    layer: str
    index: int


class _Flow:
    """Where the output channels of convolutions go."""

    def __init__(self, model: ModelProto) -> None:
        self.layers = {layer.node: layer for layer in find_layers(model)}
        self.constants = GraphView(model).values()
        self.carried: dict[str, list[_Channel | None]] = {}
        self.fixed: set[_Channel] = set()
        self.readers: dict[_Channel, list[tuple[WeightedLayer, int]]] = {}
        #: Channels that have one factor: they are joined in space, in a later tensor.
        self.ties: dict[_Channel, set[_Channel]] = {}
        #: Tensors that a sum alone reads, which gets its channels back as they were.
        self.restored: dict[str, NodeProto] = {}
        self.counts = Counter(name for node in model.graph.node for name in node.input)
        uses = Counter(name for one in self.layers.values() for name in (one.weight, one.bias))
        # Exporters store equal constants once; zeros stay zeros whatever they are scaled by.
        self.shared = {n for n, uses in uses.items() if n and uses > 1 and self.constants[n].any()}
        relus = {layer.output: layer for layer in self.layers.values()}
        for node in model.graph.node:
            self._follow(node, relus)
        for value in model.graph.output:
            self._fix(value.name)

    def _follow(self, node: NodeProto, relus: Mapping[str, WeightedLayer]) -> None:
        layer = self.layers.get(node.name)
        output = node.output[0]
        if layer is not None and layer.op_type == "Conv":
            self._convolve(node, layer)
        elif (node.op_type == "Relu" and output in relus) or node.op_type == "MaxPool":
            self._carry(node.input[0], output)
        elif node.op_type == "Slice" and node.input[0] in self.carried:
            self._slice(node)
        elif node.op_type == "Split" and node.input[0] in self.carried:
            self._split(node)
        elif node.op_type == "Concat" and all(name in self.carried for name in node.input):
            if _attribute(node, "axis") == 1:
                self.carried[output] = [c for name in node.input for c in self.carried[name]]
            else:
                self._join(node)
        elif node.op_type == "Add" and sum(name in self.carried for name in node.input) == 1:
            # Of two, ONNX Runtime would make an int8 sum, which takes one scale for each.
            for name in node.input:
                self._restore(name, node)
        else:
            for name in node.input:
                self._fix(name)

    def _convolve(self, node: NodeProto, layer: WeightedLayer) -> None:
        weight, group = self.constants[layer.weight], _attribute(node, "group", 1)
        # Each column of a dense weight, or row of a depthwise one, is a channel's alone.
        separable = group == len(weight) if _is_depthwise(weight) else group == 1
        if separable and layer.weight not in self.shared:
            for i, channel in enumerate(self.carried.get(layer.data, [])):
                if channel is not None:
                    self.readers.setdefault(channel, []).append((layer, i))
        else:
            self._fix(layer.data)
        self.carried[node.output[0]] = [_Channel(layer.name, i) for i in range(len(weight))]
        if not self.shared.isdisjoint((layer.weight, layer.bias)):
            self._fix(node.output[0])

    def _carry(self, source: str, output: str) -> None:
        if source in self.carried:
            self.carried[output] = self.carried[source]

    def _slice(self, node: NodeProto) -> None:
        starts, ends, axes = (self.constants[name].tolist() for name in node.input[1:4])
        channels = self.carried[node.input[0]]
        for start, end, axis in zip(starts, ends, axes, strict=True):
            if axis == 1:
                channels = channels[start:end]
        self.carried[node.output[0]] = channels

    def _split(self, node: NodeProto) -> None:
        channels, at = self.carried[node.input[0]], 0
        if _attribute(node, "axis") != 1:
            self.carried.update(dict.fromkeys(node.output, channels))
            return
        for name, size in zip(node.output, self.constants[node.input[1]].tolist(), strict=True):
            self.carried[name] = channels[at : at + size]
            at += size

    def _join(self, node: NodeProto) -> None:
        """Side by side in space: one channel for several, with one factor for them all."""
        columns = zip(*(self.carried[name] for name in node.input), strict=True)
        joined: list[_Channel | None] = []
        for column in columns:
            parts = {channel for channel in column if channel is not None}
            for channel in parts:
                parts = parts | self.ties.get(channel, {channel})
            self.ties.update(dict.fromkeys(parts, parts))
            # The first stands for all of them.
            joined.append(min(parts, key=lambda one: (one.layer, one.index), default=None))
        self.carried[node.output[0]] = joined

    def _restore(self, name: str, node: NodeProto) -> None:
        """Let a sum read a tensor's channels as they were."""
        channels = self.carried.get(name, [])
        if self.counts[name] == 1 and channels and None not in channels:
            self.restored[name] = node
        else:
            self._fix(name)

    def _fix(self, name: str) -> None:
        for channel in self.carried.get(name, []):
            if channel is not None:
                self.fixed.update(self.tied(channel))

    def tied(self, channel: _Channel) -> set[_Channel]:
        """All that have its factor."""
        return self.ties.get(channel, {channel})


def measure_peaks(model: ModelProto, feeds: Iterable[Feed]) -> dict[str, NDArray[np.float32]]:
    """Largest magnitude (channels,) of each convolution's output channels, by weight's name.

    Raises:
        CalibrationError: a sample doesn't fit the graph, or a value isn't finite.
    """
    layers = [layer for layer in find_layers(model) if layer.op_type == "Conv"]
    probe = Probe(model, [layer.output for layer in layers])
    peaks: dict[str, NDArray[np.float32]] = {}
    for feed in feeds:
        values = probe.read(feed)
        for layer in layers:
            value = np.abs(values[layer.output])
            seen = value.max(axis=tuple(i for i in range(value.ndim) if i != 1))
            if not np.isfinite(seen).all():
                raise CalibrationError(f"the output of layer '{layer.name}' is not finite")
            peaks[layer.name] = np.maximum(peaks.get(layer.name, seen), seen)
    return peaks


def find_exponents(model: ModelProto, peaks: Mapping[str, NDArray[np.float32]]) -> Exponents:
    """Choose each channel's factor: between what its grid and what its readers' weights want.

    Where depthwise convolutions alone read a channel, all channels get the same peak, for their
    weights have a scale a channel. Elsewhere the geometric mean of both interests is taken,
    weighted by ``ACTIVATION_SHARE``.
    """
    flow = _Flow(model)
    restored = {c for name in flow.restored for c in flow.carried[name] if c is not None}
    largest = {name: float(peak.max()) for name, peak in peaks.items()}
    found = {}
    for layer in flow.layers.values():
        if layer.op_type != "Conv":
            continue
        exponents = []
        for i in range(len(peaks[layer.name])):
            tied = flow.tied(_Channel(layer.name, i))
            readers = [reader for one in tied for reader in flow.readers.get(one, [])]
            peak = max(float(peaks[one.layer][one.index]) for one in tied)
            free = tied.isdisjoint(flow.fixed) and (readers or not tied.isdisjoint(restored))
            share = peak / max(largest[one.layer] for one in tied) if peak else 0.0
            exponents.append(_exponent(share, readers, flow) if free and share else 0)
        found[layer.name] = tuple(exponents)
    return found


def equalise(model: ModelProto, exponents: Exponents) -> ModelProto:
    """``model`` with channels scaled; it computes the same, up to float32's roundings."""
    flow = _Flow(model)
    scaled = {name: value.copy() for name, value in flow.constants.items()}
    for layer in flow.layers.values():
        for i, exponent in enumerate(exponents.get(layer.name, ())):
            if not exponent:
                continue
            factor = np.exp2(exponent / OCTAVE)
            scaled[layer.weight][i] = scaled[layer.weight][i] / factor
            if layer.bias:
                scaled[layer.bias][i] = scaled[layer.bias][i] / factor
            for reader, column in flow.readers.get(_Channel(layer.name, i), []):
                weight = scaled[reader.weight]
                part = weight[column] if _is_depthwise(weight) else weight[:, column]
                part[...] = part * factor
    equal = ModelProto()
    equal.CopyFrom(model)
    for tensor in equal.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(scaled[tensor.name], tensor.name))
    for name, reader in flow.restored.items():
        channels = [channel for channel in flow.carried[name] if channel is not None]
        given = [exponents[channel.layer][channel.index] for channel in channels]
        if any(given):
            factors = np.exp2(np.array(given) / OCTAVE).astype(np.float32)
            axes = flow.constants[channels[0].layer].ndim - 2
            _multiply(equal, name, reader, factors.reshape(1, -1, *[1] * axes))
    return equal


def _multiply(
    model: ModelProto, name: str, reader: NodeProto, factors: NDArray[np.float32]
) -> None:
    """Let ``reader`` have the tensor (N, C, ...) times ``factors`` (1, C, 1, ...)."""
    product, constant = f"{name}_restored", factors_of(name)
    model.graph.initializer.append(numpy_helper.from_array(factors, constant))
    at = find_index(model.graph, reader)
    inputs = model.graph.node[at].input
    inputs[list(inputs).index(name)] = product
    node = helper.make_node("Mul", [name, constant], [product], f"{product}_mul")
    model.graph.node.insert(at, node)


def _exponent(share: float, readers: list[tuple[WeightedLayer, int]], flow: _Flow) -> int:
    """For a channel whose peak is ``share`` of the tensor's."""
    dense = [
        (flow.constants[layer.weight], column)
        for layer, column in readers
        if not _is_depthwise(flow.constants[layer.weight]) and flow.constants[layer.weight].any()
    ]
    wanted = math.log2(share)
    if dense:
        columns = max(
            float(np.abs(weight[:, column]).max()) / float(np.abs(weight).max())
            for weight, column in dense
        )
        ratio = math.log2(max(columns, 2.0**-MOST_OCTAVES))
        wanted = ACTIVATION_SHARE * wanted - (1 - ACTIVATION_SHARE) * ratio
    return max(-MOST_EXPONENT, min(MOST_EXPONENT, round(wanted * OCTAVE)))


def _is_depthwise(weight: NDArray[np.generic]) -> bool:
    return weight.shape[1] == 1


def _attribute(node: NodeProto, name: str, default: int = 0) -> int:
    return int(next((a.i for a in node.attribute if a.name == name), default))
