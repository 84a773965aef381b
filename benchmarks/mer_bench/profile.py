"""Where a window's time goes, layer by layer, as the engine itself measures it.

ONNX Runtime's profiler (``SessionOptions.enable_profiling``) and OpenVINO's
``InferRequest.get_profiling_info``. Both fuse layers and rename them, so that float and int8 have
no layers in common: they are compared by family.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_runtime.bundle import ENCODER, FACES, FEATURES, HEAD, MFCC, Bundle
from mer_runtime.files import PACKED_SUFFIX, read_graph

#: What a kind of layer is, by a part of the name that an engine gives it; the first that fits.
FAMILIES = (
    ("quantise", ("quantize",)),
    (
        "moving data",
        (
            "transpose",
            "reorder",
            "concat",
            "slice",
            "split",
            "reshape",
            "gather",
            "squeeze",
            "expand",
            "broadcast",
            "pad",
            "cast",
            "convert",
            "flatten",
        ),
    ),
    ("convolution", ("conv",)),
    ("matrix product", ("matmul", "gemm", "fullyconnected")),
    ("pooling", ("pool", "reduce")),
)
Times = Mapping[tuple[str, str, str], list[float]]

#: Activations, sums, products, normalisations, and what an engine fused of them.
OTHERS = "elementwise"


@dataclass(frozen=True)
class Layer:
    """One layer as the engine runs it; ``milliseconds`` a window, the median of the windows."""

    graph: str
    name: str
    kind: str
    family: str
    milliseconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return asdict(self) | {"milliseconds": round(self.milliseconds, 4)}


def profile_bundle(bundle: Bundle, engine: str, threads: int, windows: int) -> list[Layer] | None:
    """Time both graphs' layers over ``windows`` windows, the slowest first.

    Args:
        engine: which runs it: ``onnxruntime``, ``openvino`` or another.

    Returns:
        None for engines that aren't profiled here (TensorRT), or that run another one's bundle.
    """
    golden = bundle.golden()
    pairs = [golden.case(i) for i in range(len(golden.cases))]
    mfcc, faces = next((m, f) for m, f in pairs if m is not None and f is not None)
    if (bundle.target, engine) == ("onnx", "onnxruntime"):
        found = _profile_onnx(bundle, mfcc, faces, threads, windows)
    elif (bundle.target, engine) == ("openvino", "openvino"):
        found = _profile_openvino(bundle, mfcc, faces, threads, windows)
    else:
        return None
    layers = [
        Layer(graph, name, kind, find_family(kind), float(np.median(times)) / 1e3)
        for (graph, name, kind), times in found.items()
    ]
    return sorted(layers, key=lambda layer: -layer.milliseconds)


def find_family(kind: str) -> str:
    """The family of a kind such as ``QLinearConv``."""
    lowered = kind.lower()
    for family, parts in FAMILIES:
        if any(part in lowered for part in parts):
            return family
    return OTHERS


def _profile_onnx(
    bundle: Bundle, mfcc: NDArray[np.float32], faces: NDArray[np.uint8], threads: int, windows: int
) -> Times:
    """Microseconds of each window by (graph, layer, kind)."""
    import onnxruntime

    from mer_runtime.engines import read_onnx
    from mer_runtime.engines.onnx import open_session

    times: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    features = None
    for graph, file in ((ENCODER, bundle.encoder), (HEAD, bundle.head)):
        with tempfile.TemporaryDirectory(prefix="mer-edge-") as folder:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / graph)
            session = open_session(read_onnx(bundle, file), options)
            feed = (
                {FACES: faces} if features is None else {MFCC: mfcc[None], FEATURES: features[None]}
            )
            for _ in range(1 + windows):
                features = session.run(None, feed)[0]
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        runs: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        for event in events:
            name = event["name"]
            if event.get("cat") == "Node" and name.endswith("_kernel_time"):
                layer = name.removesuffix("_kernel_time").partition("_token_")[0]
                runs[graph, layer or name, event["args"]["op_name"]].append(event["dur"])
        for key, values in runs.items():
            # Layers that were left one name run several times a window.
            each = len(values) // (1 + windows)
            whole = np.array(values).reshape(-1, each).sum(axis=1)
            times[key] = whole[1:].tolist()  # the first window is the warm-up
    return times


def _profile_openvino(
    bundle: Bundle, mfcc: NDArray[np.float32], faces: NDArray[np.uint8], threads: int, windows: int
) -> Times:
    """Microseconds of each window by (graph, layer, kind)."""
    import openvino

    settings = {
        "PERF_COUNT": True,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": bundle.engine["inference_precision"],
    }
    core = openvino.Core()
    times: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    features = None
    for graph, file in ((ENCODER, bundle.encoder), (HEAD, bundle.head)):
        model = core.read_model(*_read_ir(file))
        if features is None:
            model.reshape({FACES: list(faces.shape)})
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        feed = {FACES: faces} if features is None else {MFCC: mfcc[None], FEATURES: features[None]}
        for window in range(1 + windows):
            features = np.array(request.infer(feed)[0])
            for layer in request.get_profiling_info() if window else ():
                if layer.real_time:  # zero where another layer took it over
                    key = graph, layer.node_name, layer.node_type
                    times[key].append(layer.real_time.total_seconds() * 1e6)
    return times


def _read_ir(graph: Path) -> list[Any]:
    """What ``read_model`` takes: the file, or the content of two packed ones."""
    if graph.suffix != PACKED_SUFFIX:
        return [str(graph)]
    weights = graph.with_name(graph.name.replace(".xml", ".bin"))
    return [read_graph(file) for file in (graph, weights)]
