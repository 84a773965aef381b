"""Float16 emulated in float32: what TensorRT's graphs compute, without its GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser

from mer_calibration.measure.observation import open_session
from mer_export.network.graphs import emulate_half, to_half

NET = """
<ir_version: 8, opset_import: ["" : 18]>
sums (float[8, 64] x) => (float[8, 64] y) {
    product = MatMul(x, w)
    y = Add(product, b)
}
"""


def test_each_value_is_rounded_to_float16() -> None:
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(64, 64)).astype(np.float32)
    bias = generator.normal(size=64).astype(np.float32)
    model = parser.parse_model(NET)
    for name, value in (("w", weight), ("b", bias)):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    emulated = emulate_half(to_half(model))
    types = {tensor.data_type for tensor in emulated.graph.initializer}
    assert types == {onnx.TensorProto.FLOAT}
    x = generator.normal(size=(8, 64)).astype(np.float32)

    def halved(values: Any) -> Any:
        return values.astype(np.float16).astype(np.float32)

    product = halved(halved(x) @ halved(weight))
    given = open_session(emulated).run(None, {"x": x})[0]
    np.testing.assert_array_equal(given, halved(given))  # rounded, and not in float32 to the end
    # Sums in another order may fall on the other side: a step of float16 at 16 is 2^-6.
    np.testing.assert_allclose(given, halved(product + halved(bias)), atol=2**-5)
    assert np.abs(given - (x @ weight + bias)).max() > 1e-4
