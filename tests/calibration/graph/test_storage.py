"""Weights that stay float are stored as float16, and what runs is the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from mer_calibration import (
    Quantised,
    find_stored_weights,
    halve_weights,
    shorten_names,
)
from mer_calibration.graph.placement import WEIGHTED

Run = Callable[..., NDArray[np.float32]]


def operations(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def round_weights_to_half(model: ModelProto) -> ModelProto:
    """The graph as it is with float weights rounded to float16."""
    rounded = ModelProto()
    rounded.CopyFrom(model)
    weights = {node.input[1] for node in model.graph.node if node.op_type in WEIGHTED}
    for tensor in rounded.graph.initializer:
        if tensor.name in weights and tensor.data_type == TensorProto.FLOAT:
            value = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return rounded


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
    halved = halve_weights(quantised)
    assert quantised.SerializeToString() == before
    assert [v.name for v in halved.graph.input] == ["faces"]
    # Float weights with more than 64 elements: the gate's two and the layer that stays float.
    halves = [t for t in halved.graph.initializer if t.data_type == TensorProto.FLOAT16]
    assert sum(len(t.raw_data) for t in halves) == 2 * (4 * 32 + 32 * 4 + 32 * 32)
    for model, kind in ((halved, "float16"), (quantised, "float32")):
        # Of the layers that are asked for, only one is float.
        stored = find_stored_weights(model, ["join.weight", "stem.weight", "nowhere"])
        assert {n: (w.shape, w.dtype.name) for n, w in stored.items()} == {
            "join.weight": ((32, 32, 1, 1), kind)
        }
    assert operations(halved)["Cast"] - operations(quantised)["Cast"] == 3
    rounded = round_weights_to_half(quantised)
    for optimised in (True, False):
        found, wanted = (
            run_onnx(m, feeds[1], optimised=optimised, int8=True) for m in (halved, rounded)
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
    halved = halve_weights(quantise(scaled, feeds).model)
    (kept,) = (t for t in halved.graph.initializer if t.name == "mix.weight")
    assert np.array_equal(numpy_helper.to_array(kept), value)


@pytest.fixture(scope="module")
def real(quantised_encoder: Callable[[str], Quantised]) -> dict[str, ModelProto]:
    """The encoder in x86, short names: as it was, and with its float weights halved."""
    plain = round_weights_to_half(shorten_names(quantised_encoder("x86").model))
    return {"plain": plain, "halved": halve_weights(plain)}


def test_real_encoder_is_the_same_in_onnx_runtime(
    real: dict[str, ModelProto],
    crops: dict[str, Any],
    run_onnx: Run,
    count_nodes: Callable[[Path], Counter[str]],
    tmp_path: Path,
) -> None:
    answers = {n: run_onnx(m, crops, save=tmp_path / f"{n}.onnx") for n, m in real.items()}
    assert np.array_equal(answers["plain"], answers["halved"])
    # The same kernels: it can't run slower.
    kernels = {name: count_nodes(tmp_path / f"{name}.onnx") for name in real}
    assert kernels["plain"] == kernels["halved"]
    assert kernels["halved"]["QLinearConv"] == 68


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
    assert np.array_equal(answers["plain"], answers["halved"])
    assert kernels["plain"] == kernels["halved"]
