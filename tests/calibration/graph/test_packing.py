"""Packed graphs hold the same constants and run as the same kernels."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mer_calibration import (
    DIALECTS,
    Quantised,
    check_dialect,
    find_stored_weights,
    pack_constants,
    shorten_names,
)
from mer_calibration.graph.placement import WEIGHTED

Run = Callable[..., NDArray[np.float32]]
Graphs = Callable[..., ModelProto]


def operations(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def give_weight(graph_of: Graphs, weight: NDArray[np.int8]) -> ModelProto:
    """A graph whose answer is the dequantised weight itself."""
    return graph_of(
        [
            helper.make_node("DequantizeLinear", ["w", "scale"], ["dequantised"], "dq", axis=0),
            helper.make_node("Mul", ["dequantised", "one"], ["y"], "mul"),
        ],
        {"w": weight, "scale": np.ones(len(weight), np.float32)},
        {"one": (TensorProto.FLOAT, [])},
        {"y": list(weight.shape)},
    )


def round_weights_to_half(model: ModelProto) -> ModelProto:
    """The graph as it is after the one lossy step of packing."""
    rounded = ModelProto()
    rounded.CopyFrom(model)
    weights = {node.input[1] for node in model.graph.node if node.op_type in WEIGHTED}
    for tensor in rounded.graph.initializer:
        if tensor.name in weights and tensor.data_type == TensorProto.FLOAT:
            value = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return rounded


@st.composite
def weights(draw: st.DrawFn) -> NDArray[np.int8]:
    """Int8 weights with 2 to 4 axes: full, cut short at some axes, or with few channels each."""
    kernel = draw(st.sampled_from([(), (3,), (3, 3)]))
    outputs, inputs = draw(st.integers(1, 40)), draw(st.sampled_from([1, 7, 32, 300]))
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    weight = generator.integers(-127, 128, (outputs, inputs, *kernel)).astype(np.int8)
    if draw(st.booleans()):
        weight[draw(st.integers(0, outputs)) :] = 0
        weight[:, draw(st.integers(0, inputs)) :] = 0
    if draw(st.booleans()):
        most = draw(st.integers(0, 2))
        order = np.argsort(generator.random((outputs, inputs)), axis=1)
        weight[order >= most] = 0
    return weight


@settings(max_examples=60, deadline=None)
@given(weight=weights())
def test_any_weight_comes_back(graph_of: Graphs, run_onnx: Run, weight: NDArray[np.int8]) -> None:
    model = give_weight(graph_of, weight)
    packed = pack_constants(model)
    for optimised in (True, False):
        found = run_onnx(packed, {"one": np.array(1, np.float32)}, optimised=optimised)
        assert np.array_equal(found, weight)
    # 128 bytes of nodes are reckoned with where they are worth it; names take some more.
    assert packed.ByteSize() <= model.ByteSize() + 200


def test_forms(graph_of: Graphs) -> None:
    full = np.full((128, 32, 3, 3), 5, np.int8)
    cut = full.copy()
    cut[100:], cut[:, 20:] = 0, 0
    sparse = np.where(np.arange(32) == np.arange(128)[:, None] % 32, 5, 0).astype(np.int8)
    sparse = np.ascontiguousarray(np.broadcast_to(sparse[:, :, None, None], full.shape))
    packed = {
        name: pack_constants(give_weight(graph_of, weight))
        for name, weight in [("full", full), ("cut", cut), ("sparse", sparse)]
    }
    assert operations(packed["full"]) == {"DequantizeLinear": 1, "Mul": 1}
    assert operations(packed["cut"])["Pad"] == 1
    assert operations(packed["sparse"])["ScatterElements"] == 1
    size = {name: model.ByteSize() for name, model in packed.items()}
    # Values kept, 4 bytes of scale for each output, and a few hundred bytes of nodes.
    assert size["full"] - size["cut"] > full.size - 100 * 20 * 9 - 300
    assert size["sparse"] < 128 * 9 + 128 + 128 * 4 + 700


def test_equal_constants_are_stored_once(graph_of: Graphs, run_onnx: Run) -> None:
    values = np.arange(64, dtype=np.float32)
    model = graph_of(
        [
            helper.make_node("Add", ["x", "a"], ["s"], "first"),
            helper.make_node("Mul", ["s", "b"], ["t"], "second"),
            helper.make_node("Reshape", ["t", "shape"], ["y"], "third"),
        ],
        # As bytes the last two are equal, too.
        {"a": values, "b": values.copy(), "c": values.view(np.int32), "shape": np.array([64])},
        {"x": (TensorProto.FLOAT, [64])},
        {"y": [64]},
    )
    packed = pack_constants(model)
    stored = [t.name for t in packed.graph.initializer]
    assert stored == ["a", "c", "shape"]
    x = np.ones(64, np.float32)
    assert np.array_equal(run_onnx(packed, {"x": x}), (1 + values) * values)


@pytest.mark.parametrize("dialect", ["x86", "arm"])
def test_small_net(
    net: ModelProto,
    feeds: list[Any],
    quantise: Callable[..., Quantised],
    run_onnx: Run,
    dialect: str,
) -> None:
    quantised = quantise(net, feeds, dialect, keep_float=["join.weight"]).model
    before = quantised.SerializeToString()
    packed = pack_constants(quantised)
    assert quantised.SerializeToString() == before
    assert [v.name for v in packed.graph.input] == ["faces"]
    # Float weights with more than 64 elements: the gate's two and the layer that stays float.
    halves = [t for t in packed.graph.initializer if t.data_type == TensorProto.FLOAT16]
    assert sum(len(t.raw_data) for t in halves) == 2 * (4 * 32 + 32 * 4 + 32 * 32)
    for model, kind in ((packed, "float16"), (quantised, "float32")):
        # Of the layers that are asked for, only one is float.
        stored = find_stored_weights(model, ["join.weight", "stem.weight", "nowhere"])
        assert {n: (w.shape, w.dtype.name) for n, w in stored.items()} == {
            "join.weight": ((32, 32, 1, 1), kind)
        }
    assert operations(packed)["Mul"] - operations(quantised)["Mul"] == 4  # biases' scales
    rounded = round_weights_to_half(quantised)
    for optimised in (True, False):
        found, wanted = (
            run_onnx(m, feeds[1], optimised=optimised, int8=True) for m in (packed, rounded)
        )
        assert np.array_equal(found, wanted)


@pytest.mark.parametrize("factor", [1e6, 1e-7])
def test_weights_beyond_float16_stay(
    net: ModelProto, feeds: list[Any], quantise: Callable[..., Quantised], factor: float
) -> None:
    scaled = ModelProto()
    scaled.CopyFrom(net)
    (weight,) = (t for t in scaled.graph.initializer if t.name == "mix.weight")
    value = numpy_helper.to_array(weight) * np.float32(factor)
    weight.CopyFrom(numpy_helper.from_array(value, "mix.weight"))
    packed = pack_constants(quantise(scaled, feeds).model)
    (kept,) = (t for t in packed.graph.initializer if t.name == "mix.weight")
    assert np.array_equal(numpy_helper.to_array(kept), value)


@pytest.fixture(scope="module")
def real(quantised_encoder: Callable[[str], Quantised]) -> dict[str, ModelProto]:
    """The encoder in x86, short names: as it was, and packed."""
    plain = round_weights_to_half(shorten_names(quantised_encoder("x86").model))
    return {"plain": plain, "packed": pack_constants(plain)}


def test_real_encoder_is_small(real: dict[str, ModelProto]) -> None:
    """The set with the largest head (late transformers: 0.81 MB packed) fits into 2.2 MB."""
    assert real["packed"].ByteSize() < 1_385_000
    assert real["plain"].ByteSize() - real["packed"].ByteSize() > 220_000
    assert operations(real["packed"])["ScatterElements"] == 4  # the local features' quarters


def test_real_encoder_is_the_same_in_onnx_runtime(
    real: dict[str, ModelProto],
    crops: dict[str, Any],
    run_onnx: Run,
    count_nodes: Callable[[Path], Counter[str]],
    tmp_path: Path,
) -> None:
    answers = {n: run_onnx(m, crops, save=tmp_path / f"{n}.onnx") for n, m in real.items()}
    assert np.array_equal(answers["plain"], answers["packed"])
    # The same kernels: it can't run slower.
    kernels = {name: count_nodes(tmp_path / f"{name}.onnx") for name in real}
    assert kernels["plain"] == kernels["packed"]
    assert kernels["packed"]["QLinearConv"] == 68


def test_real_encoder_is_the_same_in_openvino(
    real: dict[str, ModelProto], crops: dict[str, Any], tmp_path: Path
) -> None:
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    answers, kernels = {}, {}
    for name, model in real.items():
        onnx.save(model, tmp_path / f"{name}.onnx")
        graph = core.read_model(tmp_path / f"{name}.onnx")
        graph.reshape({"faces": list(crops["faces"].shape)})
        compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        answers[name] = np.array(compiled(crops)[0])
        kernels[name] = Counter(
            op.get_rt_info()["layerType"].astype(str)
            for op in compiled.get_runtime_model().get_ops()
        )
    assert np.array_equal(answers["plain"], answers["packed"])
    assert kernels["plain"] == kernels["packed"]


def test_real_encoder_loads_as_fast(real: dict[str, ModelProto]) -> None:
    """Constants cost ONNX Runtime at most 30 ms more; 5 were measured. Processor time: the
    machine may be busy."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    taken: dict[str, list[float]] = {name: [] for name in real}
    for _ in range(5):
        for name, model in real.items():
            content = model.SerializeToString()
            start = time.process_time()
            onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            taken[name].append(time.process_time() - start)
    assert min(taken["packed"]) - min(taken["plain"]) < 0.03


def test_unpacked_graph_is_what_is_checked(quantised_encoder: Callable[[str], Quantised]) -> None:
    """Packing comes last: weights that nodes make are no constants to ``check_dialect``."""
    model = quantised_encoder("x86").model
    check_dialect(model, DIALECTS["x86"])
    assert operations(pack_constants(model)) >= operations(model)
