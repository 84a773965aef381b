"""Graphs from others' hands: what ``mer-export`` can't have written reaches no engine."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import model, node

from mer_runtime import Recognizer
from mer_runtime.bundle import load_bundle
from mer_runtime.engines import open_backend
from mer_runtime.engines.graph_check import check_graph
from mer_runtime.engines.wire import read_graph
from mer_runtime.errors import BundleError

CROPS = 15


pytestmark = pytest.mark.usefixtures("own_cache")


def refuse(graph: onnx.ModelProto | bytes, message: str) -> None:
    content = graph if isinstance(graph, bytes) else graph.SerializeToString()
    with pytest.raises(ValueError, match=message) as caught:
        check_graph(content, CROPS)
    assert "\n" not in str(caught.value)


def accept(graph: onnx.ModelProto) -> None:
    check_graph(graph.SerializeToString(), CROPS)


def inner() -> onnx.GraphProto:
    value = helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])
    return helper.make_graph([node("Identity", "x", to="z")], "inner", [], [value])


class TestShipped:
    @pytest.fixture
    def graphs(self) -> dict[str, bytes]:
        bundle = load_bundle("ia-int8")
        return {f.name: bundle.read_graph(f) for f in (bundle.encoder, bundle.head)}

    def test_pass(self, graphs: dict[str, bytes]) -> None:
        for content in graphs.values():
            check_graph(content, CROPS)

    def test_are_read_as_onnx_reads_them(self, graphs: dict[str, bytes]) -> None:
        for content in graphs.values():
            ours, theirs = read_graph(content), onnx.load_from_string(content).graph
            assert [one.operator for one in ours.nodes] == [one.op_type for one in theirs.node]
            for one, other in zip(ours.nodes, theirs.node, strict=True):
                assert (one.inputs, one.outputs) == (tuple(other.input), tuple(other.output))
                for attribute in other.attribute:
                    value = helper.get_attribute_value(attribute)
                    if isinstance(value, int):
                        assert one.attributes[attribute.name] == value
                    elif value and isinstance(value, list) and isinstance(value[0], int):
                        assert one.attributes[attribute.name] == tuple(value)
            assert ours.constants.keys() == {tensor.name for tensor in theirs.initializer}
            for tensor in theirs.initializer:
                constant = ours.constants[tensor.name]
                assert constant.shape == tuple(tensor.dims)
                if tensor.data_type == TensorProto.INT64:
                    assert constant.values is not None
                    np.testing.assert_array_equal(constant.values, numpy_helper.to_array(tensor))

    def test_any_cut_is_an_error(self, graphs: dict[str, bytes]) -> None:
        content = graphs["head.onnx.gz"]
        for cut in range(0, len(content), len(content) // 100):
            with pytest.raises(ValueError, match=r"."):
                check_graph(content[:cut], CROPS)


def test_sizes_are_onnxs_own() -> None:
    """Every rule against ONNX's inference: an exact graph is as large as it may be, not larger."""
    from mer_runtime.engines.graph_rules import RULES
    from mer_runtime.engines.graph_tensors import Tensors

    size = (2, 4, 6, 8)
    axes = np.array([1, -1])
    cases: dict[str, tuple[list[Any], dict[str, Any], dict[str, Any]]] = {
        "Add": (["x", "a"], {}, {"a": np.zeros((6, 1), np.float32)}),
        "AveragePool": (["x"], {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}, {}),
        "Concat": (["x", "x"], {"axis": -1}, {}),
        "Conv": (
            ["x", "w"],
            {"pads": [1, 0, 1, 2], "strides": [2, 1], "dilations": [1, 2], "group": 2},
            {"w": np.zeros((10, 2, 3, 3), np.float32)},
        ),
        "Expand": (["x", "s"], {}, {"s": np.array([3, 1, 1, 1, 1])}),
        "Flatten": (["x"], {"axis": 2}, {}),
        "Gather": (["x", "i"], {"axis": 2}, {"i": np.zeros((3, 5), np.int64)}),
        "GlobalAveragePool": (["x"], {}, {}),
        "MatMul": (["x", "m"], {}, {"m": np.zeros((4, 8, 3), np.float32)}),
        "MaxPool": (
            ["x"],
            {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]},
            {},
        ),
        "Pad": (["x", "p"], {}, {"p": np.array([0, 0, 1, 2, 0, 0, 3, 4])}),
        "ReduceMean": (["x", "r"], {"keepdims": 0}, {"r": axes}),
        "Reshape": (["x", "s"], {}, {"s": np.array([0, -1, 3])}),
        "Slice": (
            ["x", "b", "e", "r", "t"],
            {},
            {"b": np.array([3, -1]), "e": np.array([0, -99]), "r": axes, "t": np.array([-1, -3])},
        ),
        "Split": (["x", "p"], {"axis": 1}, {"p": np.array([1, 3])}),
        "Transpose": (["x"], {"perm": [3, 0, 2, 1]}, {}),
        "Unsqueeze": (["x", "r"], {}, {"r": axes}),
    }
    for operator, (inputs, attributes, constants) in cases.items():
        outputs = ["y", "z"] if operator == "Split" else ["y"]
        graph = model([node(operator, *inputs, to=outputs, **attributes)], size, **constants)
        inferred = onnx.shape_inference.infer_shapes(graph, strict_mode=True, data_prop=True)
        dims = inferred.graph.output[0].type.tensor_type.shape.dim
        ours = read_graph(graph.SerializeToString())
        known = Tensors()
        known.sizes["x"] = size
        for name, constant in ours.constants.items():
            known.learn(name, constant)
        found = RULES[operator](known, ours.nodes[0])[0]
        assert found == tuple(one.dim_value for one in dims), operator


class TestOperators:
    @pytest.mark.parametrize(
        "operator", ["Loop", "If", "Scan", "ConstantOfShape", "Tile", "NonZero", "Resize"]
    )
    def test_outside_the_list(self, operator: str) -> None:
        refuse(model([node(operator, "x")]), f"it has the operator {operator}, which mer-export")

    def test_of_another_domain(self) -> None:
        graph = model([node("Relu", "x", domain="com.microsoft")])
        refuse(graph, r"it has the operator com\.microsoft\.Relu")

    @pytest.mark.parametrize("name", ["body", "then_branch", "anything"])
    def test_graph_in_a_graph(self, name: str) -> None:
        """On an operator of the list too: an attribute of that kind is refused wherever it is."""
        for operator in ("Loop", "Relu"):
            refuse(model([node(operator, "x", **{name: inner()})]), "it has a graph in a graph")

    def test_functions(self) -> None:
        graph = model([node("Mine", "x", domain="own")])
        opsets = [helper.make_opsetid("", 18)]
        graph.functions.append(
            helper.make_function("own", "Mine", ["x"], ["y"], [node("Relu", "x")], opsets)
        )
        refuse(graph, "it has functions")

    @pytest.mark.parametrize("opset", [0, 7, 17, 99])
    def test_of_another_opset(self, opset: int) -> None:
        refuse(model([node("Relu", "x")], opset=opset), f"it is written in opset {opset}")


def test_weights_elsewhere() -> None:
    """Whatever it names: the file isn't opened, and the graph is refused."""
    graph = model([node("Add", "x", "a")], a=np.zeros(8, np.float32))
    tensor = graph.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "/etc/passwd", "offset": "0", "length": "32"}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    refuse(graph, "it has weights in another file")
    del tensor.external_data[:]
    refuse(graph, "it has weights in another file")
    graph = model([helper.make_node("Constant", [], ["a"], value=tensor), node("Add", "x", "a")])
    refuse(graph, "it has weights in another file")


class TestBombs:
    def test_expanded(self) -> None:
        refuse(model([node("Expand", "x", "s")], s=np.array([1 << 30, 8])), "takes more memory")

    def test_padded(self) -> None:
        pads = np.array([0, 0, 0, 1 << 40])
        refuse(model([node("Pad", "x", "p")], p=pads), "its operator Pad takes more memory")

    def test_range(self) -> None:
        constants = {"a": np.int64(0), "b": np.int64(1 << 40), "c": np.int64(1)}
        refuse(model([node("Range", "a", "b", "c")], **constants), "takes more memory")
        refuse(model([node("Range", "a", "b", "a")], **constants), "one of its Range isn't")
        refuse(model([node("Range", "x", "b", "c")], **constants), "one of its Range isn't")
        accept(model([node("Range", "a", "b", "c")], **constants | {"b": np.int64(7)}))

    def test_outer_product(self) -> None:
        constants = {"a": np.zeros((60_000, 1), np.float32), "b": np.zeros(60_000, np.float32)}
        refuse(model([node("Add", "a", "b")], **constants), "its operator Add takes more memory")

    def test_doubled_again_and_again(self) -> None:
        names = ["x", *(f"t{i}" for i in range(40)), "y"]
        nodes = [node("Concat", a, a, to=b, axis=0) for a, b in pairwise(names)]
        refuse(model(nodes), "its operator Concat takes more memory")

    def test_many_at_once(self) -> None:
        """None is large, and all are needed at the end."""
        nodes = [node("Expand", "x", "s", to=f"t{i}") for i in range(200)]
        nodes.append(node("Sum", *(f"t{i}" for i in range(200))))
        graph = model(nodes, s=np.array([1 << 18, 8]))
        refuse(graph, "takes more memory")
        one_by_one = [node("Expand", "x", "s", to=f"t{i}") for i in range(20)]
        accept(model([*one_by_one, node("Relu", "x")], s=np.array([1 << 18, 8])))

    def test_work_without_end(self) -> None:
        square = np.zeros((1024, 1024), np.float32)
        nodes = [node("Gemm", "a", "a", to="t0")]
        nodes += [node("Gemm", f"t{i}", "a", to=f"t{i + 1}") for i in range(600)]
        nodes.append(node("Add", "x", "t600"))
        refuse(model(nodes, (1, 1024), a=square), "its operator Gemm takes more time")

    def test_large_kernel(self) -> None:
        graph = model(
            [node("MaxPool", "x", kernel_shape=[2000, 2000], strides=[1, 1])], (1, 1, 2500, 2500)
        )
        refuse(graph, "one of its MaxPool isn't as mer-export writes it")

    def test_shape_out_of_the_batch(self) -> None:
        """A size computed of sizes counts as what it comes to for a whole window."""
        nodes = [
            node("Shape", "x", to="s0"),
            *(node("Mul", f"s{i}", f"s{i}", to=f"s{i + 1}") for i in range(3)),
            node("Expand", "one", "s3"),
        ]
        refuse(model(nodes, ("n", 8), one=np.float32(1)), "takes more memory")
        nodes = [
            node("Shape", "x", to="n", start=0, end=1),
            node("Concat", "n", "rest", to="s", axis=0),
            node("Reshape", "x", "s"),
        ]
        accept(model(nodes, ("n", 8), rest=np.array([2, 4])))

    def test_shape_out_of_values(self) -> None:
        nodes = [node("Cast", "x", to="s"), node("Reshape", "x", "s")]
        nodes[0].attribute.append(helper.make_attribute("to", TensorProto.INT64))
        refuse(model(nodes), "one of its Reshape isn't as mer-export writes it")

    def test_too_many_operations(self) -> None:
        nodes = [node("Relu", "x", to=f"t{i}") for i in range(20_001)]
        refuse(model(nodes), "more than 20000 operations")

    def test_constant_larger_than_its_bytes(self) -> None:
        graph = model([node("Add", "x", "a")], a=np.zeros(8, np.float32))
        graph.graph.initializer[0].dims[0] = 1 << 40
        refuse(graph, "another number of bytes than they say")

    def test_input_that_is_huge(self) -> None:
        refuse(model([node("Relu", "x")], (1 << 40,)), "takes more memory")


class TestFormat:
    @pytest.mark.parametrize(
        "content", [b"", b"not a graph", b"\x00" * 20, b"\xff" * 20, b"\x0a\xff\xff\xff\xff\x0f"]
    )
    def test_no_onnx(self, content: bytes) -> None:
        refuse(content, r"it (is|has) .")

    def test_two_graphs_in_one(self) -> None:
        """A parser joins them; this one would have looked into the last."""
        one = model([node("Relu", "x")])
        refuse(one.SerializeToString() * 2, "a field that isn't known")

    def test_field_of_a_later_version(self) -> None:
        refuse(model([node("Relu", "x")]).SerializeToString() + b"\xfa\x07\x00", "isn't known")

    @pytest.mark.parametrize("name", ["missing", "later"])
    def test_input_that_nothing_made(self, name: str) -> None:
        nodes = [node("Add", "x", name), node("Relu", "x", to="later")]
        refuse(model(nodes), "one of its Add isn't")

    def test_one_name_made_twice(self) -> None:
        refuse(model([node("Relu", "x"), node("Relu", "x")]), "two of its operations make the same")


WriteBundle = Callable[..., Path]


def break_encoder(graph: onnx.ModelProto, **changes: Any) -> onnx.ModelProto:
    """Its weights come from a file."""
    broken = onnx.ModelProto()
    broken.CopyFrom(graph)
    tensor = next(one for one in broken.graph.initializer if one.name == "colours")
    onnx.external_data_helper.set_external_data(tensor, "../weights", 0, len(tensor.raw_data))
    tensor.ClearField("raw_data")
    return broken


@pytest.mark.parametrize("target", ["onnx", "tensorrt"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_bundle_that_reads_a_file(
    target: str, backend: str, write_tiny_bundle: WriteBundle, tiny_model: Any, tmp_path: Path
) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    (tmp_path / "weights").write_bytes(bytes(1000))
    folder = write_tiny_bundle(target=target, encoder=break_encoder(tiny_model.encoder_graph()))
    with pytest.raises(BundleError, match=r"can't load its graphs: .* weights in another file"):
        Recognizer.load(folder, backend=backend)


def test_graph_swapped_after_its_hash_was_checked(
    write_tiny_bundle: WriteBundle, make_tiny_model: Callable[..., Any]
) -> None:
    bundle = load_bundle(write_tiny_bundle())
    onnx.save(make_tiny_model(width=7).encoder_graph(), bundle.encoder)
    with pytest.raises(BundleError, match=r"encoder\.onnx was changed or damaged"):
        open_backend(bundle, 1)
