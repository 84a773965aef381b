"""Drive layers' graphs on an engine, and compare what comes out with what must.

    python scripts/drive_layers.py onnx|openvino FOLDER

It needs the runtime and an engine alone, so that it runs in an emulator's Python. FOLDER is what
``layer_cases.Case.write`` wrote. For each case it prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_runtime.engines.onnx import open_session  # before any engine: it lets none report

Run = Callable[[Path, Mapping[str, NDArray[np.float32]]], "tuple[NDArray[np.float32], str]"]


def run_onnx(graph: Path, inputs: Mapping[str, Any]) -> tuple[Any, str]:
    """What ONNX Runtime puts out; it doesn't tell its kernels' names."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return open_session(graph, options).run(None, dict(inputs))[0], ""


def run_openvino(graph: Path, inputs: Mapping[str, Any]) -> tuple[Any, str]:
    """What OpenVINO puts out, and the kernel that multiplied."""
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    model = core.compile_model(core.read_model(graph), "CPU", settings)
    kernels = []
    for operation in model.get_runtime_model().get_ordered_ops():
        facts = {
            name: value if isinstance(value, str) else value.astype(str)
            for name, value in operation.get_rt_info().items()
            if name in ("layerType", "primitiveType")
        }
        if facts["layerType"] in ("Convolution", "FullyConnected", "MatMul"):
            kernels.append(facts["primitiveType"])
    return model(dict(inputs))[0], " ".join(kernels)


ENGINES: Mapping[str, Run] = {"onnx": run_onnx, "openvino": run_openvino}


def main(engine: str, folder: str) -> None:
    """Print how many values of each case are wrong, and by how much at most."""
    for graph in sorted(Path(folder).glob("*.onnx")):
        with np.load(graph.with_suffix(".npz")) as case:
            inputs = {n.split(" ", 1)[1]: case[n] for n in case.files if n.startswith("input ")}
            low, high, name = case["low"], case["high"], str(case["name"])
        found, kernel = ENGINES[engine](graph, inputs)
        off = np.maximum(np.maximum(low - found, found - high), 0)
        off = np.where(np.isnan(off), np.inf, off)
        told = {"name": name, "kernel": kernel, "values": off.size}
        print(json.dumps({**told, "wrong": int((off > 0).sum()), "largest": float(off.max())}))


if __name__ == "__main__":
    main(*sys.argv[1:])
