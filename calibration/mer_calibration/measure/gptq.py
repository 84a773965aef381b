"""GPTQ rounding: errors of weights cancel in what a layer puts out, not each to its nearest step.

What a layer reads is alike from sample to sample: what a ReLU puts out is never negative,
neighbouring pixels and channels go together. Rounding errors of weights that are read together can
cancel, so each weight's error is taken up by those that are still to be rounded, as the inputs'
second moments say (Frantar et al., GPTQ, ICLR 2023, section 3). Such errors matter more than those
of activations: they are the same in every frame, and no average over frames takes them away.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from mer_calibration.errors import CalibrationError
from mer_calibration.graph.grid import MOST_STEPS, spread_scales, weight_scales, weight_steps
from mer_calibration.graph.placement import WeightedLayer, place
from mer_calibration.graph.saturation import LIMIT, find_pairs, is_depthwise, widen_scales
from mer_calibration.graph.view import GraphView
from mer_calibration.graph.weights import STRETCH, Rounding, pack_steps, stretch_scales
from mer_calibration.measure.observation import Feed, Probe

#: Places of a sample at which a convolution's inputs are looked at; the seed draws them.
PLACES, SEED = 64, 0
#: Added to the moments' diagonal, as a share of its mean: inputs that were never seen together.
DAMPING = 0.01
#: So that inputs that are always zero leave something to invert.
SMALLEST_MOMENT = 1e-12
#: How many widths of a channel's steps are tried (``graph.weights.STRETCH``), from none wider than
#: its largest weight asks for to what rounding to the nearest step would need.
#: Between them, a pair that is too large is cut and what else is read makes up for it. Chance
#: rounds some widths better than others, which gains more than the rule costs.
LEAST_TRIED, MOST_TRIED = 5, 33
#: Weights that are rounded for one layer, all widths together: large layers gain the least.
TRIED_WEIGHTS = 1 << 20
#: Columns whose errors the columns behind them take up at once.
BLOCK = 32


def find_roundings(
    model: ModelProto, feeds: Iterable[Feed], *, threads: int | None = None
) -> dict[str, Rounding]:
    """How to round the weights of ``model``, a float graph, for what ``feeds`` make it read.

    Raises:
        CalibrationError: a sample doesn't fit the graph, or a value isn't finite.
    """
    constants = GraphView(model).values()
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
    return {
        layer.name: reader.round(moments[layer.name])
        for layer, reader in zip(layers, readers, strict=True)
    }


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

    def round(self, moments: NDArray[np.float64]) -> Rounding:
        """The weight's steps whose errors cancel best, on scales that were chosen for that."""
        axis = self.layer.axis
        finest = weight_scales(self.weight, axis)
        safe = widen_scales(finest, self.weight, axis, self.groups) / finest
        needed = np.ceil((safe - 1) * STRETCH - 1e-4).astype(np.int64)
        count = int(np.clip(TRIED_WEIGHTS // self.weight.size, LEAST_TRIED, MOST_TRIED))
        parts = np.arange(count if needed.any() else 1)[:, None]
        stretches = -(-needed * parts // (count - 1))  # (tried, channels), rounded up
        tried = [stretch_scales(finest, one) for one in stretches]
        steps, errors = self._round_on(tried, moments)
        best = errors.argmin(axis=0)
        chosen = np.take_along_axis(stretches, best[None], axis=0)[0]
        nearest = weight_steps(self.weight, stretch_scales(finest, chosen), axis).astype(np.int64)
        rows = [np.moveaxis(steps[t], axis, 0)[c] for c, t in enumerate(best.tolist())]
        added = np.moveaxis(np.stack(rows), 0, axis)
        return Rounding(tuple(chosen.tolist()), pack_steps(added - nearest))

    def _round_on(
        self, tried: Sequence[NDArray[np.float32]], moments: NDArray[np.float64]
    ) -> tuple[list[NDArray[np.int64]], NDArray[np.float64]]:
        """For each of the ``tried`` scales (channels,) the steps in the weight's shape, and the
        error that each channel's output is left with, squared: (tried, channels)."""
        axis = self.layer.axis
        spread = [spread_scales(scales, self.weight, axis) for scales in tried]
        matrices = np.concatenate(
            [self._to_matrices(self.weight.astype(np.float64) / one) for one in spread], axis=1
        )
        pairs: NDArray[np.int64] = np.zeros((0, 2), np.int64)
        if not is_depthwise(self.weight.shape, self.groups):
            pairs = find_pairs(self.weight.shape, axis)
        best = np.stack([_cancel(*one, pairs) for one in zip(matrices, moments, strict=True)])
        left = best - matrices
        errors = ((left @ moments) * left).sum(axis=2)
        split = np.split(errors, len(tried), axis=1)
        squares = np.square(np.stack(tried).astype(np.float64))
        return (
            [self._from_matrices(one) for one in np.split(best, len(tried), axis=1)],
            np.stack([one.reshape(-1) for one in split]) * squares,
        )

    def _to_matrices(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        rows = weight if self.layer.axis == 0 else weight.T
        return rows.reshape(self.groups, len(rows) // self.groups, -1)

    def _from_matrices(self, steps: NDArray[np.int64]) -> NDArray[np.int64]:
        if self.layer.axis == 0:
            return steps.reshape(self.weight.shape)
        return steps.reshape(self.weight.T.shape).T


def _cancel(
    weights: NDArray[np.float64], moments: NDArray[np.float64], pairs: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Weights (R, K) in steps to whole steps, by the inputs' moments (K, K).

    A row that is mostly zeros reads but some of the inputs (its convolution was grouped, say), and
    goes on doing so.

    Args:
        pairs: (pairs, 2) columns that keep the rule of ``mer_calibration.graph.saturation``.
    """
    steps = np.zeros(weights.shape, np.int64)
    sparse = (weights == 0).mean(axis=1) > 0.5
    read = (weights != 0) | ~sparse[:, None]
    patterns, which = np.unique(read, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        columns, rows = np.flatnonzero(pattern), np.flatnonzero(which.reshape(-1) == number)
        if len(columns):
            part = moments[np.ix_(columns, columns)]
            numbers = np.cumsum(pattern) - 1
            kept = numbers[pairs[pattern[pairs].all(axis=1)]]
            steps[np.ix_(rows, columns)] = _cancel_dense(weights[np.ix_(rows, columns)], part, kept)
    return steps


def _cancel_dense(
    weights: NDArray[np.float64], moments: NDArray[np.float64], pairs: NDArray[np.int64]
) -> NDArray[np.int64]:
    """As ``_cancel``, of rows that read all columns."""
    order = np.argsort(-np.diag(moments), kind="stable")
    place_of = np.argsort(order)
    partners: list[list[int]] = [[] for _ in order]  # of each, those that are rounded before it
    for first, second in np.sort(place_of[pairs], axis=1).tolist():
        partners[second].append(first)
    damping = DAMPING * np.diag(moments).mean() + SMALLEST_MOMENT
    sorted_moments = moments[np.ix_(order, order)] + damping * np.eye(len(order))
    spread = np.linalg.cholesky(np.linalg.inv(sorted_moments)).T
    left = np.ascontiguousarray(weights.T[order])  # a row for each input: those come in turn
    steps = np.empty(left.shape)
    for start in range(0, len(order), BLOCK):
        end = min(start + BLOCK, len(order))
        errors = np.empty((end - start, left.shape[1]))
        for k in range(start, end):
            most: Any = MOST_STEPS
            least: Any = -MOST_STEPS
            for partner in partners[k]:
                most = np.minimum(most, LIMIT - steps[partner].clip(min=0))
                least = np.maximum(least, -LIMIT - steps[partner].clip(max=0))
            steps[k] = np.rint(left[k]).clip(least, most)
            errors[k - start] = (left[k] - steps[k]) / spread[k, k]
            left[k + 1 : end] -= spread[k, k + 1 : end, None] * errors[k - start]
        left[end:] -= spread[start:end, end:].T @ errors
    return np.asarray(steps[place_of].T, np.int64)
