"""Weights rounded so that errors cancel in what a layer puts out, not each to its nearest step.

What a layer reads is alike from sample to sample: rectified values are positive, neighbouring
pixels and channels go together. Rounding errors of weights that are read together can cancel, so
each weight's error is taken up by those that are still to be rounded, as the inputs' second
moments say (Frantar et al., GPTQ, ICLR 2023, section 3). Such errors matter more than those of
activations: they are the same in every frame, and no average over frames takes them away.
"""

from __future__ import annotations

import base64
import binascii
import lzma
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from mer_calibration.errors import CalibrationError
from mer_calibration.grid import MOST_STEPS, spread_scales, weight_scales, weight_steps
from mer_calibration.observation import Feed, Probe
from mer_calibration.placement import WeightedLayer, place

#: Of a layer, by its weight's name: packed steps to add to the nearest ones (``pack_steps``).
Roundings = Mapping[str, str]

#: Places of a sample at which a convolution's inputs are looked at; the seed draws them.
PLACES, SEED = 64, 0
#: Added to the moments' diagonal, as a share of its mean: inputs that were never seen together.
DAMPING = 0.01
#: So that inputs that are always zero leave something to invert.
SMALLEST_MOMENT = 1e-12


def find_roundings(
    model: ModelProto, feeds: Iterable[Feed], *, threads: int | None = None
) -> Roundings:
    """How to round the weights of ``model``, a float graph, for what ``feeds`` make it read.

    Raises:
        CalibrationError: a sample doesn't fit the graph, or a value isn't finite.
    """
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = {node.name: node for node in model.graph.node}
    layers = place(model).layers
    readers = [_Reader(layer, nodes[layer.node], constants[layer.weight]) for layer in layers]
    probe = Probe(model, list(dict.fromkeys(layer.data for layer in layers)), threads=threads)
    generator = np.random.default_rng(SEED)
    moments: dict[str, NDArray[np.float64]] = {}
    for feed in feeds:
        values = probe.read(feed)
        for layer, reader in zip(layers, readers, strict=True):
            seen = reader.look(values[layer.data], generator)
            if not np.isfinite(seen).all():
                raise CalibrationError(f"the input of layer '{layer.name}' is not finite")
            found = seen.transpose(0, 2, 1) @ seen
            moments[layer.name] = moments.get(layer.name, 0.0) + found
    found_steps = {}
    for layer, reader in zip(layers, readers, strict=True):
        nearest, best = reader.round(moments[layer.name])
        found_steps[layer.name] = pack_steps(best - nearest)
    return found_steps


def round_weights(
    model: ModelProto, roundings: Roundings, keep_float: Collection[str] = ()
) -> ModelProto:
    """``model`` with its weights on the int8 grids of their channels, rounded as found.

    Writing it in any dialect rounds each weight to the step that it is on.

    Args:
        keep_float: layers that stay float: their weights stay as they are.

    Raises:
        CalibrationError: the roundings are of another graph.
    """
    rounded = ModelProto()
    rounded.CopyFrom(model)
    tensors = {t.name: t for t in rounded.graph.initializer}
    for layer in place(model).layers:
        if layer.name not in roundings or layer.name in keep_float:
            continue
        weight = numpy_helper.to_array(tensors[layer.weight])
        scales = weight_scales(weight, layer.axis)
        nearest = weight_steps(weight, scales, layer.axis).astype(np.int64)
        steps = nearest + unpack_steps(roundings[layer.name], weight.shape)
        value = (steps * spread_scales(scales, weight, layer.axis)).astype(np.float32)
        tensors[layer.weight].CopyFrom(numpy_helper.from_array(value, layer.weight))
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


class _Reader:
    """A layer's weight as G matrices (R outputs, K inputs), and its inputs likewise."""

    def __init__(self, layer: WeightedLayer, node: NodeProto, weight: NDArray[np.float32]) -> None:
        self.layer, self.weight = layer, weight
        self.options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self.groups = self.options.get("group", 1)

    def look(
        self, value: NDArray[np.generic], generator: np.random.Generator
    ) -> NDArray[np.float64]:
        """Inputs (G, n, K) of some places."""
        if self.layer.op_type != "Conv":
            return value.reshape(1, -1, value.shape[-1]).astype(np.float64)
        kernel = self.weight.shape[2:]
        axes = len(kernel)
        pads = self.options.get("pads", [0] * 2 * axes)
        strides = self.options.get("strides", [1] * axes)
        dilations = self.options.get("dilations", [1] * axes)
        around = [(0, 0), (0, 0), *zip(pads[:axes], pads[axes:], strict=True)]
        padded = np.pad(value, around)
        spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
        places = list(range(2, 2 + axes))
        view: Any = np.lib.stride_tricks.sliding_window_view
        windows: Any = view(padded, spans, axis=places)
        windows = windows[(slice(None), slice(None), *(slice(None, None, s) for s in strides))]
        windows = windows[(..., *(slice(None, None, d) for d in dilations))]
        ends = (windows.shape[0], *windows.shape[2 : 2 + axes])
        flat = generator.integers(0, np.prod(ends), PLACES)
        place = np.unravel_index(flat, ends)
        seen = windows[(place[0], slice(None), *place[1:])].astype(np.float64)
        seen = seen.reshape(len(flat), self.groups, -1)
        return np.asarray(seen.transpose(1, 0, 2))

    def round(self, moments: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The weight's nearest steps and those whose errors cancel best, both in its shape."""
        axis = self.layer.axis
        scales = weight_scales(self.weight, axis)
        nearest = weight_steps(self.weight, scales, axis).astype(np.int64)
        full = spread_scales(scales, self.weight, axis)
        matrices = self._to_matrices(self.weight.astype(np.float64) / full)
        pairs = zip(matrices, moments, strict=True)
        best = np.stack([_cancel(*pair) for pair in pairs])
        return nearest, self._from_matrices(best)

    def _to_matrices(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        rows = weight if self.layer.axis == 0 else weight.T
        return rows.reshape(self.groups, len(rows) // self.groups, -1)

    def _from_matrices(self, steps: NDArray[np.int64]) -> NDArray[np.int64]:
        if self.layer.axis == 0:
            return steps.reshape(self.weight.shape)
        return steps.reshape(self.weight.T.shape).T


def _cancel(weights: NDArray[np.float64], moments: NDArray[np.float64]) -> NDArray[np.int64]:
    """Weights (R, K) in steps to whole steps, by the inputs' moments (K, K).

    A row that is mostly zeros reads but some of the inputs (its convolution was grouped, say), and
    goes on doing so.
    """
    steps = np.zeros(weights.shape, np.int64)
    sparse = (weights == 0).mean(axis=1) > 0.5
    read = (weights != 0) | ~sparse[:, None]
    patterns, which = np.unique(read, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        columns, rows = np.flatnonzero(pattern), np.flatnonzero(which.reshape(-1) == number)
        if len(columns):
            part = moments[np.ix_(columns, columns)]
            steps[np.ix_(rows, columns)] = _cancel_dense(weights[np.ix_(rows, columns)], part)
    return steps


def _cancel_dense(weights: NDArray[np.float64], moments: NDArray[np.float64]) -> NDArray[np.int64]:
    """As ``_cancel``; a row's largest weight stays where it is, for it makes the scale."""
    order = np.argsort(-np.diag(moments), kind="stable")
    left = weights[:, order]
    damping = DAMPING * np.diag(moments).mean() + SMALLEST_MOMENT
    sorted_moments = moments[np.ix_(order, order)] + damping * np.eye(len(order))
    spread = np.linalg.cholesky(np.linalg.inv(sorted_moments)).T
    nearest = np.rint(left)
    fixed = np.abs(nearest) >= MOST_STEPS
    steps = np.empty(left.shape, np.int64)
    for k in range(len(order)):
        wanted = np.where(fixed[:, k], nearest[:, k], np.rint(left[:, k]))
        steps[:, k] = wanted.clip(-MOST_STEPS, MOST_STEPS)
        error = (left[:, k] - steps[:, k]) / spread[k, k]
        left[:, k + 1 :] -= error[:, None] * spread[k, k + 1 :]
    return steps[:, np.argsort(order)]
