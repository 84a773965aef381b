"""Which method suits which tensor, and which layers cost the answer most: both are measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from mer_calibration.centring import find_centred
from mer_calibration.dialects import Dialect
from mer_calibration.histogram import Histogram
from mer_calibration.observers import find_range
from mer_calibration.placement import Group, find_layers, place
from mer_calibration.quantisation import quantise_graph
from mer_calibration.ranges import METHODS, Method, Range
from mer_calibration.trial import Shown, Trial

#: How many of the groups that cost most get a method of their own, where that helps ...
REFINED_GROUPS = 6
#: ... by at least this share of the error; less is chance.
LEAST_GAIN = 0.02
#: ``wide`` is taken unless another method's error is less than so much of its own. A model is
#: surer on clips that it was trained on than on any others, so that cutting values off looks
#: cheaper there than it is: on validation actors ``wide`` was better where trials said otherwise.
PREFERENCE = 0.7

GraphRanges = dict[str, dict[str, Range]]


@dataclass(frozen=True)
class LayerKey:
    """A layer of one of the graphs (``encoder`` or ``head``)."""

    graph: str
    layer: str


@dataclass(frozen=True)
class Share:
    """A layer's part in the logits' error, percent: of all windows, and of those that show
    both modalities, the voice alone or the face alone, where there are such."""

    total: float
    by_shown: Mapping[Shown, float]


def apply_method(
    graphs: Mapping[str, ModelProto],
    histograms: Mapping[str, Mapping[str, Histogram]],
    method: Method,
    dialect: Dialect,
) -> GraphRanges:
    """The range of every tensor by one method, on the grids of ``dialect``.

    Args:
        graphs: float graphs, by name.
        histograms: by graph and tensor.
    """
    return {
        name: _find_graph_ranges(model, histograms[name], method, dialect)
        for name, model in graphs.items()
    }


def choose_ranges(
    trial: Trial,
    histograms: Mapping[str, Mapping[str, Histogram]],
    dialect: Dialect,
    *,
    step: Callable[[], None] = lambda: None,
) -> GraphRanges:
    """The method whose ranges answer most like the float graphs; another one for single groups.

    See ``PREFERENCE`` for where two are close.

    Args:
        histograms: by graph and tensor, of all sources of the graphs' placements.
        step: called after each of the ``count_choices()`` trials.
    """
    graphs = _graphs(trial)
    candidates = {m: apply_method(graphs, histograms, m, dialect) for m in METHODS}
    errors: dict[Method, float] = {}
    for method, ranges in candidates.items():
        errors[method] = _error(trial, ranges, dialect)
        step()
    best = min(METHODS, key=errors.__getitem__)
    if errors[best] > PREFERENCE * errors["wide"]:
        best = "wide"
    chosen, error = candidates[best], errors[best]
    for graph, group in _largest_groups(trial, chosen, dialect):
        for method in METHODS:
            if method == best:
                continue
            changed = {name: dict(ranges) for name, ranges in chosen.items()}
            changed[graph].update({s: candidates[method][graph][s] for s in group.sources})
            found = _error(trial, changed, dialect)
            step()
            if found < (1 - LEAST_GAIN) * error:
                chosen, error = changed, found
    return chosen


def count_choices() -> int:
    """How many trials ``choose_ranges`` makes at most."""
    return len(METHODS) + REFINED_GROUPS * (len(METHODS) - 1)


def measure_sensitivity(
    trial: Trial,
    ranges: Mapping[str, Mapping[str, Range]],
    dialect: Dialect,
    *,
    step: Callable[[], None] = lambda: None,
) -> dict[LayerKey, Share]:
    """Each layer's share of the logits' error, most of the total first.

    Measured with that layer alone on integers, its weights, inputs and output; all others compute
    as the float graphs do.

    Args:
        step: called after each layer.
    """
    errors: dict[LayerKey, NDArray[np.float64]] = {}
    floats = {"encoder": trial.encoder, "head": trial.head}
    for graph, rounded in _graphs(trial).items():
        names = {layer.name for layer in find_layers(rounded)}
        for layer in place(rounded).layers:
            model = _take_weight(floats[graph], rounded, layer.weight)
            others = names - {layer.name}
            alone = quantise_graph(model, ranges[graph], dialect, others, trial.pixel_means).model
            errors[LayerKey(graph, layer.name)] = trial.errors(
                *(alone if name == graph else None for name in ("encoder", "head"))
            )
            step()
    shown = np.array([window.shown for window in trial.windows])
    total = _in_percent(errors)
    parts = {
        kind: _in_percent({key: one[shown == kind] for key, one in errors.items()})
        for kind in dict.fromkeys(window.shown for window in trial.windows)
    }
    return {
        key: Share(total[key], {kind: part[key] for kind, part in parts.items()})
        for key in sorted(total, key=lambda key: -total[key])
    }


def _take_weight(model: ModelProto, other: ModelProto, name: str) -> ModelProto:
    """``model`` with one constant as ``other`` has it."""
    changed = ModelProto()
    changed.CopyFrom(model)
    (mine,) = (tensor for tensor in changed.graph.initializer if tensor.name == name)
    (taken,) = (tensor for tensor in other.graph.initializer if tensor.name == name)
    mine.CopyFrom(taken)
    return changed


def _in_percent(errors: Mapping[LayerKey, NDArray[np.float64]]) -> dict[LayerKey, float]:
    means = {key: float(one.mean()) for key, one in errors.items()}
    total = sum(means.values()) or 1.0
    return {key: 100 * mean / total for key, mean in means.items()}


def _graphs(trial: Trial) -> dict[str, ModelProto]:
    encoder, head = trial.rounded
    return {"encoder": encoder, "head": head}


def _find_graph_ranges(
    model: ModelProto, histograms: Mapping[str, Histogram], method: Method, dialect: Dialect
) -> dict[str, Range]:
    """On the grid that ``dialect`` has for each tensor, as far as anything was seen."""
    centred: Collection[str] = ()
    if dialect.centred:
        centred = find_centred(model, place(model, float_outputs=dialect.float_outputs))
    found = {}
    for tensor, histogram in histograms.items():
        symmetric = dialect.symmetric and tensor not in centred
        one = find_range(histogram, method, symmetric=symmetric)
        found[tensor] = dataclasses.replace(
            one,
            low=max(one.low, min(histogram.low, 0.0)) + 0.0,  # never -0.0
            high=min(one.high, max(histogram.high, 0.0)),
        )
    return found


def _error(trial: Trial, ranges: GraphRanges, dialect: Dialect) -> float:
    pair = (
        quantise_graph(model, ranges[graph], dialect, (), trial.pixel_means).model
        for graph, model in _graphs(trial).items()
    )
    return trial.error(*pair)


def _largest_groups(trial: Trial, ranges: GraphRanges, dialect: Dialect) -> list[tuple[str, Group]]:
    """Groups whose choice matters most: those that cut most off, relative to what was seen."""
    scored = []
    for graph, model in _graphs(trial).items():
        for group in place(model, float_outputs=dialect.float_outputs).groups:
            if group.pixels:
                continue
            found = [ranges[graph][source] for source in group.sources]
            seen = max(max(one.seen_high, -one.seen_low) for one in found)
            kept = max(max(one.high, -one.low) for one in found)
            scored.append((kept / seen if seen else 1.0, graph, group))
    scored.sort(key=lambda entry: entry[0])
    return [(graph, group) for _, graph, group in scored[:REFINED_GROUPS]]
