"""Float16 emulated in float32: what TensorRT's graphs compute, without its GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from mer_export.network.graphs import emulate_half, to_half


def test_each_value_is_rounded_to_float16(
    graph_of: Callable[..., ModelProto], run_onnx: Callable[..., Any]
) -> None:
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(64, 64)).astype(np.float32)
    bias = generator.normal(size=64).astype(np.float32)
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["product"], "product"),
        onnx.helper.make_node("Add", ["product", "b"], ["y"], "sum"),
    ]
    sizes = {"x": (onnx.TensorProto.FLOAT, [8, 64])}
    model = graph_of(nodes, {"w": weight, "b": bias}, sizes, {"y": [8, 64]})
    emulated = emulate_half(to_half(model))
    types = {tensor.data_type for tensor in emulated.graph.initializer}
    assert types == {onnx.TensorProto.FLOAT}
    x = generator.normal(size=(8, 64)).astype(np.float32)

    def halved(values: Any) -> Any:
        return values.astype(np.float16).astype(np.float32)

    product = halved(halved(x) @ halved(weight))
    given = run_onnx(emulated, {"x": x})
    np.testing.assert_array_equal(given, halved(given))  # rounded, and not in float32 to the end
    # Sums in another order may fall on the other side: a step of float16 at 16 is 2^-6.
    np.testing.assert_allclose(given, halved(product + halved(bias)), atol=2**-5)
