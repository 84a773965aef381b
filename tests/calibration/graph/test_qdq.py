"""Graphs with Q/DQ pairs: where they stand, and what becomes of odd weights, biases and ranges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from mer_calibration import DIALECTS, Quantised

Run = Callable[..., NDArray[np.float32]]
Quantise = Callable[..., Quantised]
LAYERS = ("Conv", "Gemm", "MatMul")


def producers_of(model: ModelProto) -> dict[str, Any]:
    return {name: node for node in model.graph.node for name in node.output}


def constants_of(model: ModelProto) -> dict[str, NDArray[Any]]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def as_kept(bias: NDArray[np.float32], dialect: str) -> NDArray[np.float32]:
    """A float bias as a dialect has it: rounded to float16 where the rest is that."""
    kept = bias.astype(np.float16) if DIALECTS[dialect].half_constants else bias  # type: ignore[index]
    return kept.astype(np.float32)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_pairs_stand_at_layers_only(
    net: ModelProto, feeds: list[Any], quantise: Quantise, dialect: str
) -> None:
    model = quantise(net, feeds, dialect, plain=True).model
    made = producers_of(model)
    rounded = [n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert sorted(rounded) == sorted(
        [
            *(["pixels"] if dialect != "x86" else []),  # there they are integers already
            *["stem_relu", "left_relu", "right_relu", "join_relu", "mean"],
        ]
    )
    constants = constants_of(model)
    for node in model.graph.node:
        if node.op_type in LAYERS and node.name not in ("node_gate", "node_mix"):
            sources = [made[name].op_type for name in node.input[:2]]
            moved = not DIALECTS[dialect].integer_moves and node.name in (
                "node_stem",
                "node_left",
                "node_right",
            )
            assert sources[1] == "DequantizeLinear"
            assert sources[0] == "DequantizeLinear" or moved or node.name == "node_join"
            bias = node.input[2]
            assert (
                bias in constants
                if not DIALECTS[dialect].integer_bias
                else made[bias].input[0] in constants
            )
    # Layers that are kept float have float weights.
    assert constants["gate.weight"].dtype == constants["mix.weight"].dtype == np.float32
    assert next(n for n in model.graph.node if n.name == "node_gate").input[1] == "gate.weight"


@pytest.mark.parametrize("dialect", ["x86", "arm"])
def test_data_moves_as_integers(
    net: ModelProto, feeds: list[Any], quantise: Quantise, dialect: str
) -> None:
    model = quantise(net, feeds, dialect).model
    made = producers_of(model)
    for node in model.graph.node:
        if node.op_type in ("Transpose", "MaxPool", "Split", "Concat"):
            inputs = node.input if node.op_type == "Concat" else node.input[:1]
            for name in inputs:
                below = made.get(name)
                assert name == "faces" or name.endswith("_q"), name
                assert below is None or below.op_type != "DequantizeLinear"


def test_portable_data_moves_between_pairs(
    net: ModelProto, feeds: list[Any], quantise: Quantise
) -> None:
    """One pair where a value is computed, none where it is moved."""
    model = quantise(net, feeds, "tensorrt").model
    made = producers_of(model)
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            assert made[node.input[0]].op_type not in ("Transpose", "MaxPool", "Split", "Concat")
        if node.op_type in ("MaxPool", "Concat"):
            assert {made[name].op_type for name in node.input} == {"DequantizeLinear"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_groups_share_one_grid(
    net: ModelProto, feeds: list[Any], quantise: Quantise, dialect: str
) -> None:
    quantised = quantise(net, feeds, dialect, plain=True)
    nodes = {n.name: n for n in quantised.model.graph.node}
    constants = constants_of(quantised.model)
    left, right, other = (
        [float(constants[grid]) for grid in nodes[f"{name}_quantize"].input[1:]]
        for name in ("left_relu", "right_relu", "join_relu")
    )
    assert left == right != other
    # It covers the larger of both: nothing was cut off.
    scale, zero_point = left
    highest = 255 if dialect in ("x86", "openvino") else 127
    tensors = [ReferenceEvaluator(net).run(["left_relu", "right_relu"], feed) for feed in feeds]
    values = np.concatenate([np.ravel(tensor) for pair in tensors for tensor in pair])
    assert values.max() <= (highest - zero_point + 0.5) * scale


@pytest.mark.parametrize("dialect", DIALECTS)
def test_answers_stay_near_the_float_graph(
    net: ModelProto, feeds: list[Any], quantise: Quantise, run_onnx: Run, dialect: str
) -> None:
    model = quantise(net, feeds, dialect).model
    for feed in feeds:
        expected, found = run_onnx(net, feed), run_onnx(model, feed)
        # 8 bits: noise of a few thousandths of the signal at each of 5 layers.
        assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_dead_channels_keep_their_bias(
    net: ModelProto, feeds: list[Any], quantise: Quantise, dialect: str
) -> None:
    """A weight of zeros has no scale of its own, yet the bias beside it is kept in its steps."""
    quantised = quantise(net, feeds, dialect, plain=True)
    constants = constants_of(quantised.model)
    wanted = constants_of(net)["join.bias"]
    if not DIALECTS[dialect].integer_bias:
        assert np.array_equal(constants["join.bias"], as_kept(wanted, dialect))
        return
    found = constants["join.bias_q"] * constants["join.bias_scale"].astype(np.float64)
    # Half a step each; steps are input scale times weight scale.
    assert (np.abs(found - wanted) <= constants["join.bias_scale"] / 2 + 1e-9).all()
    assert (constants["join.bias_scale"] < 1e-2 * np.abs(wanted).max()).all()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_huge_bias_of_a_faint_channel(
    graph_of: Callable[..., ModelProto], quantise: Quantise, run_onnx: Run, dialect: str
) -> None:
    """In the steps of its weights the bias would leave int32."""
    generator = np.random.default_rng(0)
    weight = generator.normal(0, 1, (16, 16)).astype(np.float32)
    weight[5] *= 1e-9
    bias = np.full(16, 3.0, np.float32)
    model = graph_of(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], "fc", transB=1)],
        {"w": weight, "b": bias},
        {"x": (TensorProto.FLOAT, ["n", 16])},
        {"y": ["n", 16]},
    )
    feed = {"x": generator.normal(0, 0.01, (8, 16)).astype(np.float32)}
    quantised = quantise(model, [feed], dialect).model
    for optimised in (True, False):
        found = run_onnx(quantised, feed, optimised=optimised)
        # Beside its bias the channel gives 1e-11; float32 holds 3 to 2e-7.
        assert np.abs(found[:, 5] - 3).max() < 1e-6
        assert np.abs(found - run_onnx(model, feed)).max() < 2e-3


@pytest.mark.parametrize("dialect", DIALECTS)
def test_degenerate_ranges(
    graph_of: Callable[..., ModelProto], quantise: Quantise, run_onnx: Run, dialect: str
) -> None:
    """A tensor of zeros, one that is constant, and neighbours of which one is 1000 times larger."""
    generator = np.random.default_rng(1)
    weight = generator.normal(0, 0.3, (16, 16, 1, 1)).astype(np.float32)
    head = generator.normal(0, 0.1, (16, 64, 1, 1)).astype(np.float32)
    head[:, 32:48] /= 1000  # what reads the loud one
    nodes = [
        helper.make_node("Conv", ["x", "w", "never"], ["a"], "a"),
        helper.make_node("Relu", ["a"], ["nothing"], "nothing"),
        helper.make_node("Conv", ["x", "zero", "always"], ["constant"], "b"),
        helper.make_node("Conv", ["x", "loud_w"], ["loud"], "c"),
        helper.make_node("Conv", ["x", "w"], ["quiet"], "d"),
        helper.make_node("Concat", ["nothing", "constant", "loud", "quiet"], ["all"], "e", axis=1),
        helper.make_node("Conv", ["all", "head"], ["y"], "f"),
    ]
    model = graph_of(
        nodes,
        {
            "w": weight,
            "never": np.full(16, -100, np.float32),
            "zero": np.zeros_like(weight),
            "always": np.full(16, 2, np.float32),
            "loud_w": 1000 * weight,
            "head": head,
        },
        {"x": (TensorProto.FLOAT, ["n", 16, 3, 3])},
        {"y": ["n", 16, 3, 3]},
    )
    feed = {"x": generator.normal(0, 1, (4, 16, 3, 3)).astype(np.float32)}
    quantised = quantise(model, [feed], dialect).model
    evaluator = ReferenceEvaluator(model)
    loud, wanted = evaluator.run(["loud", "y"], feed)
    found = run_onnx(quantised, feed, optimised=False)
    assert np.isfinite(found).all()
    # All four share the loud one's grid: half of its step (int8's is twice as wide, and its
    # scale in float16 no wider than 2^-11 more), through each weight of the head.
    step = 2 * np.abs(loud).max() / 254 if dialect == "tensorrt" else np.ptp(loud) / 255
    bound = 0.51 * step * np.abs(head).sum(axis=(1, 2, 3)).max() + 0.02 * np.abs(wanted).max()
    assert np.abs(found - wanted).max() <= bound


def test_a_layer_of_nothing(
    graph_of: Callable[..., ModelProto], quantise: Quantise, run_onnx: Run
) -> None:
    """Inputs and weights that were always zero: the biases come through, exactly as far as kept."""
    bias = np.linspace(-1, 1, 16).astype(np.float32)
    model = graph_of(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["a"], "a"),
            helper.make_node("Conv", ["a", "w", "b"], ["y"], "y"),
        ],
        {"w": np.zeros((16, 16, 1, 1), np.float32), "b": bias},
        {"x": (TensorProto.FLOAT, [1, 16, 2, 2])},
        {"y": [1, 16, 2, 2]},
    )
    feed = {"x": np.zeros((1, 16, 2, 2), np.float32)}
    for dialect in DIALECTS:
        quantised = quantise(model, [feed], dialect).model
        for optimised in (True, False):
            found = run_onnx(quantised, feed, optimised=optimised)
            # Steps of the bias: 1 / 127 times that of the input, at most 1 / 127.
            wanted = as_kept(bias, dialect)[:, None, None]
            assert np.abs(found - wanted).max() <= 0.5 / 127**2 + 1e-6


def test_equal_constants_that_are_stored_once(
    graph_of: Callable[..., ModelProto], quantise: Quantise, run_onnx: Run
) -> None:
    """Two layers with one weight and bias have inputs on grids of their own."""
    generator = np.random.default_rng(2)
    model = graph_of(
        [
            helper.make_node("Gemm", ["x", "w", "b"], ["a"], "first"),
            helper.make_node("Gemm", ["a", "w", "b"], ["y"], "second"),
        ],
        {
            "w": generator.normal(0, 1, (16, 16)).astype(np.float32),
            "b": generator.normal(0, 1, 16).astype(np.float32),
        },
        {"x": (TensorProto.FLOAT, [8, 16])},
        {"y": [8, 16]},
    )
    feed = {"x": generator.normal(0, 1, (8, 16)).astype(np.float32)}
    wanted = run_onnx(model, feed)
    for dialect in DIALECTS:
        found = run_onnx(quantise(model, [feed], dialect).model, feed)
        # Noise of 16 products with 8 bits each, twice.
        assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_output_that_is_moved(
    graph_of: Callable[..., ModelProto], quantise: Quantise, run_onnx: Run, dialect: str
) -> None:
    """Integers that reach the graph's end are given back as floats, under the output's name."""
    generator = np.random.default_rng(3)
    model = graph_of(
        [
            helper.make_node("Conv", ["x", "w"], ["a"], "a"),
            helper.make_node("Flatten", ["a"], ["y"], "flat"),
        ],
        {"w": generator.normal(0, 1, (16, 16, 1, 1)).astype(np.float32)},
        {"x": (TensorProto.FLOAT, [2, 16, 3, 3])},
        {"y": [2, 144]},
    )
    feed = {"x": generator.normal(0, 1, (2, 16, 3, 3)).astype(np.float32)}
    quantised = quantise(model, [feed], dialect, plain=True).model
    wanted, found = run_onnx(model, feed), run_onnx(quantised, feed)
    assert np.abs(found - wanted).max() < 0.03 * np.abs(wanted).max()
    assert len(np.unique(found)) <= 256
