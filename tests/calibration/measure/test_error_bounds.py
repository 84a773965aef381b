"""Errors of random small nets stay within what their grids allow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mer_calibration import DIALECTS, Quantised

Run = Callable[..., NDArray[np.float32]]
Quantise = Callable[..., Quantised]


def constants_of(model: ModelProto) -> dict[str, NDArray[Any]]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


@st.composite
def conv_nets(draw: st.DrawFn) -> list[dict[str, Any]]:
    """One to three layers: channels, kernel, whether depthwise, whether with a ReLU, spread."""
    layers = []
    for _ in range(draw(st.integers(1, 3))):
        layers.append(
            {
                # Whole blocks: see test_encoder_has_whole_blocks_of_channels.
                "channels": draw(st.sampled_from([16, 32, 48])),
                "kernel": draw(st.sampled_from([1, 3])),
                "depthwise": draw(st.booleans()),
                "relu": draw(st.booleans()),
                "spread": draw(st.sampled_from([0.05, 1.0, 20.0])),
            }
        )
    return layers


@pytest.mark.parametrize("dialect", DIALECTS)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(plan=conv_nets(), seed=st.integers(0, 2**16))
def test_errors_are_what_the_grids_allow(
    plan: list[dict[str, Any]],
    seed: int,
    dialect: str,
    graph_of: Callable[..., ModelProto],
    quantise: Quantise,
    run_onnx: Run,
) -> None:
    """A bound for each value, from steps of weights, biases and activations through all layers."""
    torch = pytest.importorskip("torch")
    conv2d = torch.nn.functional.conv2d
    generator = np.random.default_rng(seed)
    nodes, constants, layers, data, width = [], {}, [], "x", 16
    for i, layer in enumerate(plan):
        out = width if layer["depthwise"] else layer["channels"]
        shape = (out, 1 if layer["depthwise"] else width, layer["kernel"], layer["kernel"])
        scale = generator.uniform(0.1, 1, (out, 1, 1, 1)) / np.sqrt(np.prod(shape[1:]))
        weight = (layer["spread"] * scale * generator.normal(0, 1, shape)).astype(np.float32)
        bias = generator.normal(0, layer["spread"], out).astype(np.float32)
        dead = generator.random(out) < 0.1
        weight[dead] = 0
        constants |= {f"w{i}": weight, f"b{i}": bias}
        options = {"padding": layer["kernel"] // 2, "groups": out if layer["depthwise"] else 1}
        pads = [layer["kernel"] // 2] * 4
        nodes.append(
            helper.make_node(
                "Conv",
                [data, f"w{i}", f"b{i}"],
                [f"c{i}"],
                f"n{i}",
                pads=pads,
                group=options["groups"],
            )
        )
        data = f"c{i}"
        if layer["relu"]:
            nodes.append(helper.make_node("Relu", [data], [f"r{i}"], f"m{i}"))
            data = f"r{i}"
        layers.append((i, layer["relu"], options, data))
        width = out
    nodes.append(helper.make_node("Identity", [data], ["y"], "end"))
    model = graph_of(
        nodes,
        constants,
        {"x": (TensorProto.FLOAT, [2, 16, 5, 5])},
        {"y": [2, width, 5, 5]},
    )
    feed = {"x": generator.normal(0, 1, (2, 16, 5, 5)).astype(np.float32)}
    quantised = quantise(model, [feed], dialect, plain=True).model
    grids = constants_of(quantised)

    x = torch.from_numpy(feed["x"]).double()
    # Half a step of rounding, half of what an end may lie off (asymmetric) or saturate by.
    error = torch.full_like(x, float(grids["x_scale"]))
    for i, relu, options, name in layers:
        weight, bias = (torch.from_numpy(constants[f"{n}{i}"]).double() for n in "wb")
        kept = grids[f"w{i}_q"].astype(np.float64)
        steps = grids[f"w{i}_scale"].astype(np.float64)[:, None, None, None]
        rounded = torch.from_numpy(kept * steps)
        # The writer rounds weights to the nearest point.
        assert (np.abs(kept * steps - weight.numpy()) <= 0.51 * steps).all()
        noise = conv2d(error, rounded.abs(), **options)
        noise += conv2d(x.abs(), (rounded - weight).abs(), **options)
        if DIALECTS[dialect].integer_bias:
            noise += torch.tensor(grids[f"b{i}_scale"]).double()[:, None, None] / 2
        x = conv2d(x, weight, bias, **options)
        x = x.clamp(min=0) if relu else x
        error = noise + float(grids[f"{name}_scale"])
    # float32 arithmetic on top
    bound = error + 1e-5 * (x.abs() + x.abs().max())
    for optimised in (True, False):
        found = run_onnx(quantised, feed, optimised=optimised, int8=True)
        assert (np.abs(found - x.numpy()) <= bound.numpy()).all()
    if len(plan) == 1:  # not an empty promise
        assert float(error.mean()) < 0.2 * float(x.abs().max())
