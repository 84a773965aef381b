"""Observing a small convolutional graph, against ONNX's own reference evaluator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from mer_calibration import CalibrationError, Histogram, Probe, Quantised, observe
from mer_calibration.measure.observation import open_session

TENSORS = ("x", "conv", "relu", "pooled", "gate", "y")


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """Convolution, ReLU, max-pooling and a sigmoid gate: (n, 3, 8, 8) to (n, 4, 4, 4)."""
    generator = np.random.default_rng(0)
    constants = [
        numpy_helper.from_array(generator.normal(0, 0.5, (4, 3, 3, 3)).astype(np.float32), "w"),
        numpy_helper.from_array(generator.normal(0, 1, 4).astype(np.float32), "b"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["conv"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"], "relu"),
        helper.make_node(
            "MaxPool", ["relu"], ["pooled"], "pool", kernel_shape=[2, 2], strides=[2, 2]
        ),
        helper.make_node("Sigmoid", ["pooled"], ["gate"], "sigmoid"),
        helper.make_node("Mul", ["pooled", "gate"], ["y"], "mul"),
    ]
    graph = helper.make_graph(
        nodes,
        "gated",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 4, 4])],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return made


@pytest.fixture(scope="module")
def feeds() -> list[dict[str, NDArray[Any]]]:
    generator = np.random.default_rng(1)
    return [
        {"x": generator.normal(0, scale, (n, 3, 8, 8)).astype(np.float32)}
        for n, scale in [(1, 1.0), (3, 5.0), (2, 0.1)]
    ]


def test_histograms_hold_every_value(
    model: onnx.ModelProto, feeds: list[dict[str, NDArray[Any]]]
) -> None:
    histograms = observe(model, feeds, TENSORS, threads=1)
    assert tuple(histograms) == TENSORS
    reference = ReferenceEvaluator(model)
    for name in TENSORS:
        values = np.concatenate(
            [
                feed["x"].ravel() if name == "x" else reference.run([name], feed)[0].ravel()
                for feed in feeds
            ]
        )
        found = histograms[name]
        assert found.count == values.size
        # Two evaluators of one convolution differ in the last bits of float32.
        assert found.low == pytest.approx(values.min(), rel=1e-5)
        assert found.high == pytest.approx(values.max(), rel=1e-5)
        assert found.zeros == (values == 0).sum()
        expected, _ = np.histogram(values[values != 0], found.edges[::64])
        counts = found.counts.reshape(-1, 64).sum(axis=1)
        assert np.abs(np.cumsum(counts - expected)).max() <= 2  # values at a bin's very edge
    assert histograms["relu"].zeros > 0


def test_values_are_those_of_the_graph_itself(
    model: onnx.ModelProto, feeds: list[dict[str, NDArray[Any]]]
) -> None:
    """Tensors that ONNX Runtime would fuse away are read as they are, and change no answer."""
    before = model.SerializeToString()
    read = Probe(model, ["conv", "relu", "y"]).read(feeds[1])
    assert np.array_equal(read["relu"], np.maximum(read["conv"], 0))
    session = onnxruntime.InferenceSession(before, providers=["CPUExecutionProvider"])
    (plain,) = session.run(["y"], feeds[1])
    # That one is fused, its sigmoid another approximation.
    assert np.abs(read["y"] - plain).max() < 1e-5 * np.abs(plain).max()
    assert model.SerializeToString() == before


def test_float_layers_stay_float(
    graph_of: Callable[..., onnx.ModelProto], quantise: Callable[..., Quantised]
) -> None:
    """Between integer layers ONNX Runtime would round them too, with one scale for all channels.

    Those of ``b`` are ten times apart: of its small ones little would be left, and ``c`` reads all.
    """
    generator = np.random.default_rng(0)
    weights = {name: generator.normal(0, 0.1, (32, 32, 1, 1)) for name in "abc"}
    weights["b"][:16] /= 10
    weights["c"][:, :16] *= 10
    bias = {f"{name}.bias": np.zeros(32, np.float32) for name in "abc"}
    nodes = []
    for data, name in (("x", "a"), ("a_relu", "b"), ("b_relu", "c")):
        inputs = [data, name, f"{name}.bias"]
        nodes.append(onnx.helper.make_node("Conv", inputs, [f"{name}_out"], f"node_{name}"))
        nodes.append(onnx.helper.make_node("Relu", [f"{name}_out"], [f"{name}_relu"]))
    shape = [1, 32, 8, 8]
    model = graph_of(
        nodes,
        {**{name: value.astype(np.float32) for name, value in weights.items()}, **bias},
        {"x": (onnx.TensorProto.FLOAT, shape)},
        {"c_relu": shape},
    )
    feed = {"x": generator.normal(0, 1, shape).astype(np.float32)}
    graph = quantise(model, [feed], keep_float=["b"]).model
    plain, optimised = (
        open_session(graph, 1, optimise=optimise).run(None, feed)[0] for optimise in (False, True)
    )
    # A value at a border of the grid may fall to either side.
    step = plain.max() / 255
    assert np.abs(optimised - plain).max() <= 1.01 * step
    assert np.abs(optimised - plain).mean() < 0.05 * step


def test_repeated_names_are_counted_once(
    model: onnx.ModelProto, feeds: list[dict[str, NDArray[Any]]]
) -> None:
    histograms = observe(model, feeds, ["relu", "relu", "x", "x"])
    assert {name: h.count for name, h in histograms.items()} == {
        "relu": 6 * 4 * 64,
        "x": 6 * 3 * 64,
    }


def test_progress_and_laziness(
    model: onnx.ModelProto, feeds: list[dict[str, NDArray[Any]]]
) -> None:
    """Each sample is done with before the next is asked for."""
    events: list[str] = []

    def give() -> Iterator[dict[str, NDArray[Any]]]:
        for i, feed in enumerate(feeds):
            events.append(f"given {i}")
            yield feed

    observe(model, give(), ["relu"], progress=lambda done: events.append(f"done {done}"))
    assert events == ["given 0", "done 1", "given 1", "done 2", "given 2", "done 3"]


@pytest.mark.parametrize("name", ["nowhere", "w", ""])
def test_unknown_tensor_is_named(
    name: str, model: onnx.ModelProto, feeds: list[dict[str, NDArray[Any]]]
) -> None:
    with pytest.raises(CalibrationError, match=f"no activation '{name}'"):
        observe(model, feeds, ["relu", name])


def test_no_samples(model: onnx.ModelProto) -> None:
    with pytest.raises(CalibrationError, match="set is empty"):
        observe(model, [], ["relu"])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_value_names_tensor_and_sample(
    bad: float, model: onnx.ModelProto, feeds: list[dict[str, NDArray[Any]]]
) -> None:
    spoilt = feeds[1]["x"].copy()
    spoilt[0, 1, 2, 3] = bad
    with pytest.raises(CalibrationError, match="sample 2, tensor 'conv': a value is not finite"):
        observe(model, [feeds[0], {"x": spoilt}], ["conv", "relu"])


@pytest.mark.parametrize(
    "feed", [{"x": np.zeros((1, 5, 8, 8), np.float32)}, {"z": np.zeros(3, np.float32)}, {}]
)
def test_misfit_sample_is_numbered(
    feed: dict[str, NDArray[Any]], model: onnx.ModelProto, feeds: list[dict[str, NDArray[Any]]]
) -> None:
    for tensors in (["relu"], ["x", "relu"]):
        with pytest.raises(CalibrationError, match="can't be run on sample 2"):
            observe(model, [feeds[0], feed], tensors)


def test_bad_graph_is_refused() -> None:
    nodes = [helper.make_node("NoSuchOperation", ["x"], ["y"])]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("x", "y")]
    model = helper.make_model(helper.make_graph(nodes, "bad", infos[:1], infos[1:]))
    with pytest.raises(CalibrationError, match="can't load the graph"):
        Probe(model, ["y"])


def test_histograms_are_fresh(model: onnx.ModelProto, feeds: list[dict[str, NDArray[Any]]]) -> None:
    first, second = (observe(model, feeds, ["y"])["y"] for _ in range(2))
    assert isinstance(first, Histogram)
    assert np.array_equal(first.counts, second.counts)
    assert first.count == second.count
