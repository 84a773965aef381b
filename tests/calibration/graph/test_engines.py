"""What ONNX Runtime, OpenVINO and TensorRT-RTX make of graphs in each dialect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from mer_calibration import DIALECTS, Quantised

Run = Callable[..., NDArray[np.float32]]
Quantise = Callable[..., Quantised]


def last_step(model: ModelProto) -> float:
    """The step between values that the last layer reads."""
    (scale,) = (t for t in model.graph.initializer if t.name == "mean_scale")
    return float(numpy_helper.to_array(scale))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_optimised_or_not(
    net: ModelProto, feeds: list[Any], quantise: Quantise, run_onnx: Run, dialect: str
) -> None:
    """The kernels for integers compute what Q and DQ mean: float32 sums round differently."""
    quantised = quantise(net, feeds, dialect)
    model = quantised.model
    step = last_step(model)
    for feed in feeds:
        fused = run_onnx(model, feed, int8=True)
        plain = run_onnx(model, feed, optimised=False)
        # A value on the border between two points may fall either way: one step in some means,
        # seen through weights of about 0.3.
        assert np.abs(fused - plain).max() <= 2 * step


@pytest.mark.parametrize("dialect", ["x86", "arm"])
def test_forms_integer_convolutions(
    net: ModelProto,
    feeds: list[Any],
    quantise: Quantise,
    run_onnx: Run,
    count_nodes: Callable[[Path], Counter[str]],
    tmp_path: Path,
    dialect: str,
) -> None:
    """All four, ReLUs within; only the two narrow ones stay float."""
    model = quantise(net, feeds, dialect).model
    run_onnx(model, feeds[0], int8=True, save=tmp_path / "optimised.onnx")
    found = count_nodes(tmp_path / "optimised.onnx")
    assert found["QLinearConv"] == 4
    assert found["Relu"] == 0
    assert found["Conv"] + found["FusedConv"] == 2
    assert found["QGemm"] == 1


@pytest.mark.parametrize("dialect", ["openvino", "x86"])
def test_same_graph_in_openvino(
    net: ModelProto,
    feeds: list[Any],
    quantise: Quantise,
    run_onnx: Run,
    run_openvino: Run,
    dialect: str,
) -> None:
    """On every processor. Graphs with int8 activations are not for it: with AVX2 alone it rounds
    those otherwise than they say."""
    model = quantise(net, feeds, dialect).model
    step = last_step(model)
    for feed in feeds:
        difference = np.abs(run_onnx(model, feed) - run_openvino(model, feed))
        assert difference.max() <= 2 * step  # as in test_optimised_or_not


def parse(trt: Any, model: ModelProto) -> tuple[bool, Counter[str]]:
    """Whether TensorRT-RTX reads a graph, and its layers."""
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    accepted = parser.parse(model.SerializeToString())
    layers = Counter(str(network.get_layer(i).type) for i in range(network.num_layers))
    return accepted, layers


def test_tensorrt_reads_the_portable_graph_only(
    net: ModelProto, feeds: list[Any], quantise: Quantise
) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    accepted, layers = parse(trt, quantise(net, feeds, "tensorrt").model)
    assert accepted
    assert layers["LayerType.QUANTIZE"] == 6  # the sources
    assert layers["LayerType.CONVOLUTION"] == 6
    for dialect in ("x86", "arm"):
        assert not parse(trt, quantise(net, feeds, dialect).model)[0]


def measure(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Root mean square of the difference."""
    return float(np.sqrt(np.square(a - b).mean()))


@pytest.mark.parametrize("dialect", ["x86", "arm"])
def test_real_encoder_runs_on_integers(
    encoder: ModelProto,
    crops: dict[str, Any],
    quantised_encoder: Callable[[str], Quantised],
    run_onnx: Run,
    count_nodes: Callable[[Path], Counter[str]],
    tmp_path: Path,
    dialect: str,
) -> None:
    quantised = quantised_encoder(dialect)
    path = tmp_path / "optimised.onnx"
    fused = run_onnx(quantised.model, crops, int8=True, save=path)
    found = count_nodes(path)
    assert found["QLinearConv"] == len(quantised.placement.layers) == 68
    assert found["Conv"] + found["FusedConv"] == 0
    assert found["Relu"] == 0
    expected = run_onnx(encoder, crops)
    plain = run_onnx(quantised.model, crops, optimised=False)
    # Random weights: 8 bits through 64 layers cost a fifth of the spread. Values on a border
    # between two points fall either way, so that two ways to compute differ by half as much.
    cost = measure(plain, expected)
    assert cost < 0.25 * expected.std()
    assert measure(fused, expected) == pytest.approx(cost, rel=0.1)
    assert measure(fused, plain) < 0.7 * cost


def test_real_encoder_in_tensorrt(quantised_encoder: Callable[[str], Quantised]) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    assert parse(trt, quantised_encoder("tensorrt").model)[0]
    assert not parse(trt, quantised_encoder("x86").model)[0]
