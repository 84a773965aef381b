"""From ranges to a quantised graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

from mer_calibration import (
    DIALECTS,
    CalibrationError,
    Quantised,
    Range,
    asymmetric_grid,
    place,
    quantise_graph,
    symmetric_grid,
)
from mer_calibration.graph.quantisation import choose_grids

RANGES = {
    "stem_relu": Range(0, 4, 0, 5, 0.01),
    "left_relu": Range(0, 2, 0, 2, 0),
    "right_relu": Range(-1, 3, -1, 9, 0.001),
    "join_relu": Range(0, 6, 0, 6, 0),
    "mean": Range(-2, 5, -2, 5, 0),
}


def test_grids_cover_their_group(net: ModelProto) -> None:
    placement = place(net)
    grids = choose_grids(placement, RANGES, DIALECTS["x86"])
    assert grids.keys() == RANGES.keys()
    assert grids["left_relu"] == grids["right_relu"] == asymmetric_grid(-1, 3)
    assert grids["mean"] == asymmetric_grid(-2, 5)
    tensorrt = choose_grids(placement, RANGES, DIALECTS["tensorrt"])
    assert tensorrt["left_relu"] == tensorrt["right_relu"]
    exact = symmetric_grid(-3, 3)
    assert tensorrt["right_relu"].scale == pytest.approx(exact.scale, rel=2**-10)
    signed = choose_grids(placement, RANGES, DIALECTS["arm"])["right_relu"]
    values = np.linspace(-2, 4, 99)
    assert np.array_equal(signed.round_trip(values), grids["right_relu"].round_trip(values))


def test_missing_range(net: ModelProto) -> None:
    ranges = {name: found for name, found in RANGES.items() if name != "right_relu"}
    with pytest.raises(CalibrationError, match="'right_relu' has no range: calibrate again"):
        quantise_graph(net, ranges, DIALECTS["x86"])
    # Without the layers around it, it needs none.
    kept = ["right.weight", "left.weight", "join.weight"]
    assert len(quantise_graph(net, ranges, DIALECTS["x86"], kept).placement.layers) == 2


def test_range_that_is_none(net: ModelProto) -> None:
    ranges = {**RANGES, "mean": dataclasses.replace(RANGES["mean"], low=-np.inf)}
    with pytest.raises(CalibrationError, match="not a range to quantise"):
        quantise_graph(net, ranges, DIALECTS["arm"])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_rounded_names_hold_the_layers_outputs(
    net: ModelProto,
    feeds: list[dict[str, NDArray[Any]]],
    quantise: Callable[..., Quantised],
    dialect: str,
) -> None:
    from mer_calibration import compare_tensors

    quantised = quantise(net, feeds, dialect, plain=True)
    before = net.SerializeToString()
    outputs = {layer.output for layer in quantised.placement.layers}
    assert quantised.rounded.keys() <= outputs - {"fc"}
    # Those that a float operation or a layer reads as they are; others are read once joined.
    assert "join_relu" in quantised.rounded
    noise = compare_tensors(net, quantised.model, quantised.rounded, feeds, threads=1)
    # Rounding to 256 steps leaves some 40 dB, four layers of it still over 25.
    assert min(noise.values()) > 25
    assert net.SerializeToString() == before


def test_nothing_quantised(
    net: ModelProto, feeds: list[Any], quantise: Callable[..., Quantised], run_onnx: Any
) -> None:
    every = [layer.name for layer in place(net).layers]
    quantised = quantise(net, feeds, keep_float=every)
    assert quantised.placement.groups == ()
    assert quantised.rounded == {}
    assert np.array_equal(run_onnx(quantised.model, feeds[0]), run_onnx(net, feeds[0]))
