"""Scales that are widened until no sum can saturate, and weights that are rounded on them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper
from weighted_layers import DEPTHWISE, ON_ALL, Kind, keep_rule

from mer_calibration.graph.dialects import round_to_half
from mer_calibration.graph.grid import SMALLEST_SCALE, weight_scales, weight_steps
from mer_calibration.graph.saturation import widen_scales
from mer_calibration.graph.weights import apply_roundings
from mer_calibration.measure.gptq import find_roundings

GraphOf = Callable[..., ModelProto]
#: Weights as networks have them, and far from it.
magnitudes = st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 1e3, 1e30])


@st.composite
def float_weights(draw: st.DrawFn, kind: Kind) -> NDArray[np.float32]:
    """Of any spread: channels of very different sizes, some dead, some with one large weight."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.sampled_from(["uniform", "normal", "equal", "signs", "rare"]))
    size = kind.shape
    values = {
        "uniform": lambda: generator.uniform(-1, 1, size),
        "normal": lambda: generator.normal(0, 0.3, size),
        "equal": lambda: np.full(size, 0.7),
        "signs": lambda: generator.choice([-1.0, 1.0], size),
        "rare": lambda: generator.choice([0.0, 0.01, 1.0], size),
    }[shape]()
    rows = values if kind.axis == 0 else values.T
    for channel in range(min(4, len(rows))):
        rows[channel] *= draw(magnitudes)
    return np.asarray(values, np.float32)


class TestWidenScales:
    @ON_ALL
    @given(data=st.data())
    @settings(deadline=None, max_examples=25)
    def test_nearest_steps_keep_the_rule(self, kind: Kind, data: st.DataObject) -> None:
        """On the scales found, on those of float16 above them, and on any that are wider."""
        weights = data.draw(float_weights(kind))
        finest = weight_scales(weights, kind.axis)
        found = widen_scales(finest, weights, kind.axis, kind.groups)
        assert found.dtype == np.float32
        assert (found >= finest).all()
        # At most as wide as half the steps would be, and no wider than needed.
        assert (found <= 2.05 * finest).all()
        wider = found * np.float32(data.draw(st.floats(1, 4, width=32)))
        halves = round_to_half(np.minimum(found, 1000))
        for scales in (found, np.maximum(found, halves), wider):
            steps = weight_steps(weights, scales, kind.axis)
            assert keep_rule(steps, kind)

    @ON_ALL
    def test_scales_that_are_safe_stay(self, kind: Kind) -> None:
        weights = np.zeros(kind.shape, np.float32)
        rows = weights if kind.axis == 0 else weights.T
        rows[:, -1] = 0.3
        if kind.shape[1 - kind.axis] == 1 or kind.shape[1 - kind.axis] % 2:
            rows[...] = 0
            rows.reshape(len(rows), -1)[:, 0] = 0.3
        finest = weight_scales(weights, kind.axis)
        assert (finest > SMALLEST_SCALE).all()
        np.testing.assert_array_equal(widen_scales(finest, weights, kind.axis, kind.groups), finest)

    def test_depthwise_scales_stay(self) -> None:
        weights = np.ones(DEPTHWISE.shape, np.float32)
        finest = weight_scales(weights)
        assert widen_scales(finest, weights, 0, DEPTHWISE.groups) is finest
        assert (widen_scales(finest, weights, 0) > finest).all()


@ON_ALL
@given(data=st.data())
@settings(deadline=None, max_examples=4)
def test_weights_rounded_together_keep_the_rule(
    kind: Kind, graph_of: GraphOf, data: st.DataObject
) -> None:
    """Any weights through ``find_roundings``."""
    weights = data.draw(float_weights(kind))
    weights = np.where(np.abs(weights) < 1e20, weights, 1).astype(np.float32)  # products overflow
    node = helper.make_node(kind.op_type, ["x", "w"], ["y"], "layer", **kind.options)
    rank = len(kind.inputs) + 1
    inputs = {"x": (TensorProto.FLOAT, [1, *kind.inputs])}
    outputs = {"y": [f"s{axis}" for axis in range(rank)]}
    model = graph_of([node], {"w": weights}, inputs, outputs)
    generator = np.random.default_rng(data.draw(st.integers(0, 99)))
    feeds = [
        {"x": np.maximum(generator.normal(0.3, 1, (1, *kind.inputs)), 0).astype(np.float32)}
        for _ in range(3)
    ]
    rounded = apply_roundings(model, find_roundings(model, feeds, threads=1))
    for layer in rounded.values():
        assert keep_rule(layer.steps, kind)
    # Narrow ones stay float.
    assert bool(rounded) == (min(kind.shape[:2]) >= 16 or kind.shape[1] in (1, 3))
