"""The first convolution on blocks of pixels: the same integers, in another order of work."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from mer_calibration import DIALECTS, compare_tensors, quantise_graph
from mer_calibration.graph.space_to_depth import space_to_depth

Run = Callable[..., NDArray[np.float32]]
SIDE = 16


@pytest.fixture(scope="module")
def stem_of(graph_of: Callable[..., ModelProto]) -> Callable[..., ModelProto]:
    """A stem as the encoder's, and a layer behind it: ``stem_of(side=16, strides=2)``."""

    def make(side: int = SIDE, stride: int = 2) -> ModelProto:
        generator = np.random.default_rng(8)

        def draw(*shape: int) -> NDArray[np.float32]:
            scale = 1.5 / np.sqrt(np.prod(shape[1:]))
            return generator.normal(0, scale, shape).astype(np.float32)

        constants = {
            "stem.weight": draw(16, 3, 3, 3) / 128,
            "stem.bias": draw(16),
            "next.weight": draw(16, 16, 1, 1),
            "next.bias": draw(16),
        }
        node = helper.make_node
        around, steps = [1, 1, 1, 1], [stride, stride]
        nodes = [
            node("Cast", ["faces"], ["pixels"], "cast", to=TensorProto.FLOAT),
            node("Transpose", ["pixels"], ["planes"], "move", perm=[0, 3, 1, 2]),
            node(
                "Conv",
                ["planes", "stem.weight", "stem.bias"],
                ["stem"],
                "stem",
                strides=steps,
                pads=around,
            ),
            node("Relu", ["stem"], ["stem_relu"], "relu"),
            node(
                "MaxPool",
                ["stem_relu"],
                ["pooled"],
                "pool",
                kernel_shape=[3, 3],
                strides=[2, 2],
                pads=around,
            ),
            node("Conv", ["pooled", "next.weight", "next.bias"], ["out"], "next"),
        ]
        inputs = {"faces": (TensorProto.UINT8, ["n", side, side, 3])}
        return graph_of(nodes, constants, inputs, {"out": ["n", 16, None, None]})

    return make


@pytest.fixture(scope="module")
def pictures() -> dict[str, NDArray[Any]]:
    generator = np.random.default_rng(9)
    return {"faces": generator.integers(0, 256, (3, SIDE, SIDE, 3)).astype(np.uint8)}


@pytest.fixture(scope="module")
def integers(ranges_of: Callable[..., Any]) -> Callable[..., ModelProto]:
    """``integers(net, pictures, dialect)``: ``net`` in a dialect, its pixels one by one."""

    def give(net: ModelProto, pictures: dict[str, NDArray[Any]], dialect: str) -> ModelProto:
        apart = dataclasses.replace(DIALECTS[dialect], space_to_depth=0)  # type: ignore[index]
        return quantise_graph(net, ranges_of(net, [pictures]), apart).model

    return give


def first_kernel(model: ModelProto) -> list[int]:
    stem = next(node for node in model.graph.node if node.op_type == "Conv")
    return next(list(a.ints) for a in stem.attribute if a.name == "kernel_shape")


@pytest.mark.parametrize("pixels", [2, 4, 8])
@pytest.mark.parametrize("dialect", ["x86", "openvino"])
def test_same_answers(
    stem_of: Callable[..., ModelProto],
    pictures: dict[str, NDArray[Any]],
    integers: Callable[..., ModelProto],
    run_onnx: Run,
    dialect: str,
    pixels: int,
) -> None:
    apart = integers(stem_of(), pictures, dialect)
    before = apart.SerializeToString()
    joined = space_to_depth(apart, pixels)
    assert apart.SerializeToString() == before, "the graph given is left alone"
    assert first_kernel(joined) == [3, 2]
    expected = run_onnx(apart, pictures, optimised=False)
    assert expected.std() > 0.1
    found = run_onnx(joined, pictures, optimised=False)
    # The sums are the same; kernels add them up in floats here, each in its own order, and where
    # one lies between two steps it may be rounded to the other: a step of pooled is 0.02.
    assert np.mean(found != expected) < 0.01
    assert np.abs(found - expected).max() < 0.1
    # In int8 there is nothing to round before the end.
    if dialect == "x86":
        assert np.array_equal(run_onnx(joined, pictures), run_onnx(apart, pictures))


def test_rounded_tensors_keep_their_shapes(
    stem_of: Callable[..., ModelProto],
    pictures: dict[str, NDArray[Any]],
    ranges_of: Callable[..., Any],
) -> None:
    """A report on layers compares them with the float graph's, name by name."""
    net = stem_of()
    dialect = dataclasses.replace(DIALECTS["x86"], integer_moves=False)
    quantised = quantise_graph(net, ranges_of(net, [pictures]), dialect)
    assert first_kernel(quantised.model) == [3, 2]
    noise = compare_tensors(net, quantised.model, quantised.rounded, [pictures], threads=1)
    assert noise["stem_relu"] > 30  # dB; 8 bits of a rectified normal give about 40


def test_output_that_nobody_reads(
    stem_of: Callable[..., ModelProto],
    pictures: dict[str, NDArray[Any]],
    integers: Callable[..., ModelProto],
    run_onnx: Run,
) -> None:
    """The first layer is the graph's last."""
    for last in ("stem", "stem_relu"):
        whole = onnx.shape_inference.infer_shapes(stem_of())
        net = onnx.utils.Extractor(whole).extract_model(["faces"], [last])
        apart = integers(net, pictures, "x86")
        joined = space_to_depth(apart, 4)
        assert first_kernel(joined) == [3, 2]
        expected, found = (run_onnx(m, pictures, optimised=False) for m in (apart, joined))
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_no_data_is_moved_on_integers(
    stem_of: Callable[..., ModelProto],
    pictures: dict[str, NDArray[Any]],
    integers: Callable[..., ModelProto],
    run_onnx: Run,
    count_nodes: Callable[..., Any],
    tmp_path: Any,
) -> None:
    """Blocks are views: ONNX Runtime is left with one transposition, of its float output."""
    joined = space_to_depth(integers(stem_of(), pictures, "x86"), 4)
    run_onnx(joined, pictures, save=tmp_path / "optimised.onnx")
    found = count_nodes(tmp_path / "optimised.onnx")
    assert found["Reshape"] == 2
    assert found["Transpose"] <= 1
    assert found["QLinearConv"] == 1  # the other gives the graph's output, in floats


def test_other_first_layers_stay(
    stem_of: Callable[..., ModelProto],
    pictures: dict[str, NDArray[Any]],
    integers: Callable[..., ModelProto],
    net: ModelProto,
) -> None:
    uneven = {"faces": np.ascontiguousarray(pictures["faces"][:, :14, :14])}
    small = {"faces": np.ascontiguousarray(pictures["faces"][:, :8, :8])}
    for model, feed in ((stem_of(side=14), uneven), (stem_of(stride=1), pictures), (net, small)):
        apart = integers(model, feed, "x86")
        assert space_to_depth(apart, 4) is apart
    assert space_to_depth(stem_of(), 4) == stem_of(), "floats have no blocks to gain from"
    with_kept = integers(stem_of(side=14), uneven, "x86")
    assert first_kernel(space_to_depth(with_kept, 2)) == [3, 2], "14 pixels are 7 blocks of 2"


def test_which_dialects_join(
    stem_of: Callable[..., ModelProto],
    pictures: dict[str, NDArray[Any]],
    ranges_of: Callable[..., Any],
) -> None:
    ranges = ranges_of(stem_of(), [pictures])
    kernels = {
        name: first_kernel(quantise_graph(stem_of(), ranges, dialect).model)
        for name, dialect in DIALECTS.items()
        if dialect.space_to_depth
    }
    assert kernels == {"x86": [3, 2], "openvino": [3, 2]}
    tensorrt = quantise_graph(stem_of(), ranges, DIALECTS["tensorrt"]).model
    assert not any(node.op_type == "Reshape" for node in tensorrt.graph.node)
