"""What rounded weights of the first layer add to bright pictures is taken off its bias."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from channel_graphs import constants_of
from onnx import ModelProto, numpy_helper

from mer_calibration import DIALECTS, quantise_graph


def test_shift_of_the_mean_vanishes(net: ModelProto, ranges_of: Callable[..., Any]) -> None:
    means = (90.0, 140.0, 200.0)
    plain = np.broadcast_to(np.array(means, np.uint8), (1, 8, 8, 3)).copy()
    feed = {"faces": plain}
    ranges = ranges_of(net, [feed])
    errors = {}
    for name, given_means in (("plain", ()), ("corrected", means)):
        # Without rounding the bias to float16.
        dialect = dataclasses.replace(DIALECTS["tensorrt"], half_constants=False)
        model = quantise_graph(net, ranges, dialect, (), given_means, fold=False).model
        bias = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        weight = bias["stem.weight_q"] * bias["stem.weight_scale"][:, None, None, None]
        used = bias["stem.bias_corrected" if given_means else "stem.bias"]
        original = constants_of(net)
        exact = original["stem.weight"].sum(axis=(2, 3)) @ means + original["stem.bias"]
        errors[name] = np.abs(weight.sum(axis=(2, 3)) @ np.array(means) + used - exact).max()
    # Of sums near 100, in float32.
    assert errors["corrected"] < 1e-4
    assert errors["plain"] > 10 * errors["corrected"]


def test_other_layers_keep_their_bias(
    net: ModelProto, feeds: Any, ranges_of: Callable[..., Any]
) -> None:
    dialect, means = DIALECTS["tensorrt"], (128.0,) * 3
    model = quantise_graph(net, ranges_of(net, feeds), dialect, (), means, fold=False).model
    names = {t.name for t in model.graph.initializer if t.name.endswith("_corrected")}
    assert names == {"stem.bias_corrected"}
