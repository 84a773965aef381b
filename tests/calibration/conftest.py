"""Small graphs to quantise, and short ways to quantise and run them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mer_calibration import (
    DIALECTS,
    FloatAnswers,
    Quantised,
    Range,
    Window,
    observe,
    place,
    quantise_graph,
)

Feed = Mapping[str, NDArray[Any]]
RangesOf = Callable[[ModelProto, Sequence[Feed]], dict[str, Range]]


def make_graph(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, NDArray[Any]],
    inputs: Mapping[str, tuple[int, Sequence[Any]]],
    outputs: Mapping[str, Sequence[Any]],
) -> ModelProto:
    """A checked model; ``inputs`` are (type, shape), ``outputs`` shapes of float32."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, *given) for name, given in inputs.items()],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in outputs.items()
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.fixture(scope="session")
def graph_of() -> Callable[..., ModelProto]:
    """``make_graph``."""
    return make_graph


@pytest.fixture(scope="session")
def net() -> ModelProto:
    """Every pattern of the real encoder, small: crops (n, 8, 8, 3) uint8 to (n, 16) float32.

    Stem, max-pooling, a split into halves with a pointwise and a depthwise convolution, their
    concatenation, a residual add, a gate of 4 channels (narrow: stays float), a linear layer.
    Of the 32 outputs of ``join`` the last 6 are dead but for biases, and ``left`` reads two
    channels that are always zero.
    """
    generator = np.random.default_rng(3)

    def draw(*shape: int) -> NDArray[np.float32]:
        scale = 1.5 / np.sqrt(np.prod(shape[1:]))
        return generator.normal(0, scale, shape).astype(np.float32)

    constants = {
        "stem.weight": draw(32, 3, 3, 3) / 128,
        "left.weight": draw(16, 16, 1, 1),
        "right.weight": draw(16, 1, 3, 3),
        "join.weight": draw(32, 32, 1, 1),
        "gate.weight": draw(4, 32, 1, 1),
        "mix.weight": draw(32, 4, 1, 1),
        "fc.weight": draw(16, 32),
        **{f"{name}.bias": draw(32) for name in ("stem", "join", "mix")},
        **{f"{name}.bias": draw(16) for name in ("left", "right", "fc")},
        "gate.bias": draw(4),
        "halves": np.array([16, 16]),
    }
    constants["join.weight"][26:] = 0
    constants["stem.weight"][3:5] = 0
    constants["stem.bias"][3:5] = 0

    def layer(op_type: str, name: str, data: str, **attributes: Any) -> onnx.NodeProto:
        inputs = [data, f"{name}.weight", f"{name}.bias"]
        return helper.make_node(op_type, inputs, [name], f"node_{name}", **attributes)

    def node(op_type: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(
            op_type, inputs.split(), outputs.split(), f"node_{outputs}", **attributes
        )

    nodes = [
        node("Cast", "faces", "pixels", to=TensorProto.FLOAT),
        node("Transpose", "pixels", "planes", perm=[0, 3, 1, 2]),
        layer("Conv", "stem", "planes", pads=[1, 1, 1, 1]),
        node("Relu", "stem", "stem_relu"),
        node("MaxPool", "stem_relu", "pooled", kernel_shape=[2, 2], strides=[2, 2]),
        node("Split", "pooled halves", "half_1 half_2", axis=1),
        layer("Conv", "left", "half_1"),
        node("Relu", "left", "left_relu"),
        layer("Conv", "right", "half_2", pads=[1, 1, 1, 1], group=16),
        node("Relu", "right", "right_relu"),
        node("Concat", "left_relu right_relu", "both", axis=1),
        layer("Conv", "join", "both"),
        node("Relu", "join", "join_relu"),
        layer("Conv", "gate", "join_relu"),
        node("Sigmoid", "gate", "gate_sigmoid"),
        layer("Conv", "mix", "gate_sigmoid"),
        node("Mul", "join_relu mix", "gated"),
        node("Add", "gated pooled", "sum"),
        node("ReduceMean", "sum places", "mean", keepdims=0),
        layer("Gemm", "fc", "mean", transB=1),
    ]
    constants["places"] = np.array([2, 3])
    return make_graph(
        nodes,
        constants,
        {"faces": (TensorProto.UINT8, ["n", 8, 8, 3])},
        {"fc": ["n", 16]},
    )


@pytest.fixture(scope="session")
def feeds() -> list[dict[str, NDArray[Any]]]:
    """Noisy pictures for ``net``, from dark to bright."""
    generator = np.random.default_rng(4)
    return [
        {"faces": np.clip(generator.normal(bright, 50, (3, 8, 8, 3)), 0, 255).astype(np.uint8)}
        for bright in (30, 128, 220)
    ]


@pytest.fixture(scope="session")
def ranges_of() -> RangesOf:
    """``ranges_of(model, feeds)``: ranges of all that is rounded in any dialect.

    They cover all that was seen, so that a bound on errors need not count what is cut off.
    """

    def give(model: ModelProto, feeds: Sequence[Feed]) -> dict[str, Range]:
        return {
            name: Range(min(found.low, 0.0), max(found.high, 0.0), found.low, found.high, 0.0)
            for name, found in observe(model, feeds, place(model).sources(), threads=1).items()
        }

    return give


@pytest.fixture(scope="session")
def quantise(ranges_of: RangesOf) -> Callable[..., Quantised]:
    """``quantise(model, feeds, dialect="x86", keep_float=(), plain=False)``.

    ``plain``: the dialect without what it adds to Q/DQ pairs (outputs that stay float, zero-points
    that are folded), which has tests of its own.
    """

    def run(
        model: ModelProto,
        feeds: Sequence[Feed],
        dialect: str = "x86",
        keep_float: Collection[str] = (),
        plain: bool = False,
    ) -> Quantised:
        chosen = DIALECTS[dialect]  # type: ignore[index]
        if plain:
            chosen = dataclasses.replace(chosen, float_outputs=False, fold_zero_points=False)
        return quantise_graph(model, ranges_of(model, feeds), chosen, keep_float)

    return run


@pytest.fixture(scope="session")
def run_onnx() -> Callable[..., NDArray[np.float32]]:
    """ONNX Runtime: ``run_onnx(model, feed, optimised=True, int8=False, save=None)``.

    ``int8`` lets it form int8 convolutions on x86 too, as it does on ARM. ``save`` is where the
    optimised graph goes.
    """

    def run(
        model: ModelProto,
        feed: Feed,
        optimised: bool = True,
        int8: bool = False,
        save: Path | None = None,
    ) -> NDArray[np.float32]:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = (
            levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
        )
        if int8:
            options.add_session_config_entry("session.qdqisint8allowed", "1")
        if save is not None:
            options.optimized_model_filepath = str(save)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return np.asarray(session.run(None, dict(feed))[0], np.float32)

    return run


@pytest.fixture(scope="session")
def run_openvino(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., NDArray[np.float32]]:
    """OpenVINO in float32: ``run_openvino(model, feed)``."""
    openvino = pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("openvino")
    core = openvino.Core()

    def run(model: ModelProto, feed: Feed) -> NDArray[np.float32]:
        onnx.save(model, folder / "graph.onnx")
        graph = core.read_model(folder / "graph.onnx")
        graph.reshape({name: list(value.shape) for name, value in feed.items()})
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        compiled = core.compile_model(graph, "CPU", options)
        return np.array(compiled(dict(feed))[0], np.float32)

    return run


@pytest.fixture(scope="session")
def count_nodes() -> Callable[[Path], Counter[str]]:
    """How often each operation stands in a saved graph."""
    return lambda path: Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.fixture(scope="session")
def encoder(small_model: tuple[Any, Any], graphs_once: None) -> ModelProto:
    """The deployment encoder of ``small_model``, as the exporter makes it."""
    from mer import Checkpoint
    from mer_export.network.graphs import export_graphs

    return export_graphs(Checkpoint(*small_model)).encoder


@pytest.fixture(scope="session")
def crops() -> dict[str, NDArray[np.uint8]]:
    """Two smooth pictures for ``encoder``."""
    generator = np.random.default_rng(5)
    coarse = generator.integers(0, 256, (2, 14, 14, 3)).astype(np.uint8)
    return {"faces": coarse.repeat(16, axis=1).repeat(16, axis=2)}


@pytest.fixture(scope="session")
def quantised_encoder(
    encoder: ModelProto, crops: Feed, quantise: Callable[..., Quantised]
) -> Callable[[str], Quantised]:
    """The encoder in a dialect, each made once."""
    made: dict[str, Quantised] = {}

    def give(dialect: str) -> Quantised:
        if dialect not in made:
            made[dialect] = quantise(encoder, [crops], dialect)
        return made[dialect]

    return give


@pytest.fixture(scope="session")
def head(graph_of: Callable[..., ModelProto]) -> ModelProto:
    """What follows ``net``: mfcc (1, 10, 12) and features (1, 4, 16) to logits (1, 8).

    Two products with weights of their own, ``rise`` and ``fall`` (the first output of ``rise`` is
    dead), a mean over frames in which late ones count more, and two narrow ones that stay float.
    """
    generator = np.random.default_rng(6)

    def draw(*shape: int) -> NDArray[np.float32]:
        return generator.normal(0, 1.5 / np.sqrt(shape[0]), shape).astype(np.float32)

    constants = {
        "rise": draw(16, 32),
        "fall": draw(32, 16),
        "classify": draw(16, 8),
        "listen": draw(10, 8),
        "when": np.array([0.4, 0.8, 1.2, 1.6], np.float32)[:, None],
        "frames": np.array([1]),
        "times": np.array([2]),
    }
    constants["rise"][:, 0] = 0
    nodes = [
        helper.make_node("MatMul", ["features", "rise"], ["risen"], "node_rise"),
        helper.make_node("Relu", ["risen"], ["rise_relu"], "node_relu"),
        helper.make_node("MatMul", ["rise_relu", "fall"], ["fallen"], "node_fall"),
        helper.make_node("Mul", ["fallen", "when"], ["weighed"], "node_weigh"),
        helper.make_node("ReduceMean", ["weighed", "frames"], ["seen"], "mean_1", keepdims=0),
        helper.make_node("ReduceMean", ["mfcc", "times"], ["voice"], "mean_2", keepdims=0),
        helper.make_node("MatMul", ["seen", "classify"], ["by_face"], "node_classify"),
        helper.make_node("MatMul", ["voice", "listen"], ["by_voice"], "node_listen"),
        helper.make_node("Add", ["by_face", "by_voice"], ["logits"], "node_add"),
    ]
    inputs = {
        "mfcc": (TensorProto.FLOAT, [1, 10, 12]),
        "features": (TensorProto.FLOAT, [1, 4, 16]),
    }
    return graph_of(nodes, constants, inputs, {"logits": [1, 8]})


@pytest.fixture(scope="session")
def windows() -> list[Window]:
    """Four clips for ``net`` and ``head``, of 4 crops each, from dark to bright."""
    generator = np.random.default_rng(7)
    return [
        Window(
            generator.normal(0, 1, (10, 12)).astype(np.float32),
            np.clip(generator.normal(60 * k, 50, (4, 8, 8, 3)), 0, 255).astype(np.uint8),
        )
        for k in (1, 2, 3, 4)
    ]


@pytest.fixture(scope="session")
def answers(net: ModelProto, head: ModelProto, windows: list[Window]) -> FloatAnswers:
    """What ``net`` and ``head`` say to ``windows``."""
    return FloatAnswers(net, head, windows, threads=1)
