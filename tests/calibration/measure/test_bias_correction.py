"""The mean error of an output, measured and taken back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, checker, numpy_helper

from mer_calibration import DIALECTS, CalibrationError, Quantised, check_dialect
from mer_calibration.graph.dialects import DialectName
from mer_calibration.measure.bias_correction import DIGITS, correct_bias, measure_bias
from mer_calibration.measure.observation import open_session

Run = Callable[..., NDArray[np.float32]]


@pytest.mark.parametrize("dialect", list(DIALECTS))
def test_mean_error_vanishes(
    net: ModelProto,
    feeds: Any,
    quantise: Callable[..., Quantised],
    dialect: DialectName,
) -> None:
    quantised = quantise(net, feeds, dialect).model
    correction = measure_bias(net, quantised, feeds, threads=1)
    corrected = correct_bias(quantised, correction)
    checker.check_model(corrected, full_check=True)
    check_dialect(corrected, DIALECTS[dialect])

    def run(model: ModelProto) -> NDArray[np.float64]:
        session = open_session(model, 1)  # other optimisations would round otherwise
        return np.concatenate([session.run(None, feed)[0] for feed in feeds]).astype(np.float64)

    def mean_error(model: ModelProto) -> NDArray[np.float64]:
        return np.asarray((run(model) - run(net)).mean(axis=0))

    # The correction is rounded; outputs near 1 are sums in float32.
    assert np.abs(mean_error(corrected)).max() < 10.0**-DIGITS + 1e-6
    assert np.abs(mean_error(quantised)).max() > 1e-3


def test_samples_weigh_by_their_rows(net: ModelProto, feeds: Any, quantise: Any) -> None:
    quantised = quantise(net, feeds).model
    (pictures,) = feeds[0].values()
    alone = [{"faces": pictures[:1]}, {"faces": pictures[1:]}]
    assert measure_bias(net, quantised, alone, threads=1) == pytest.approx(
        measure_bias(net, quantised, feeds[:1], threads=1), abs=2 * 10.0**-DIGITS
    )


def test_graph_itself_is_left_alone(net: ModelProto) -> None:
    before = net.SerializeToString()
    correct_bias(net, [1.0] * 16)
    assert net.SerializeToString() == before


def test_output_that_is_read_inside_too(graph_of: Any, run_onnx: Run) -> None:
    """What reads it inside the graph still gets the value that it was made for."""
    from onnx import TensorProto, helper

    graph = graph_of(
        [
            helper.make_node("Relu", ["x"], ["y"], "relu"),
            helper.make_node("Neg", ["y"], ["unused"], "negative"),
        ],
        {},
        {"x": (TensorProto.FLOAT, [2, 3])},
        {"y": [2, 3]},
    )
    corrected = correct_bias(graph, (0.5, -1.0, 0.0))
    feed = {"x": np.array([[1, 2, 3], [-1, -2, 0]], np.float32)}
    np.testing.assert_array_equal(run_onnx(corrected, feed), [[1.5, 1, 3], [0.5, -1, 0]])
    assert [node.input[0] for node in corrected.graph.node] == [
        "x",
        "y_uncorrected",
        "y_uncorrected",
    ]


class TestRefused:
    def test_no_samples(self, net: ModelProto) -> None:
        with pytest.raises(CalibrationError, match="calibration set is empty"):
            measure_bias(net, net, [])

    def test_sample_that_does_not_fit(self, net: ModelProto) -> None:
        with pytest.raises(CalibrationError, match="can't be run on a sample"):
            measure_bias(net, net, [{"faces": np.zeros((1, 4, 4, 1), np.uint8)}])

    def test_output_that_is_not_finite(self, net: ModelProto, feeds: Any) -> None:
        broken = ModelProto()
        broken.CopyFrom(net)
        (bias,) = (t for t in broken.graph.initializer if t.name == "fc.bias")
        bias.CopyFrom(numpy_helper.from_array(np.full(16, np.nan, np.float32), bias.name))
        with pytest.raises(CalibrationError, match="not finite"):
            measure_bias(broken, net, feeds)
