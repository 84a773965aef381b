"""The report per layer: what quantisation does to each activation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from mer_calibration.errors import CalibrationError
from mer_calibration.graph.dialects import Dialect
from mer_calibration.graph.grid import Range
from mer_calibration.graph.quantisation import quantise_graph
from mer_calibration.graph.weights import RoundedWeights
from mer_calibration.measure.noise import decibels
from mer_calibration.measure.observation import Feed, Probe

HEADINGS = ("SQNR dB", "clipped %", "low", "high", "graph", "op", "layer")
#: Columns from this one on are words: aligned on the left.
FIRST_WORD = HEADINGS.index("graph")


@dataclass(frozen=True)
class Layer:
    """One quantised layer.

    Attributes:
        graph: ``encoder`` or ``head``.
        name, op_type: its node.
        tensor: the node's output.
        low, high: the range its grid covers.
        clipped: share, 0 to 1, of calibration values outside.
        sqnr: signal to quantisation noise of its output in dB: quantised graph against float
            graph on the same inputs, so that noise of earlier layers is in it.
    """

    graph: str
    name: str
    op_type: str
    tensor: str
    low: float
    high: float
    clipped: float
    sqnr: float


def measure_layers(
    graph: str,
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    dialect: Dialect,
    weights: RoundedWeights,
    feeds: Iterable[Feed],
) -> list[Layer]:
    """Describe each quantised layer of the graph called ``graph``.

    Args:
        model: the float graph that the ranges belong to.
        feeds: the samples on which both graphs are compared.

    Raises:
        CalibrationError: as ``compare_tensors``.
    """
    # Every layer's output rounded, and there dequantised.
    plain = dataclasses.replace(
        dialect,
        integer_moves=False,
        float_outputs=False,
        float_products=False,
        channel_scales=False,
    )
    quantised = quantise_graph(model, ranges, plain, (), (), weights, fold=False)
    noise = compare_tensors(model, quantised.model, quantised.rounded, feeds)
    return [
        Layer(
            graph=graph,
            name=layer.name,
            op_type=layer.op_type,
            tensor=layer.output,
            low=ranges[layer.output].low,
            high=ranges[layer.output].high,
            clipped=ranges[layer.output].clipped,
            sqnr=noise[layer.output],
        )
        for layer in quantised.placement.layers
        if layer.output in noise
    ]


def compare_tensors(
    float_model: onnx.ModelProto,
    quantised_model: onnx.ModelProto,
    pairs: Mapping[str, str],
    feeds: Iterable[Feed],
    *,
    threads: int | None = None,
) -> dict[str, float]:
    """SQNR in dB of tensors of the float graph: 10 log10(sum x² / sum (x - y)²) over all samples.

    Args:
        float_model, quantised_model: graphs with the same inputs.
        pairs: tensor x of the float graph to tensor y of the quantised one, dequantised.
        feeds: the samples: each gives the graphs' inputs by name.
        threads: of ONNX Runtime; its own choice where None.

    Returns:
        By the float graph's name; inf where there is no noise, -inf where there is nothing else.

    Raises:
        CalibrationError: there is no sample, a name is no activation of its graph, a pair
            differs in shape, or a value isn't finite.
    """
    wanted = Probe(float_model, list(pairs), threads=threads)
    given = Probe(quantised_model, list(pairs.values()), threads=threads)
    signal, noise = dict.fromkeys(pairs, 0.0), dict.fromkeys(pairs, 0.0)
    number = 0
    for number, feed in enumerate(feeds, start=1):
        expected, answers = wanted.read(feed), given.read(feed)
        for name, other in pairs.items():
            x, y = expected[name].astype(np.float64), answers[other].astype(np.float64)
            where = f"sample {number}: '{name}' of the float graph and '{other}' of the quantised"
            if x.shape != y.shape:
                raise CalibrationError(f"{where} differ in shape: {x.shape} and {y.shape}")
            with np.errstate(invalid="ignore"):  # found out below
                difference = x - y
            signal[name] += float(np.vdot(x, x))
            noise[name] += float(np.vdot(difference, difference))
            if not math.isfinite(noise[name]):
                raise CalibrationError(f"{where} are not both finite")
    if not number:
        raise CalibrationError("there is no sample to compare on: give at least one")
    return {name: decibels(signal[name], noise[name]) for name in pairs}


def format_layers(layers: Sequence[Layer]) -> str:
    """An aligned table, one line a layer, the noisiest first."""
    rows = [
        (
            f"{layer.sqnr:.1f}",
            f"{100 * layer.clipped:.3f}",
            f"{layer.low:.4g}",
            f"{layer.high:.4g}",
            layer.graph,
            layer.op_type,
            layer.name,
        )
        for layer in _sorted(layers)
    ]
    widths = [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i >= FIRST_WORD else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (HEADINGS, *rows)
    ]
    return "\n".join(lines)


def layers_to_dicts(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """JSON-ready data in the table's order; an infinite ``sqnr`` is None."""
    rows = [dataclasses.asdict(layer) for layer in _sorted(layers)]
    for row in rows:
        row["sqnr"] = row["sqnr"] if math.isfinite(row["sqnr"]) else None
    return rows


def _sorted(layers: Sequence[Layer]) -> list[Layer]:
    return sorted(layers, key=lambda layer: layer.sqnr)
